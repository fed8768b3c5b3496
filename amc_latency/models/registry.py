"""Which networks there are, by name. Listing them costs no torch import."""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from amc_latency.errors import UserError

if TYPE_CHECKING:
    from torch import nn

SCALABLE_MODELS = ("mobilenet_v1", "mobilenet_v2", "resnet20", "resnet56", "plain20")
"""built at any width, for images of any number of channels"""
# torchvision's plain classifiers whose every layer the table and the exporter know.
FIXED_MODELS = ("resnet18", "resnet34", "resnet50", "vgg11_bn", "vgg16_bn")


@dataclass(frozen=True)
class ModelSpec:
    """What it takes to build a network anew, without its weights."""

    name: str = "mobilenet_v1"
    """one of `known_models()`"""
    width: float = 1.0
    """channel multiplier of the uncut network"""
    input: tuple[int, int, int] = (3, 224, 224)
    """channels, height, width of one image"""
    classes: int = 1000
    """number of logits"""
    channels: tuple[int, ...] | None = None
    """channel counts of a cut network, one a coupled group; None for the uncut one"""


def known_models() -> list[str]:
    """The names that `build_model` takes."""
    return [*SCALABLE_MODELS, *FIXED_MODELS]


def nearest(name: str, names: list[str]) -> str:
    """The entry of `names` spelt most like `name`."""
    return get_close_matches(name, names, n=1, cutoff=0.0)[0]


def parse_input(text: str) -> tuple[int, int, int]:
    """Read "CxHxW", such as "3x224x224", as (channels, height, width); UserError for anything else."""
    match = re.fullmatch(r"([1-9][0-9]{0,4})[xX]([1-9][0-9]{0,4})[xX]([1-9][0-9]{0,4})", text.strip(), re.ASCII)
    if match is None:
        raise UserError(f'input "{text}" is not CHANNELSxHEIGHTxWIDTH; write it like 3x224x224')
    channels, height, width = map(int, match.groups())
    return channels, height, width


def build_model(spec: ModelSpec) -> "nn.Module":
    """Build the network of `spec` with random weights, in eval mode.

    Raises UserError for an unknown name and for a width, input or counts that the network doesn't have.
    """
    if spec.name not in known_models():
        raise UserError(
            f'no network is called "{spec.name}"; did you mean "{nearest(spec.name, known_models())}"? '
            f"Known: {', '.join(known_models())}"
        )
    if not 1 <= spec.classes <= 1_000_000:
        raise UserError(f"classes is {spec.classes}; a classifier has 1 to 1,000,000")
    if min(spec.input) < 1:
        raise UserError(f"input is {'x'.join(map(str, spec.input))}; its sizes are at least 1")
    if not 0 < spec.width <= 16:
        raise UserError(f"width {spec.width} is not in 0..16; give a multiplier such as 0.5 or 1.0")
    if spec.name == "mobilenet_v1":
        from amc_latency.models.mobilenet_v1 import mobilenet_v1

        return mobilenet_v1(spec.width, spec.classes, spec.input[0], spec.channels).eval()
    model = _uncut(spec).eval()
    return model if spec.channels is None else _with_counts(model, spec, spec.channels)


def _uncut(spec: ModelSpec) -> "nn.Module":
    if spec.name == "mobilenet_v2":
        from amc_latency.models.mobilenet_v2 import mobilenet_v2

        return mobilenet_v2(spec.width, spec.classes, spec.input[0])
    if spec.name in SCALABLE_MODELS:
        from amc_latency.models.resnet_cifar import resnet_cifar

        return resnet_cifar(spec.name, spec.width, spec.classes, spec.input[0])
    if spec.width != 1.0 or spec.input[0] != 3:
        raise UserError(
            f"{spec.name} comes from torchvision: only width 1.0 and 3 input channels; "
            f"for another width or input use one of {', '.join(SCALABLE_MODELS)}"
        )
    import torchvision

    return getattr(torchvision.models, spec.name)(weights=None, num_classes=spec.classes)


def _with_counts(model: "nn.Module", spec: ModelSpec, channels: tuple[int, ...]) -> "nn.Module":
    """`model` with the first `channels[g]` channels of each coupled group: shapes to load a cut one into."""
    import torch

    from amc_latency.graph import trace
    from amc_latency.prune.cut import cut

    try:
        keep = [torch.arange(count, device="cpu") for count in channels]
        return cut(model, trace(model, spec.input), keep)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{spec.name} can't have the channel counts {channels}: {error}") from error
