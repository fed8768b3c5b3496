"""What both converters need as they read a network: no chatter, and no decision frozen in that is the image's."""

from __future__ import annotations

import io
import logging
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from amc_latency.export.export import ExportError


@contextmanager
def quiet() -> Iterator[None]:
    """Hides what a library prints, logs and warns of while it converts."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def check_control_flow(model: nn.Module, image: Tensor) -> None:
    """Raise ExportError, saying where, if the network's code depends on the image's values.

    The ONNX exporter would keep the path that its example takes, and say nothing.
    """
    try:
        with quiet():
            torch.export.export(model, (image,), strict=False)
    except GuardOnDataDependentSymNode as failure:
        raise ExportError(
            f"{_own_line(failure)}the network's code depends on the values in the image, which no converter can write: "
            "compute both ways and choose with torch.where"
        ) from failure
    except Exception:
        pass


def _own_line(failure: Exception) -> str:
    """Where in the network's own code it was raised, as `FILE:LINE: `."""
    libraries = Path(torch.__file__).parent
    frames = traceback.extract_tb(failure.__traceback__)
    own = [frame for frame in frames if libraries not in Path(frame.filename).parents and frame.filename != __file__]
    return f"{own[-1].filename}:{own[-1].lineno}: " if own else ""
