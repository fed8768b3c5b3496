"""A trained network to quantised files: their accuracy, their edges, and what becomes of bad input."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from amc_latency.device.tflite.outputs import TfliteRunner, dequantised
from amc_latency.lut.tflite.run import tflite_ops
from torch import Tensor, nn

from amc_latency.data import InMemory, data_for
from amc_latency.errors import ExportError, OptionError
from amc_latency.export.export import ExportReport
from amc_latency.export.quantised import export as exporting
from amc_latency.export.quantised.calibration import calibrate
from amc_latency.export.quantised.export import export_quantised, source_of
from amc_latency.export.quantised.recipe import Quantised
from amc_latency.measuring.accuracy import outcome_of_file, pixels_of
from amc_latency.models.load import Network, NetworkOptions, load_network
from amc_latency.pixels import IMAGENET
from amc_latency.training.outcome import Outcome, outcome

IMAGES = 400


@dataclass(frozen=True)
class Trained:
    """The bundled network, some images to calibrate by, and some to judge by."""

    network: Network
    calibration: Tensor
    test: InMemory
    pytorch: Outcome

    def export(self, path: Path, **options: Any) -> ExportReport:
        options = {"precision": "int8", "calibration": self.calibration, **options}
        return export_quantised(self.network.model, self.network.spec.input, path, **options)


@pytest.fixture(scope="module")
def trained() -> Trained:
    network = load_network(NetworkOptions())
    data = data_for(network, "bundled")
    test = data.test.take(IMAGES)
    assert isinstance(test, InMemory)
    size = network.spec.input[1:]
    return Trained(network, data.train.take(100).inputs(size), test, outcome(network.model, test, size))


@pytest.fixture(scope="module")
def int8(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "int8.tflite"
    trained.export(path)
    return path


def test_an_int8_file_is_as_accurate_as_the_network_and_a_third_as_large(trained: Trained, tmp_path: Path) -> None:
    path = tmp_path / "a.tflite"
    report = trained.export(path)
    assert report.precision == ("int8",) * len(trained.network.graph.architecture.layers)
    assert report.note is None
    assert report.bytes == path.stat().st_size
    assert report.bytes < 3.28e6 / 3
    assert report.ops == tflite_ops(path.read_bytes())
    assert {name: report.ops[name] for name in ("CONV_2D", "DEPTHWISE_CONV_2D", "QUANTIZE", "DEQUANTIZE")} == {
        "CONV_2D": 14,
        "DEPTHWISE_CONV_2D": 13,
        "QUANTIZE": 1,
        "DEQUANTIZE": 1,
    }
    assert report.same_class is not None
    assert report.same_class[0] >= 97
    assert report.same_class[1] == 100
    found = outcome_of_file(path, trained.test)
    # 93.60 and 93.85 % of the first 2,000.
    assert trained.pytorch.accuracy_pct > 92
    assert abs(found.accuracy_pct - trained.pytorch.accuracy_pct) <= 1.0
    assert (found.said == trained.pytorch.said).float().mean() > 0.98


def test_integers_at_the_edges_say_the_same_classes(trained: Trained, int8: Path, tmp_path: Path) -> None:
    wanted = outcome_of_file(int8, trained.test)
    for io in ("int8", "uint8"):
        path = tmp_path / f"{io}.tflite"
        report = trained.export(path, io=io)
        assert report.takes.startswith(f"{io} [1, 64, 64, 1], each ")
        assert report.note is None
        found = outcome_of_file(path, trained.test)
        assert (found.said == wanted.said).all()
        assert "DEQUANTIZE" not in report.ops
        assert report.ops.get("QUANTIZE", 0) == {"int8": 0, "uint8": 2}[io]


def test_a_cameras_bytes_go_in_as_they_are(trained: Trained, tmp_path: Path) -> None:
    path = tmp_path / "camera.tflite"
    pixels = trained.network.pixels
    assert pixels is not None
    assert trained.export(path, io="uint8", pixels=pixels).note is None
    # At the network's own size, so that they are bytes.
    bytes_in = torch.nn.functional.interpolate(trained.test.images.float(), (64, 64), mode="bilinear").round()
    with TfliteRunner(path.read_bytes()) as runner:
        (logits,) = runner(bytes_in.numpy().transpose(0, 2, 3, 1).astype(np.uint8))
        read = pixels_of(runner.input, 1)
    with torch.inference_mode():
        mean, std = pixels.mean[0], pixels.std[0]
        expected = trained.network.model((bytes_in / 255 - mean) / std).argmax(1)
    assert (logits.argmax(1) == expected.numpy()).mean() > 0.97
    # 255 times the mean, 72.9, is step 73.
    assert read is not None
    np.testing.assert_allclose((*read.mean, *read.std), (73 / 255, std), rtol=1e-6)


def test_a_policy_is_what_the_report_says(trained: Trained, tmp_path: Path) -> None:
    shapes = trained.network.graph.architecture.shapes()
    policy = tuple("float32" if shape.kind == "depthwise" else "int8" for shape in shapes)
    calibration = calibrate(source_of(trained.network.model, trained.network.spec.input).file, trained.calibration)
    report = trained.export(tmp_path / "a.tflite", precision=policy, calibration=calibration)
    assert report.precision == policy
    # In and out of each of 13 depthwise layers, before the first and after the last of all.
    assert (report.ops["QUANTIZE"], report.ops["DEQUANTIZE"]) == (14, 14)
    again = trained.export(tmp_path / "b.tflite", precision=policy)
    assert (tmp_path / "a.tflite").read_bytes() == (tmp_path / "b.tflite").read_bytes()
    assert again.same_class is not None
    with pytest.raises(OptionError, match="is of another network, or of one that takes pixels otherwise"):
        trained.export(tmp_path / "c.tflite", calibration=calibration, pixels=trained.network.pixels)
    assert not (tmp_path / "c.tflite").exists()


class Colours(nn.Module):
    """A padded convolution of colours first."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8 * 64, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.stem(x)).flatten(1))


def test_unlike_channels_are_normalised_by_the_first_convolution(tmp_path: Path) -> None:
    model = Colours().eval()
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (60, 16, 16, 3)).astype(np.uint8)
    mean, std = np.float32(IMAGENET.mean), np.float32(IMAGENET.std)
    images = torch.from_numpy(((pixels.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2))
    path = tmp_path / "a.tflite"
    report = export_quantised(model, (3, 16, 16), path, "int8", images, io="uint8", pixels=IMAGENET)
    assert report.takes == "uint8 [1, 16, 16, 3], each 1 x (q +0)"
    assert report.note is None
    # The mean is taken off before the padding, which stands for it.
    assert report.ops["ADD"] == 1
    with TfliteRunner(path.read_bytes()) as runner:
        (found,) = runner(pixels)
        found = dequantised(found, runner.outputs[0])
    with torch.inference_mode():
        expected = model(images).numpy()
    assert np.abs(found - expected).max() < 0.06 * np.ptp(expected)


def test_what_cannot_take_pixels_says_what_to_do(tmp_path: Path) -> None:
    model = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(3 * 16, 4))
    images = torch.rand(30, 3, 8, 8)
    with pytest.raises(ExportError, match=r"not by avg_pool; without `pixels` the app normalises them itself"):
        export_quantised(model, (3, 8, 8), tmp_path / "a.tflite", "int8", images, io="uint8", pixels=IMAGENET)
    assert list(tmp_path.iterdir()) == []


def test_layers_that_stay_float32_and_values_that_stay_zero_are_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.PReLU(8), nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1))
    with torch.no_grad():
        model[2].bias.fill_(-100)
    images = torch.randn(19, 3, 8, 8)
    report = export_quantised(model, (3, 8, 8), tmp_path / "a.tflite", "int8", images)
    assert report.precision == ("int8", "float32", "int8", "int8")
    assert report.note is not None
    few, more, left, still = report.note.split("; ")
    assert few == "19 different calibration images: ranges of fewer than 20 may cut off what others have"
    assert more == "100 are usual"
    assert left.startswith(
        "float32 in place of int8: 1 (activation 8x6x6>8 k1 s1 p0 prelu float32): PRELU: there is no"
    )
    assert still.endswith("within 0..1: the outputs of 2")


def test_a_file_that_is_noise_is_said_to_be(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = trained.calibration[:8]
    # Ranges of images a hundred times as dark.
    noisy = trained.export(tmp_path / "a.tflite", calibration=trained.calibration / 100, images=shown)
    assert noisy.note is not None
    assert "the file's outputs hardly follow PyTorch's (signal to noise" in noisy.note
    # What can't be run is not kept.
    monkeypatch.setattr(exporting, "quantise", lambda *of: Quantised(b"0000TFL3", ("int8",) * 29))
    before = (tmp_path / "a.tflite").read_bytes()
    with pytest.raises(ExportError, match="the quantised file"):
        trained.export(tmp_path / "a.tflite")
    assert (tmp_path / "a.tflite").read_bytes() == before
