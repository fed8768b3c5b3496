"""MobileNetV1 and the registry that builds it."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from amc_latency.errors import UserError
from amc_latency.graph.trace import trace
from amc_latency.models.registry import build_model, known_models
from amc_latency.models.spec import ModelSpec, parse_input
from amc_latency.models.zoo.mobilenet_v1 import mobilenet_v1, scaled_channels

AMC_HALF_TIME = (16, 48, 88, 80, 192, 168, 336, 360, 360, 352, 352, 368, 768, 680)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def multiply_accumulates(model: nn.Module, size: int) -> int:
    """Counted by hooks: an independent way to the published figures."""
    total = 0

    def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d | nn.Linear)
        positions = output.shape[2] * output.shape[3] if isinstance(module, nn.Conv2d) else 1
        total += module.weight.numel() * positions

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.inference_mode():
        model(torch.zeros(1, 3, size, size))
    return total


def test_parameters_of_the_original() -> None:
    assert parameters(mobilenet_v1()) == 4_231_976


@pytest.mark.parametrize(
    ("channels", "millions"), [(None, 568.74), (scaled_channels(0.75), 325.40), (AMC_HALF_TIME, 273.98)]
)
def test_macs_of_the_published_channel_lists(channels: tuple[int, ...] | None, millions: float) -> None:
    model = mobilenet_v1(channels=channels).eval()
    assert multiply_accumulates(model, 224) / 1e6 == pytest.approx(millions, abs=0.005)


def test_width_scales_and_rounds_to_eight() -> None:
    assert scaled_channels(0.75) == (24, 48, 96, 96, 192, 192, *[384] * 6, 768, 768)
    assert scaled_channels(0.5) == (16, 32, 64, 64, 128, 128, *[256] * 6, 512, 512)
    assert scaled_channels(0.01) == (8,) * 14


@pytest.mark.parametrize(("size", "last"), [(32, 1), (64, 2), (224, 7)])
def test_any_resolution_shrinks_32_times(size: int, last: int) -> None:
    model = mobilenet_v1(0.25, classes=10, in_channels=1).eval()
    x = torch.zeros(2, 1, size, size)
    assert model.blocks(model.stem(x)).shape == (2, 256, last, last)
    assert model(x).shape == (2, 10)


def test_explicit_channels_are_what_is_built() -> None:
    model = mobilenet_v1(channels=AMC_HALF_TIME, classes=7)
    assert trace(model, (3, 224, 224)).architecture.group_channels == AMC_HALF_TIME
    assert model.classifier.weight.shape == (7, 680)


@pytest.mark.parametrize("channels", [(8,) * 13, (8,) * 13 + (0,), ()])
def test_wrong_channels_are_refused(channels: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="14 channel counts"):
        mobilenet_v1(channels=channels)


def test_traces_to_plain_layers_only() -> None:
    model = mobilenet_v1(0.25, classes=10).eval()
    traced = torch.fx.symbolic_trace(model)
    kinds = [node.op for node in traced.graph.nodes]
    # A stem of 3 layers, 13 blocks of 6, then pool, flatten and linear; no functions in between.
    assert kinds == ["placeholder", *["call_module"] * (3 + 13 * 6 + 3), "output"]
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(traced(x), model(x))


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "resnet18", "vgg11_bn"])
def test_known_models_build_in_eval_mode(name: str) -> None:
    with torch.device("meta"):
        model = build_model(ModelSpec(name=name, classes=10))
    assert not model.training
    assert model(torch.zeros(1, 3, 224, 224, device="meta")).shape == (1, 10)


def test_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'mobilenet_v2'") as error:
        build_model(ModelSpec(name="mobilnetv2"))
    assert all(name in str(error.value) for name in known_models())


@pytest.mark.parametrize("spec", [ModelSpec("resnet18", width=0.5), ModelSpec("resnet18", input=(1, 64, 64))])
def test_torchvision_models_come_in_one_width_and_depth(spec: ModelSpec) -> None:
    with pytest.raises(UserError, match="torchvision"):
        build_model(spec)


@pytest.mark.parametrize("channels", [(8,), (65,) * 20, (-1,) * 20])
def test_impossible_counts_are_refused(channels: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"resnet18 has the channels \(64, 64, .* is of another"):
        build_model(ModelSpec("resnet18", input=(3, 64, 64), classes=10, channels=channels))


def test_input_is_parsed() -> None:
    assert parse_input("1x64x48") == (1, 64, 48)


@pytest.mark.parametrize("text", ["", "224", "3x224", "3x0x224", "-3x2x2", "3x224x224x1", "ax2x2", "3.0x2x2"])
def test_wrong_input_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="3x224x224"):
        parse_input(text)


def test_listing_models_needs_no_torch() -> None:
    code = "import sys; from amc_latency.models.registry import known_models; known_models(); "
    code += "print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
