"""The library's calls for files in a precision: what they take, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from amc_latency.device.tflite.outputs import TfliteRunner
from torch import Tensor, nn

import amc_latency as amc
from amc_latency.errors import OptionError, UserError
from amc_latency.models.load import NetworkOptions, load_network

IMAGE = (3, 16, 16)


class Masks(nn.Module):
    """A feature map in a dict: no classes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"mask": self.b(torch.relu(self.a(x)))}


class OwnTask:
    def calibration(self) -> list[Tensor]:
        return list(torch.randn(4, 16, *IMAGE, generator=torch.Generator().manual_seed(1)))

    def score(self, model: nn.Module, budget: int | None = None) -> float:
        return 0.0

    def digest(self) -> str:
        return "1"


@pytest.fixture(scope="module")
def net() -> amc.Network:
    return amc.network(Masks(), torch.zeros(1, *IMAGE))


def test_a_task_of_ones_own_gives_the_ranges(net: amc.Network, tmp_path: Path) -> None:
    path = tmp_path / "a.tflite"
    report = amc.export(net, path, precision="int8", task=OwnTask())
    assert report.precision == ("int8", "int8")
    assert (report.accuracy, report.same_class) == (None, None)
    images = torch.cat(OwnTask().calibration())
    same = amc.export(Masks(), tmp_path / "b.tflite", torch.zeros(1, *IMAGE), precision="int8", calibration=images)
    assert same.max_abs_error == report.max_abs_error
    assert (tmp_path / "b.tflite").read_bytes() == path.read_bytes()
    with TfliteRunner(path.read_bytes()) as runner:
        (found,) = runner.real(images.numpy().transpose(0, 2, 3, 1))
    with torch.inference_mode():
        expected = Masks()(images)["mask"].numpy().transpose(0, 2, 3, 1)
    # All values lie within the ranges: nothing but rounding, of a few steps of 1/255 of the outputs' range.
    assert np.abs(found - expected).max() < 0.03 * np.ptp(expected)


def test_one_calibration_serves_many_policies(net: amc.Network, tmp_path: Path) -> None:
    ranges = amc.calibrate(net, OwnTask())
    errors, contents = {}, set()
    for policy in (("int8", "int8"), ("float32", "int8"), ["int8", "float32"], "float32,float32"):
        report = amc.export(net, tmp_path / "a.tflite", precision=policy, calibration=ranges)
        assert report.precision in ((), tuple(policy.split(",") if isinstance(policy, str) else policy))
        errors[str(policy)] = report.max_abs_error
        contents.add((tmp_path / "a.tflite").read_bytes())
    assert len(contents) == 4
    assert errors["float32,float32"] < 1e-5 < min(error for name, error in errors.items() if "int8" in name)
    other = amc.network(nn.Sequential(nn.Conv2d(3, 4, 3)), torch.zeros(1, *IMAGE))
    with pytest.raises(OptionError, match="is of another network"):
        amc.export(other, tmp_path / "b.tflite", precision="int8", calibration=ranges)


def test_an_image_task_says_what_the_file_is_worth(tmp_path: Path) -> None:
    net = load_network(NetworkOptions())
    task = amc.ImageTask(f"{Path(__file__).parents[1] / 'integration' / 'few_images.py'}:fewer_images")
    path = tmp_path / "a.tflite"
    report = amc.export(net, path, precision="int8", task=task, io="uint8")
    assert report.accuracy is not None
    assert report.pytorch_accuracy is not None
    assert report.accuracy.images == 200
    assert abs(report.accuracy.accuracy_pct - report.pytorch_accuracy.accuracy_pct) <= 2
    found = amc.accuracy(path, str(task.data), quiet=True)
    assert found.accuracy_pct == report.accuracy.accuracy_pct
    assert found.interval_95 == report.accuracy.interval_95


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"precision": "int8"}, OptionError, "the calibration images are missing"),
        ({"precision": "int8", "calibration": torch.ones(30, *IMAGE)}, OptionError, "are of one colour each"),
        ({"precision": "int8", "task": 7}, UserError, "task int has no calibration, score, digest"),
        ({"precision": ["int8"], "task": OwnTask()}, OptionError, "has 1 names, and the network 2 layers"),
        ({"precision": "int9", "task": OwnTask()}, OptionError, "no precision is called 'int9'"),
        ({"io": "int16", "task": OwnTask()}, OptionError, "`io`: no type of inputs and outputs is called 'int16'"),
        ({"io": "uint8", "task": OwnTask()}, OptionError, "how module:Masks wants pixels normalised is not known"),
        ({"precision": "int8", "task": OwnTask(), "converter": "onnx2tf"}, OptionError, "writes float32 alone"),
        (
            {"precision": "int8", "calibration": torch.randn(30, 3, 8, 8)},
            OptionError,
            r"give normalised floats \[N, 3, 16, 16\]",
        ),
        ({"precision": 8, "task": OwnTask()}, OptionError, "`precision` is a name, or a list of one each layer, not 8"),
    ],
)
def test_what_cannot_be_exported(
    net: amc.Network, tmp_path: Path, options: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        amc.export(net, tmp_path / "a.tflite", **options)
    assert list(tmp_path.iterdir()) == []
