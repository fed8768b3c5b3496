"""Converters of others, real where they are installed, and the choice between them and ours."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from amc_latency.lut.tflite.run import run_tflite, tflite_ops
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from amc_latency.errors import UserError
from amc_latency.export import choose, litert_torch, onnx2tf, reading
from amc_latency.export.choose import export_with
from amc_latency.export.export import Conversion, ExportError, export, to_tflite
from amc_latency.graph.tracing import UntraceableError
from amc_latency.models.load import NetworkOptions, load_model, load_network
from amc_latency.pixels import Normalisation

INPUT = (3, 12, 10)

needs_litert_torch = pytest.mark.skipif(
    not litert_torch.is_installed(), reason="litert-torch isn't installed: pip install -e '.[litert-torch]'"
)
needs_onnx = pytest.mark.skipif(find_spec("onnx") is None, reason="onnx isn't installed: pip install -e '.[onnx]'")
needs_onnx2tf = pytest.mark.skipif(
    onnx2tf.find_command() is None, reason=f"the command onnx2tf isn't found: set {onnx2tf.VARIABLE}"
)


class Waved(nn.Module):
    """What our converter will not learn."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Linear(8, 5)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(torch.sin(self.norm(self.conv(x)))).flatten(1))


class Deciding(nn.Module):
    """Takes another way for a bright image than for a dark one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if y.sum() > 0:
            y = 2 * y
        return y.mean((2, 3))


def seeded(build: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return build()


def images(count: int = 3) -> Tensor:
    return torch.rand(count, *INPUT, generator=torch.Generator().manual_seed(1))


def plain() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where no converter but ours is installed."""
    monkeypatch.setattr(litert_torch, "is_installed", lambda: False)
    monkeypatch.setattr(onnx2tf, "is_installed", lambda: False)


@pytest.mark.parametrize("converter", ["auto", "ours"])
def test_what_ours_can_write_ours_writes(tmp_path: Path, converter: str) -> None:
    model = plain()
    report = export_with(converter, model, INPUT, tmp_path / "a.tflite", images())
    assert (report.converter, report.note) == ("ours", None)
    assert report == export(model, INPUT, tmp_path / "b.tflite", images())
    # 8 filters of 3x3x3 at 10x8 places, and 8x4 weights
    assert report.macs == 8 * 3 * 3 * 3 * 10 * 8 + 8 * 4
    assert report.bytes == (tmp_path / "a.tflite").stat().st_size


def test_where_ours_refuses_and_no_other_is_there_both_are_said(tmp_path: Path, alone: None) -> None:
    with pytest.raises(ExportError) as refusal:
        export_with("auto", seeded(Waved), INPUT, tmp_path / "a.tflite")
    needed = ["our converter can't write the network: ", "sin", "'amc-latency[litert-torch]'", "onnx2tf==1.29.24"]
    assert all(words in str(refusal.value) for words in needed), refusal.value
    with pytest.raises(ExportError) as refusal:
        export_with("ours", seeded(Waved), INPUT, tmp_path / "a.tflite")
    assert "onnx2tf" not in str(refusal.value)
    with pytest.raises(UserError, match=r"litert-torch isn't installed: pip install"):
        export_with("litert-torch", seeded(Waved), INPUT, tmp_path / "a.tflite")
    with pytest.raises(UserError, match=r"'tf'.*auto, ours, litert-torch, onnx2tf"):
        export_with("tf", seeded(Waved), INPUT, tmp_path / "a.tflite")
    assert not list(tmp_path.iterdir())


def installed_as(name: str, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A converter of that name that writes `content`, whatever it is given."""
    monkeypatch.setattr(choose, "_OTHERS", {**choose._OTHERS, name: lambda *_: content})
    monkeypatch.setattr(choose, "_installed", lambda: name)


def test_auto_says_who_wrote_the_file_and_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Doubled(nn.Module):
        """Refused by our tracer, and equal to what `plain` computes twice."""

        def __init__(self) -> None:
            super().__init__()
            self.net = seeded(plain)  # type: ignore[arg-type]

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) if x.sum() > 0 else torch.zeros(len(x), 4)

    model = Doubled()
    installed_as("onnx2tf", to_tflite(model.net, INPUT), monkeypatch)
    report = export_with("auto", model, INPUT, tmp_path / "a.tflite", images())
    assert (report.converter, report.macs, report.params) == ("onnx2tf", None, None)
    assert report.note is not None
    assert report.note.startswith("onnx2tf wrote the file; ours can't: ")
    assert report.ops == {"CONV_2D": 1, "FULLY_CONNECTED": 1, "MEAN": 1}
    # Dark images take the way that the file doesn't know.
    with pytest.raises(ExportError, match="differs from PyTorch"):
        export_with("auto", model, INPUT, tmp_path / "b.tflite", -images())
    assert [path.name for path in tmp_path.iterdir()] == ["a.tflite"]


class Reread(nn.Module):
    """Adds to its own output what an in-place ReLU has made of it meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return (y + self.relu(y)).mean((2, 3))


@pytest.mark.parametrize("converter", ["auto", "ours"])
def test_a_file_is_compared_with_the_network_as_it_is(tmp_path: Path, converter: str) -> None:
    model = seeded(Reread)
    with torch.no_grad():
        expected = 2 * torch.relu(model.conv(images())).mean((2, 3)).numpy()
    report = export_with(converter, model, INPUT, tmp_path / "a.tflite", images())
    assert (report.converter, report.note) == ("ours", None)
    np.testing.assert_allclose(run_tflite(tmp_path / "a.tflite", images().numpy()), expected, atol=1e-5)
    assert model.relu.inplace


def test_auto_goes_to_another_where_our_file_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = plain(), plain()
    monkeypatch.setattr(choose, "converted", lambda *_: Conversion(to_tflite(other, INPUT), None))
    installed_as("onnx2tf", to_tflite(model, INPUT), monkeypatch)
    report = export_with("auto", model, INPUT, tmp_path / "a.tflite", images())
    assert report.converter == "onnx2tf"
    assert report.note is not None
    assert "ours can't: the exported file differs from PyTorch" in report.note
    with pytest.raises(ExportError, match="differs from PyTorch"):
        export_with("ours", model, INPUT, tmp_path / "b.tflite", images())
    monkeypatch.setattr(choose, "_installed", lambda: None)
    with pytest.raises(ExportError, match=r"differs from PyTorch.*Another one may: either"):
        export_with("auto", model, INPUT, tmp_path / "b.tflite", images())
    # Nor is a place that can't be written to a reason for another converter.
    monkeypatch.undo()
    monkeypatch.setattr(choose, "_installed", lambda: pytest.fail("another converter was looked for"))
    with pytest.raises(ExportError, match="can't write"):
        export_with("auto", model, INPUT, tmp_path / "a.tflite" / "c.tflite", images())


@pytest.mark.parametrize(("scale", "equal"), [(1 + 5e-5, True), (1 + 2e-4, False)])
def test_errors_are_seen_beside_the_range_of_the_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale: float, equal: bool
) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.copy_(torch.tensor([-1.0, 0, 2, 3]))
    content = to_tflite(model, INPUT)
    with torch.no_grad():
        model[0].bias.mul_(scale)
    installed_as("onnx2tf", content, monkeypatch)
    path = tmp_path / "a.tflite"
    if not equal:  # 3 * 2e-4 is more than 1e-4 * (3 + 1) + 1e-5
        with pytest.raises(ExportError, match=r"differs from PyTorch by 0\.0006 where 0\.00041 is allowed"):
            export_with("onnx2tf", model, INPUT, path, images())
        return
    report = export_with("onnx2tf", model, INPUT, path, images())
    assert report.output_range == pytest.approx(4, rel=1e-3)
    assert report.max_abs_error == pytest.approx(1.5e-4, rel=0.1)


def test_outputs_of_zero_prove_nothing(tmp_path: Path) -> None:
    model = plain()
    for tensor in model[-1].parameters():  # type: ignore[index]
        nn.init.zeros_(tensor)
    report = export_with("ours", model, INPUT, tmp_path / "a.tflite", images())
    assert report.output_range == 0
    assert report.note is not None
    assert "every output is 0" in report.note


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


@pytest.mark.parametrize(
    ("model", "names"),
    [(Deciding(), [f"{__file__}:", "values in the image", "torch.where"]), (Pair(), ["returns a tuple"])],
    ids=["control flow", "two outputs"],
)
@pytest.mark.parametrize("converter", [litert_torch, onnx2tf])
def test_what_no_converter_can_write_is_refused(
    monkeypatch: pytest.MonkeyPatch, converter: object, model: nn.Module, names: list[str]
) -> None:
    monkeypatch.setattr(litert_torch, "is_installed", lambda: True)
    monkeypatch.setattr(onnx2tf, "find_command", lambda: Path("onnx2tf"))
    monkeypatch.setattr(onnx2tf, "find_spec", lambda _: True)
    with pytest.raises(ExportError) as refusal:
        converter.to_tflite(model.eval(), INPUT)  # type: ignore[attr-defined]
    assert all(name in str(refusal.value) for name in names), refusal.value
    if isinstance(model, Deciding):
        line = next(i for i, text in enumerate(Path(__file__).read_text().splitlines(), 1) if "if y.sum() > 0" in text)
        assert f"{__file__}:{line}: " in str(refusal.value)


def test_a_network_that_cannot_be_traced_can_be_loaded(tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text(
        "from torch import nn\n"
        "class Deciding(nn.Sequential):\n"
        "    def forward(self, x):\n"
        "        y = super().forward(x)\n"
        "        return y if y.sum() > 0 else -y\n"
        "def build():\n"
        "    return Deciding(nn.Conv2d(3, 4, 8), nn.Flatten())\n"
    )
    options = NetworkOptions(f"{path}:build", input="3x8x8")
    with pytest.raises(UntraceableError, match=f"{path}:5"):
        load_network(options)
    model, spec, trained, pixels = load_model(options)
    assert (spec.input, spec.classes, trained, pixels) == ((3, 8, 8), 4, False, None)
    assert model(torch.rand(2, 3, 8, 8)).shape == (2, 4)
    with pytest.raises(UserError, match=r"1x8x8 .*`input=CxHxW`"):
        load_model(NetworkOptions(f"{path}:build", input="1x8x8"))


def test_decisions_from_sizes_are_no_decisions_from_data() -> None:
    class BySize(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1 if x.shape[2] > 3 else x

    reading.check_control_flow(BySize(), torch.zeros(1, *INPUT))


def command(path: Path, text: str) -> Path:
    """A program that stands in for another environment's."""
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_the_variable_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = command(tmp_path / "onnx2tf", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(onnx2tf.VARIABLE, raising=False)
    assert onnx2tf.find_command() == path
    monkeypatch.setenv(onnx2tf.VARIABLE, str(tmp_path / "absent"))
    with pytest.raises(UserError, match=r"AMC_LATENCY_ONNX2TF is '.*absent', which is no program"):
        onnx2tf.find_command()
    monkeypatch.setenv(onnx2tf.VARIABLE, str(path))
    monkeypatch.setenv("PATH", "")
    assert onnx2tf.find_command() == path
    monkeypatch.delenv(onnx2tf.VARIABLE)
    with pytest.raises(UserError, match=r"the command onnx2tf isn't found: pip install .*AMC_LATENCY_ONNX2TF="):
        onnx2tf.to_tflite(plain(), INPUT)


def test_the_command_runs_in_its_own_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    path = command(tmp_path / "tool", "import os; print(os.getcwd(), 'PYTHONPATH' in os.environ, os.environ['PATH'])")
    (folder := tmp_path / "there").mkdir()
    cwd, inherited, search = onnx2tf.run_command([str(path)], folder, 60).split()
    assert (cwd, inherited) == (str(folder), "False")
    assert search.split(os.pathsep)[0] == str(tmp_path)


def test_a_command_that_fails_is_quoted(tmp_path: Path) -> None:
    text = r"print('first\n50%|##| 1/2\r\x1b[31mERROR: op Foo\x1b[0m\n----\nat layer 3'); raise SystemExit(3)"
    path = command(tmp_path / "tool", text)
    with pytest.raises(ExportError) as failure:
        onnx2tf.run_command([str(path)], tmp_path, 60)
    assert str(failure.value) == "tool failed with exit code 3: first / ERROR: op Foo / at layer 3"
    path.write_text("no program")
    with pytest.raises(ExportError, match="can't be started"):
        onnx2tf.run_command([str(path)], tmp_path, 60)


def test_a_command_that_hangs_is_stopped_with_what_it_started(tmp_path: Path) -> None:
    text = (
        "import subprocess, sys, time\nchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'])"
    )
    path = command(tmp_path / "tool", f"{text}\nopen('pid', 'w').write(str(child.pid))\ntime.sleep(99)")
    with pytest.raises(ExportError, match=r"tool was stopped after 1\.5 s"):
        onnx2tf.run_command([str(path)], tmp_path, 1.5)
    pid = (tmp_path / "pid").read_text()
    for _ in range(100):
        state = subprocess.run(["ps", "-o", "stat=", "-p", pid], capture_output=True, text=True).stdout.strip()
        if state in ("", "Z", "Zs"):
            return
        time.sleep(0.02)
    pytest.fail(f"the command's child is still there: {state}")


@given(st.text())
def test_last_lines_are_one_line_without_escapes(text: str) -> None:
    said = onnx2tf.last_lines(text)
    assert not set(said) & {"\r", "\n"}
    assert said.count(" / ") <= 2 + text.count(" / ")
    assert onnx2tf.last_lines(f"{text}\nthe reason\n").endswith("the reason")


class Widened(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(3, 5, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(x).relu()


@pytest.mark.parametrize(
    "converter",
    [
        pytest.param("litert-torch", marks=needs_litert_torch),
        pytest.param("onnx2tf", marks=[needs_onnx, needs_onnx2tf]),
    ],
)
@pytest.mark.parametrize("build", [Waved, Widened])
def test_a_real_converter_equals_pytorch(tmp_path: Path, converter: str, build: type[nn.Module]) -> None:
    model, path = seeded(build), tmp_path / "a.tflite"
    report = export_with(converter, model, INPUT, path, images())
    assert (report.converter, report.note) == (converter, None)
    with torch.inference_mode():
        expected = model.eval()(images()).numpy()
    np.testing.assert_allclose(run_tflite(path, images().numpy()), expected, atol=1e-5)
    assert report.ops == tflite_ops(path.read_bytes())
    if converter == "litert-torch":  # whose input is NCHW unless it is told
        assert "TRANSPOSE" not in report.ops
    pixels = Normalisation((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    export_with(converter, model, INPUT, path, images(), pixels=pixels)
    of_pixels = images().numpy() * [[[0.2]], [[0.3]], [[0.4]]] + [[[0.5]], [[0.4]], [[0.3]]]
    np.testing.assert_allclose(run_tflite(path, 255 * of_pixels), expected, atol=1e-5)
