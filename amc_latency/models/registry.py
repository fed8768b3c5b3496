"""Which networks there are, by name. Listing them costs no torch import."""

import math
import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING

from amc_latency.android_bench.safe.limits import INPUT_VALUES, PARAMETERS
from amc_latency.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from amc_latency.data import Normalisation

SCALABLE_MODELS = ("mobilenet_v1", "mobilenet_v2", "resnet20", "resnet56", "plain20", "lenet5")
"""built at any width, for images of any number of channels"""
FIXED_MODELS = (
    *("resnet18", "resnet34", "resnet50", "vgg11_bn", "vgg16", "vgg16_bn"),
    *("mobilenet_v3_small", "mobilenet_v3_large", "mnasnet1_0", "squeezenet1_1", "densenet121", "googlenet"),
)
"""torchvision's that have a short name; `torchvision:NAME` names any of its classifiers"""
LITE0 = "efficientnet_lite0"
TORCHVISION = "torchvision:"
TIMM = "timm:"
MODULE = "module:"
"""Before the class's name of a module that a program handed over: no name can build it anew."""


@dataclass(frozen=True)
class ModelSpec:
    """What it takes to build a network anew, without its weights."""

    name: str = "mobilenet_v1"
    """one of `known_models()`, torchvision:NAME, timm:NAME or FILE.py:FUNCTION"""
    width: float = 1.0
    """channel multiplier of the uncut network"""
    input: tuple[int, int, int] = (3, 224, 224)
    """channels, height, width of one image"""
    classes: int = 1000
    """number of logits"""
    channels: tuple[int, ...] | None = None
    """channel counts of a cut network, one a coupled group; None for the uncut one"""


def names_own_file(name: str) -> bool:
    """Whether `name` is meant as FILE.py:FUNCTION."""
    return name.partition(":")[0].endswith(".py") or ".py:" in name


def known_models() -> list[str]:
    """The short names that `build_model` takes."""
    return [*SCALABLE_MODELS, *FIXED_MODELS, LITE0]


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


def torchvision_name(name: str) -> str | None:
    """What torchvision calls the network `name`; None if it is not torchvision's."""
    return name if name in FIXED_MODELS else name.removeprefix(TORCHVISION) if name.startswith(TORCHVISION) else None


def timm_name(name: str) -> str | None:
    """What timm calls the network `name`; None if it is not timm's."""
    return name.removeprefix(TIMM) if name.startswith(TIMM) else None


def default_spec(name: str) -> ModelSpec:
    """What `name` is unless the user says more of it: its own input, width and number of classes."""
    if names_own_file(name):
        from amc_latency.models.own_network import default_spec as own_spec

        return own_spec(name)
    spec = ModelSpec(name)
    if name == "lenet5":
        return replace(spec, input=(1, 28, 28), classes=10)
    if torchvision_name(name) == "inception_v3":
        return replace(spec, input=(3, 299, 299))
    if timm := timm_name(name):
        from amc_latency.models.zoo.timm_zoo import default_input

        return replace(spec, input=default_input(timm))
    return spec


def normalisation_of(name: str) -> "Normalisation | None":
    """What the published weights of the network `name` expect of pixels; None for a network without any."""
    if torchvision := torchvision_name(name):
        from amc_latency.models.zoo.torchvision_zoo import normalisation as of_torchvision

        return of_torchvision(torchvision)
    if timm := timm_name(name):
        from amc_latency.models.zoo.timm_zoo import normalisation as of_timm

        return of_timm(timm)
    if name == LITE0:
        from amc_latency.models.zoo.efficientnet_lite import normalisation

        return normalisation()
    return None


def build_model(spec: ModelSpec, most_weights: int = PARAMETERS) -> "nn.Module":
    """Build the network of `spec` with random weights, in eval mode and normal form (see normal_form.py).

    Raises UserError as `build_original`, and for counts that the network doesn't have.
    """
    if spec.name == "mobilenet_v1":
        return build_original(spec, most_weights)
    from amc_latency.graph.normal_form import normal_form
    from amc_latency.models.zoo.wrappers import folded

    model = normal_form(folded(build_original(spec, most_weights)), spec.input)
    return model if spec.channels is None else with_counts(model, spec, spec.channels)


def build_original(spec: ModelSpec, most_weights: int = PARAMETERS) -> "nn.Module":
    """Build the network of `spec` as its authors wrote it, with random weights, in eval mode; uncut, but MobileNetV1.

    Raises UserError for an unknown name, for a width or input that the network doesn't have, and for one of more
    weights than `most_weights` or than memory holds, before it is made.
    """
    if not 1 <= spec.classes <= 1_000_000:
        raise UserError(f"classes is {spec.classes}; a classifier has 1 to 1,000,000")
    if min(spec.input) < 1:
        raise UserError(f"input is {'x'.join(map(str, spec.input))}; its sizes are at least 1")
    if math.prod(spec.input) > INPUT_VALUES:
        raise UserError(f"input is {'x'.join(map(str, spec.input))}; an image has at most {INPUT_VALUES:,} values")
    if not 0 < spec.width <= 16:
        raise UserError(f"width {spec.width} is not in 0..16; give a multiplier such as 0.5 or 1.0")
    if not names_own_file(spec.name):
        from amc_latency.models.size import check_size

        check_size(spec.name, lambda: _original(spec), most_weights)
    return _original(spec).eval()


def _original(spec: ModelSpec) -> "nn.Module":
    if names_own_file(spec.name):
        from amc_latency.models.own_network import build as build_own

        return build_own(spec)
    if spec.name in SCALABLE_MODELS:
        return _scalable(spec)
    torchvision, timm = torchvision_name(spec.name), timm_name(spec.name)
    if spec.name.startswith(MODULE):
        raise UserError(
            f"{spec.name.removeprefix(MODULE)} is a module of a program: there, give this file to "
            "amc_latency.network(module, example_input, checkpoint=...)"
        )
    if torchvision is None and timm is None and spec.name != LITE0:
        raise UserError(_unknown(spec.name))
    home = "torchvision" if torchvision else "timm" if timm else "efficientnet-lite-pytorch"
    if spec.width != 1.0 or (spec.input[0] != 3 and timm is None):
        raise UserError(
            f"{spec.name} comes from {home}: only width 1.0 and 3 input channels; "
            f"for another width or input use one of {', '.join(SCALABLE_MODELS)}"
        )
    if torchvision is not None:
        from amc_latency.models.zoo.torchvision_zoo import build as build_torchvision

        return build_torchvision(torchvision, spec.classes)
    if timm is not None:
        from amc_latency.models.zoo.timm_zoo import build as build_timm

        return build_timm(timm, spec.classes, spec.input[0])
    from amc_latency.models.zoo.efficientnet_lite import build as build_lite

    return build_lite(spec.classes)


def _scalable(spec: ModelSpec) -> "nn.Module":
    if spec.name == "mobilenet_v1":
        from amc_latency.models.zoo.mobilenet_v1 import mobilenet_v1

        return mobilenet_v1(spec.width, spec.classes, spec.input[0], spec.channels)
    if spec.name == "mobilenet_v2":
        from amc_latency.models.zoo.mobilenet_v2 import mobilenet_v2

        return mobilenet_v2(spec.width, spec.classes, spec.input[0])
    if spec.name == "lenet5":
        from amc_latency.models.zoo.lenet import lenet5

        return lenet5(spec.width, spec.classes, spec.input)
    from amc_latency.models.zoo.resnet_cifar import resnet_cifar

    return resnet_cifar(spec.name, spec.width, spec.classes, spec.input[0])


def _unknown(name: str) -> str:
    from amc_latency.models.zoo.torchvision_zoo import classifiers

    shown = {**{other: TORCHVISION + other for other in classifiers()}, **{known: known for known in known_models()}}
    return (
        f"there is no model '{name}'; did you mean '{shown[nearest(name, list(shown))]}'? "
        f"Known are {', '.join(known_models())}, torchvision:NAME, timm:NAME, FILE.py:FUNCTION, bundled, "
        "and any checkpoint (.safetensors)"
    )


def with_counts(model: "nn.Module", spec: ModelSpec, channels: tuple[int, ...]) -> "nn.Module":
    """A copy of `model`, in normal form, with the first `channels[g]` channels of each coupled group.

    Shapes to load a cut network into. Raises UserError for counts that it can't have.
    """
    import torch

    from amc_latency.graph.trace import trace
    from amc_latency.prune.cut import cut

    graph = trace(model, spec.input)
    full = graph.architecture.group_channels
    if len(channels) != len(full) or any(count > whole for count, whole in zip(channels, full, strict=True)):
        raise UserError(f"{spec.name} has the channels {full} to cut, a checkpoint with {channels[:20]} is of another")
    try:
        # Which channels stay is told by values, also where the network has none.
        with torch.device("cpu"):
            return cut(model, graph, [torch.arange(count) for count in channels])
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{spec.name} can't have the channel counts {channels}: {error}") from error
