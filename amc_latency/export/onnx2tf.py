"""Conversion through ONNX by the command onnx2tf, which lives in an environment of its own: its pins contradict ours.

1.29.24, the last for Python 3.11, goes through TensorFlow; 2.x, from Python 3.12 on, writes the file itself. Both take
the same command line and call the file `NAME_float32.tflite`.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import nn

from amc_latency.errors import UserError
from amc_latency.export.export import ExportError, output_of
from amc_latency.export.reading import check_control_flow, quiet

VARIABLE = "AMC_LATENCY_ONNX2TF"
HOW_TO = (
    "pip install 'amc-latency[onnx]' here and onnx2tf in an environment of its own (python3.12 -m venv ~/onnx2tf && "
    "~/onnx2tf/bin/pip install 'onnx2tf>=2', or with python3.11 onnx2tf==1.29.24), then "
    f"{VARIABLE}=~/onnx2tf/bin/onnx2tf"
)
_OPSET = 17
# 1.29.24 tries to download this file unless it lies in its working directory; it only sees random figures.
_CALIBRATION = "calibration_image_sample_data_20x128x128x3_float32.npy"
_LAST_LINES = 3


def is_installed() -> bool:
    """Whether both the command and what writes ONNX are there. Raises UserError if the variable names no command."""
    return find_spec("onnx") is not None and find_command() is not None


def find_command() -> Path | None:
    """The command: what the variable AMC_LATENCY_ONNX2TF names, else from PATH; None if there is none.

    Raises UserError if the variable names something that can't be run.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        found = shutil.which("onnx2tf")
        return None if found is None else Path(found).absolute()
    path = Path(named).expanduser().absolute()
    if not path.is_file() or not os.access(path, os.X_OK):
        raise UserError(f"{VARIABLE} is '{named}', which is no program: let it be the path of the command onnx2tf")
    return path


def to_tflite(model: nn.Module, input_chw: tuple[int, int, int], timeout_s: float = 1800) -> bytes:
    """A frozen network as a float32 `.tflite` with input [1, H, W, C]; a feature map is returned as [1, H, W, C].

    Raises UserError if the command or the package onnx is missing, ExportError with the last lines of what failed.
    """
    command = find_command()
    if command is None or find_spec("onnx") is None:
        missing = "the command onnx2tf isn't found" if command is None else "the package onnx isn't installed"
        raise UserError(f"the converter onnx2tf can't run, for {missing}: {HOW_TO}")
    image = torch.zeros(1, *input_chw)
    output_of(model, image)
    check_control_flow(model, image)
    with tempfile.TemporaryDirectory(prefix="amc-latency-") as name:
        folder = Path(name)
        _write_onnx(model, image, folder / "network.onnx")
        np.save(folder / _CALIBRATION, np.random.default_rng(0).random((20, 128, 128, 3), np.float32))
        said = run_command([str(command), "-i", "network.onnx", "-o", "out", "-n"], folder, timeout_s)
        written = folder / "out" / "network_float32.tflite"
        if not written.is_file():
            raise ExportError(f"onnx2tf wrote no float32 file: {said}")
        return written.read_bytes()


def run_command(command: list[str], folder: Path, timeout_s: float) -> str:
    """Run a command of another environment in `folder`, and return its last lines.

    Raises ExportError with them if it fails, or takes longer than `timeout_s`; it never stays behind.
    """
    own = Path(command[0]).parent
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    # It calls other commands of its environment.
    env["PATH"] = os.pathsep.join([str(own), env.get("PATH", os.defpath)])
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as failure:
            raise ExportError(f"{command[0]} can't be started: {failure.strerror}") from failure
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired as failure:
            raise ExportError(f"{Path(command[0]).name} was stopped after {timeout_s:g} s") from failure
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        output.seek(0)
        said = last_lines(output.read().decode(errors="replace"))
    if code:
        raise ExportError(f"{Path(command[0]).name} failed with exit code {code}: {said or 'it said nothing'}")
    return said


def last_lines(text: str) -> str:
    """The last lines with words in them, on one line; without colours, progress bars and frames."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    lines = [line.strip() for line in re.split(r"[\r\n]+", plain)]
    words = [line for line in lines if re.search(r"\w", line) and not re.search(r"\d+%\|", line)]
    return " / ".join(line[:300] for line in words[-_LAST_LINES:])


def _write_onnx(model: nn.Module, image: torch.Tensor, path: Path) -> None:
    try:
        with quiet():
            # The older exporter: it needs the package onnx and nothing more.
            torch.onnx.export(
                model,
                (image,),
                path,
                input_names=["input"],
                output_names=["output"],
                opset_version=_OPSET,
                dynamo=False,
            )
    except Exception as failure:  # whatever the exporter raises
        reason = next(iter(str(failure).strip().splitlines()), type(failure).__name__)
        raise ExportError(f"PyTorch can't write the network as ONNX: {reason}") from failure
