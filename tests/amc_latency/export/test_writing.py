"""Files of networks with each operation, against PyTorch's own forward; pixels that the file takes in by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from amc_latency.lut.tflite.run import run_tflite, tflite_ops
from torch import Tensor, nn

from amc_latency.errors import UserError
from amc_latency.export.export import converted, frozen
from amc_latency.export.writing import ExportError, write
from amc_latency.graph.trace import trace
from amc_latency.pixels import Normalisation
from tests.amc_latency.op_networks import CASES, Written, conv, ending, in_a_row

COLOURS = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def randomised(model: nn.Module) -> nn.Module:
    """Batch norms far from the identity, so that folding them wrongly shows."""
    draw = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3, generator=draw)
            module.running_var.uniform_(0.5, 2, generator=draw)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=draw)
            nn.init.normal_(module.bias, 0, 0.3, generator=draw)
    return model.eval()


def check_equal(content: bytes, given: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    got = run_tflite(content, given.numpy())
    output_range = float(expected.max() - expected.min())
    np.testing.assert_allclose(got, expected.numpy(), rtol=0, atol=tolerance * output_range)


@pytest.mark.parametrize("name", CASES)
def test_every_operation_equals_pytorchs(name: str) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    model, images = randomised(case.build()), 3 * torch.randn(4, *case.image)
    content = write(model, trace(model, case.image)).content
    assert "TRANSPOSE" not in tflite_ops(content) or "shuffle" in name
    with torch.inference_mode():
        check_equal(content, images, model(images))


def test_a_network_with_one_channel_and_another_input_size() -> None:
    model = nn.Sequential(conv(1, 1, kernel=3, padding=1), nn.Hardswish(), ending(1)).eval()
    images = torch.randn(2, 1, 4, 9)
    with torch.inference_mode():
        check_equal(write(model, trace(model, (1, 4, 9))).content, images, model(images))


def normalised(pixels: Tensor, normalisation: Normalisation) -> Tensor:
    mean, std = (torch.tensor(figures)[:, None, None] for figures in (normalisation.mean, normalisation.std))
    return (pixels / 255 - mean) / std


FOLDED = {
    "without padding": (in_a_row(conv(kernel=2, stride=2, bias=False), nn.BatchNorm2d(4), nn.ReLU()), 0),
    "with padding": (in_a_row(conv(kernel=3, stride=2, padding=1), nn.ReLU6()), 1),
    "with padding at the end": (in_a_row(nn.ZeroPad2d((0, 1, 0, 1)), conv(kernel=3, stride=2)), 1),
    "two convolutions of the image": (
        lambda: Written(
            lambda net, x: net.ending(torch.cat([net.left(x), net.right(x)], 1)),
            left=conv(3, 2),
            right=conv(3, 2, kernel=3, padding=1),
            ending=ending(4),
        ),
        1,
    ),
}


@pytest.mark.parametrize("name", FOLDED)
def test_pixels_are_normalised_by_the_first_convolution(name: str) -> None:
    build, subtractions = FOLDED[name]
    torch.manual_seed(0)
    model = randomised(build())
    pixels = torch.randint(0, 256, (4, 3, 8, 8)).float()
    graph = trace(model, (3, 8, 8))
    content, plain = write(model, graph, COLOURS).content, write(model, graph).content
    with torch.inference_mode():
        check_equal(content, pixels, model(normalised(pixels, COLOURS)), tolerance=1e-5)
    more = tflite_ops(content).get("ADD", 0) - tflite_ops(plain).get("ADD", 0)
    assert more == subtractions


@pytest.mark.parametrize(
    ("model", "channels", "message"),
    [
        (nn.Sequential(nn.BatchNorm2d(3), conv(), ending(4)), 3, "0: pixels .* not by depthwise"),
        (
            Written(lambda net, x: net.ending(x + net.stem(x)), stem=conv(3, 3), ending=ending(3)),
            3,
            "add: pixels .* not by add",
        ),
        (nn.Sequential(conv(1, 4), ending(4)), 1, "3 means were given for an image of 1 channels"),
    ],
)
def test_pixels_that_no_convolution_takes_in(model: nn.Module, channels: int, message: str) -> None:
    image = (channels, 8, 8)
    with pytest.raises(ExportError, match=message):
        converted(frozen(model), image, COLOURS)


def test_an_output_that_is_a_map() -> None:
    model = nn.Sequential(conv(), nn.Flatten())
    with pytest.raises(UserError, match="returns a flattened feature map"):
        trace(model, (3, 4, 4))
