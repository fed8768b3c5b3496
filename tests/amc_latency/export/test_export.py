"""Exported files against PyTorch's own forward and against published MACs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from amc_latency.lut.tflite.run import run_tflite, tflite_ops
from torch import Tensor, nn
from torch.nn import functional

from amc_latency.errors import JobError
from amc_latency.export.export import ExportError, export, to_tflite
from amc_latency.models.zoo.mobilenet_v1 import mobilenet_v1

# Outputs of the stem and the 13 pointwise layers, and MACs in millions: shared/research/amc.md 1.2, from amc-models.
HALF_FLOPS = (24, 48, 96, 80, 192, 200, 328, 352, 368, 360, 328, 400, 736, 752)
HALF_TIME = (16, 48, 88, 80, 192, 168, 336, 360, 360, 352, 352, 368, 768, 680)


def randomised(model: nn.Module) -> nn.Module:
    """Batch norms far from the identity, so that folding them wrongly shows."""
    draw = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.3, generator=draw)
            module.running_var.uniform_(0.5, 2, generator=draw)
            module.eps = 0.05
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=draw)
            nn.init.normal_(module.bias, 0, 0.3, generator=draw)
    return model


def outputs(model: nn.Module, images: Tensor) -> np.ndarray:
    with torch.inference_mode():
        return model.eval()(images).numpy()


@pytest.mark.parametrize(
    ("width", "channels", "millions"),
    [(1.0, None, "568.74"), (0.75, None, "325.40"), (1.0, HALF_FLOPS, "293.87"), (1.0, HALF_TIME, "273.98")],
    ids=["1.0", "0.75", "amc-0.5flops", "amc-0.5time"],
)
def test_mobilenet_v1_has_the_published_macs_and_pytorchs_outputs(
    tmp_path: Path, width: float, channels: tuple[int, ...] | None, millions: str
) -> None:
    torch.manual_seed(0)
    model = randomised(mobilenet_v1(width, channels=channels))
    images, path = torch.randn(1, 3, 224, 224), tmp_path / "model.tflite"
    report = export(model, (3, 224, 224), path, images)
    assert f"{report.macs / 1e6:.2f}" == millions
    # 5 of the convolutions have stride 2 and an even input, which SAME would shift.
    assert report.ops == {"CONV_2D": 14, "DEPTHWISE_CONV_2D": 13, "FULLY_CONNECTED": 1, "MEAN": 1, "PAD": 5}
    assert report.bytes == path.stat().st_size
    assert 4 * report.params < report.bytes < 4 * report.params + 40_000
    expected, got = outputs(model, images), run_tflite(path, images.numpy())
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)
    assert report.max_abs_error == np.abs(got - expected).max()


def vgg11_bn_at_64() -> nn.Module:
    model = torchvision.models.vgg11_bn(num_classes=10)
    model.avgpool = nn.AdaptiveAvgPool2d((2, 2))  # as 7x7 at 224: the identity
    model.classifier = nn.Sequential(nn.Linear(512 * 2 * 2, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 10))
    return model


@pytest.mark.parametrize(
    ("build", "ops"),
    [
        (
            lambda: torchvision.models.mobilenet_v2(num_classes=10),
            {"ADD": 10, "CONV_2D": 35, "DEPTHWISE_CONV_2D": 17, "FULLY_CONNECTED": 1, "MEAN": 1, "PAD": 5},
        ),
        (
            lambda: torchvision.models.resnet18(num_classes=10),
            {"ADD": 8, "CONV_2D": 20, "FULLY_CONNECTED": 1, "MAX_POOL_2D": 1, "MEAN": 1, "PAD": 5},
        ),
        (vgg11_bn_at_64, {"CONV_2D": 8, "FULLY_CONNECTED": 2, "MAX_POOL_2D": 5, "RESHAPE": 1}),
    ],
    ids=["mobilenet_v2", "resnet18", "vgg11_bn"],
)
def test_torchvision_networks_equal_pytorch(
    tmp_path: Path, build: Callable[[], nn.Module], ops: dict[str, int]
) -> None:
    torch.manual_seed(0)
    model, images = randomised(build()), torch.randn(2, 3, 64, 64)
    report = export(model, (3, 64, 64), tmp_path / "model.tflite", images)
    assert report.ops == ops
    expected = outputs(model, images)
    got = run_tflite(tmp_path / "model.tflite", images.numpy())
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * max(1, np.abs(expected).max()))


class ManySpellings(nn.Module):
    """The functional, method and in-place forms of what the exporter supports."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.left = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.right = nn.Conv2d(8, 8, 1)
        self.last = nn.Conv2d(8, 8, 1)
        self.average = nn.AvgPool2d(3, 2, 1)
        self.highest = nn.MaxPool2d(3, 2, 1)
        self.bn = nn.BatchNorm2d(8)
        self.hidden = nn.Linear(8 * 3 * 4, 12, bias=False)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu6(self.stem(x))
        y = self.bn(self.left(x))
        y += self.right(x).relu()
        x = torch.relu(torch.add(x, y))
        x = self.highest(self.last(self.average(x)))
        x = functional.dropout(x.reshape(x.size(0), -1), training=self.training)
        return self.head(functional.relu(self.hidden(x)))


def test_every_spelling_equals_pytorch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, images = randomised(ManySpellings()), torch.randn(3, 1, 22, 30)
    report = export(model.train(), (1, 22, 30), tmp_path / "model.tflite", images)
    # The two pools, the stem: their even inputs need a PAD; the max pool reads negative values.
    assert report.ops == {
        "ADD": 2,
        "AVERAGE_POOL_2D": 1,
        "CONV_2D": 4,
        "FULLY_CONNECTED": 2,
        "MAX_POOL_2D": 1,
        "PAD": 2,
        "PADV2": 1,
        "RESHAPE": 1,
    }
    assert model.training
    expected = outputs(model, images)
    np.testing.assert_allclose(run_tflite(tmp_path / "model.tflite", images.numpy()), expected, atol=1e-4)


class MeanHead(nn.Module):
    def __init__(self, keepdim: bool) -> None:
        super().__init__()
        self.conv, self.head, self.keepdim = nn.Conv2d(3, 8, 3), nn.Linear(8, 4), keepdim

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.conv(x).mean([2, 3], keepdim=self.keepdim)
        return self.head(pooled.flatten(1))


@pytest.mark.parametrize("keepdim", [False, True])
def test_a_mean_over_height_and_width_is_a_global_pool(keepdim: bool) -> None:
    model, images = MeanHead(keepdim), torch.randn(2, 3, 9, 9)
    content = to_tflite(model, (3, 9, 9))
    assert tflite_ops(content) == {"CONV_2D": 1, "FULLY_CONNECTED": 1, "MEAN": 1}
    np.testing.assert_allclose(run_tflite(content, images.numpy()), outputs(model, images), atol=1e-5)


def test_the_callers_model_is_untouched(tmp_path: Path) -> None:
    model = randomised(mobilenet_v1(0.25, classes=4, in_channels=1)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    export(model, (1, 32, 32), tmp_path / "model.tflite")
    assert all(module.training for module in model.modules())
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (
            nn.Sequential(nn.Conv2d(3, 8, 3), nn.Softplus(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            ["1:", "Softplus", "`converter='litert-torch'`"],
        ),
        (Branching(), ["test_export.py:", "can't be traced"]),
    ],
    ids=["activation", "control flow"],
)
def test_what_is_not_supported_is_named(tmp_path: Path, model: nn.Module, names: list[str]) -> None:
    path = tmp_path / "model.tflite"
    with pytest.raises(ExportError) as caught:
        export(model, (3, 9, 9), path)
    assert isinstance(caught.value, JobError)
    message = str(caught.value)
    assert all(name in message for name in names), message
    assert not list(tmp_path.iterdir())


def test_a_file_that_differs_from_pytorch_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"what was there before")
    model = randomised(mobilenet_v1(0.25, classes=4, in_channels=1))
    with pytest.raises(ExportError, match=r"differs from PyTorch by .* PyTorch's own rounding is off by"):
        export(model, (1, 32, 32), path, tolerance=1e-12)
    with torch.no_grad():
        next(model.parameters())[0, 0, 0, 0] = torch.nan
    with pytest.raises(ExportError, match="differs from PyTorch by nan"):
        export(model, (1, 32, 32), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.tflite"]
    assert path.read_bytes() == b"what was there before"


def test_a_place_that_cannot_be_written_and_images_that_do_not_fit(tmp_path: Path) -> None:
    model = mobilenet_v1(0.25, classes=4, in_channels=1)
    with pytest.raises(ExportError, match=r"can't write .*absent/model\.tflite: No such file"):
        export(model, (1, 32, 32), tmp_path / "absent" / "model.tflite")
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match="Not a directory"):
        export(model, (1, 32, 32), tmp_path / "file" / "model.tflite")
    with pytest.raises(ExportError, match=r"images \[2, 3, 32, 32\]"):
        export(model, (1, 32, 32), tmp_path / "model.tflite", torch.zeros(2, 3, 32, 32))
