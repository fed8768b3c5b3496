"""Which networks there are: a record for each source of some. Listing them costs no torch import."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import TYPE_CHECKING

from amc_latency.android_bench.safe.limits import INPUT_VALUES, PARAMETERS
from amc_latency.arguments.names import nearest
from amc_latency.errors import UserError
from amc_latency.models.spec import MODULE, ModelSpec, names_own_file
from amc_latency.pixels import Crop

if TYPE_CHECKING:
    from torch import Tensor, nn

    from amc_latency.pixels import Normalisation

RANDOM = "random"
LITE0 = "efficientnet_lite0"
_ZOO = "amc_latency.models.zoo"


@dataclass(frozen=True)
class Source:
    """Where networks of some names come from. Functions are named as `module:function`, and imported when called."""

    home: str
    """what messages call it"""
    builder: str
    """of a `ModelSpec` and the source's own name of it: the network as its authors wrote it, with random weights"""
    names: tuple[str, ...] = ()
    """short names, which need no prefix"""
    prefix: str | None = None
    """before every other name"""
    scales: bool = False
    """whether there is a network of any width"""
    any_channels: bool = False
    """whether there is a network for images of any number of channels"""
    takes_counts: bool = False
    """whether the builder makes cut networks, so that nothing has to be cut to load one"""
    own_code: bool = False
    """whether it is the user's code, which may load weights itself, and may make anything"""
    describer: str | None = None
    """of a `ModelSpec` and the own name: the spec with what the network is unless the user says otherwise"""
    publisher: str | None = None
    """of the own name and the name of weights: these, by parameter, or None for a name that means nothing"""
    normaliser: str | None = None
    """of the own name: the `Normalisation` that the published weights expect, or None"""
    cropper: str | None = None
    """of the own name and the name of weights: the `Crop` that published weights are evaluated on, or None"""
    weights: str = RANDOM
    """the name of the weights that are taken unless set"""

    def has(self, name: str) -> bool:
        """Whether the network `name` is this source's."""
        if self.own_code:
            return names_own_file(name)
        return name in self.names or (self.prefix is not None and name.startswith(self.prefix))

    def own_name(self, name: str) -> str:
        """What the source itself calls the network `name`."""
        return name if self.prefix is None else name.removeprefix(self.prefix)

    def described(self, name: str) -> ModelSpec:
        """What `name` is unless the user says more of it: its own input, width and number of classes."""
        spec = ModelSpec(name)
        return spec if self.describer is None else resolve_name(self.describer)(spec, self.own_name(name))

    def build(self, spec: ModelSpec) -> nn.Module:
        """The network of `spec`, uncut unless `takes_counts`. Raises UserError for what there isn't."""
        if (spec.width != 1.0 and not self.scales) or (spec.input[0] != 3 and not self.any_channels):
            raise UserError(
                f"{spec.name} comes from {self.home}: only width 1.0 and 3 input channels; "
                f"for another width or input use one of {', '.join(SCALABLE_MODELS)}"
            )
        return resolve_name(self.builder)(spec, self.own_name(spec.name))

    def published(self, name: str, weights: str) -> dict[str, Tensor] | None:
        """The weights called `weights` of the network `name`; None if this source publishes none of that name.

        Raises UserError saying what it publishes, JobError if they can't be downloaded.
        """
        return None if self.publisher is None else resolve_name(self.publisher)(self.own_name(name), weights)

    def normalisation(self, name: str) -> Normalisation | None:
        """What the published weights of the network `name` expect of pixels; None for a network without any."""
        return None if self.normaliser is None else resolve_name(self.normaliser)(self.own_name(name))

    def crop(self, name: str, weights: str) -> Crop:
        """What of a photo the network `name` is evaluated on, of the weights of that name or of others."""
        found = None if self.cropper is None else resolve_name(self.cropper)(self.own_name(name), weights)
        return found or Crop()


SOURCES = {
    "mobilenet_v1": Source(
        "amc-latency",
        f"{_ZOO}.mobilenet_v1:build",
        names=("mobilenet_v1",),
        scales=True,
        any_channels=True,
        takes_counts=True,
    ),
    "mobilenet_v2": Source(
        "amc-latency", f"{_ZOO}.mobilenet_v2:build", names=("mobilenet_v2",), scales=True, any_channels=True
    ),
    "resnet_cifar": Source(
        "amc-latency",
        f"{_ZOO}.resnet_cifar:build",
        names=("resnet20", "resnet56", "plain20"),
        scales=True,
        any_channels=True,
    ),
    "lenet": Source(
        "amc-latency",
        f"{_ZOO}.lenet:build",
        names=("lenet5",),
        scales=True,
        any_channels=True,
        describer=f"{_ZOO}.lenet:described",
    ),
    "torchvision": Source(
        "torchvision",
        f"{_ZOO}.torchvision_zoo:build",
        names=(
            *("resnet18", "resnet34", "resnet50", "vgg11_bn", "vgg16", "vgg16_bn"),
            *("mobilenet_v3_small", "mobilenet_v3_large", "mnasnet1_0", "squeezenet1_1", "densenet121", "googlenet"),
        ),
        prefix="torchvision:",
        describer=f"{_ZOO}.torchvision_zoo:described",
        publisher=f"{_ZOO}.torchvision_zoo:pretrained",
        normaliser=f"{_ZOO}.torchvision_zoo:normalisation",
        cropper=f"{_ZOO}.torchvision_zoo:crop",
    ),
    "timm": Source(
        "timm",
        f"{_ZOO}.timm_zoo:build",
        prefix="timm:",
        any_channels=True,
        describer=f"{_ZOO}.timm_zoo:described",
        publisher=f"{_ZOO}.timm_zoo:pretrained",
        normaliser=f"{_ZOO}.timm_zoo:normalisation",
        cropper=f"{_ZOO}.timm_zoo:crop",
    ),
    "lite0": Source(
        "efficientnet-lite-pytorch",
        f"{_ZOO}.efficientnet_lite:build",
        names=(LITE0,),
        publisher=f"{_ZOO}.efficientnet_lite:pretrained",
        normaliser=f"{_ZOO}.efficientnet_lite:normalisation",
        cropper=f"{_ZOO}.efficientnet_lite:crop",
        weights="pretrained",
    ),
    "own file": Source(
        "your own file",
        "amc_latency.models.own_network:build",
        scales=True,
        any_channels=True,
        own_code=True,
        describer="amc_latency.models.own_network:described",
    ),
    "module": Source(
        "a program", "amc_latency.models.own_network:refuse", prefix=MODULE, scales=True, any_channels=True
    ),
}
"""In the order in which they are asked whose a name is; messages list their short names in this order."""
SCALABLE_MODELS = tuple(name for source in SOURCES.values() if source.scales for name in source.names)
"""Short names of what is built at any width, for images of any number of channels."""


def known_models() -> list[str]:
    """The short names that `build_model` takes."""
    return [name for source in SOURCES.values() for name in source.names]


def source_of(name: str) -> Source:
    """Where the network `name` comes from. Raises UserError naming the nearest for a name that none has."""
    for source in SOURCES.values():
        if source.has(name):
            return source
    raise UserError(_unknown(name))


def build_model(spec: ModelSpec, most_weights: int = PARAMETERS) -> nn.Module:
    """Build the network of `spec` with random weights, in eval mode and normal form (see normal_form.py).

    Raises UserError as `build_original`, and for counts that the network doesn't have.
    """
    if source_of(spec.name).takes_counts:
        return build_original(spec, most_weights)
    from amc_latency.graph.rewriting.normal_form import normal_form
    from amc_latency.models.zoo.wrappers import folded

    model = normal_form(folded(build_original(spec, most_weights)), spec.input)
    return model if spec.channels is None else with_counts(model, spec, spec.channels)


def build_original(spec: ModelSpec, most_weights: int = PARAMETERS) -> nn.Module:
    """Build the network of `spec` as its authors wrote it, with random weights, in eval mode.

    Uncut but where its source `takes_counts`. Raises UserError for an unknown name, for a width or input that the
    network doesn't have, and for one of more weights than `most_weights` or than memory holds, before it is made.
    """
    if not 1 <= spec.classes <= 1_000_000:
        raise UserError(f"classes is {spec.classes}; a classifier has 1 to 1,000,000")
    if min(spec.input) < 1:
        raise UserError(f"input is {'x'.join(map(str, spec.input))}; its sizes are at least 1")
    if math.prod(spec.input) > INPUT_VALUES:
        raise UserError(f"input is {'x'.join(map(str, spec.input))}; an image has at most {INPUT_VALUES:,} values")
    if not 0 < spec.width <= 16:
        raise UserError(f"width {spec.width} is not in 0..16; give a multiplier such as 0.5 or 1.0")
    source = source_of(spec.name)
    if not source.own_code:
        from amc_latency.models.size import check_size

        check_size(spec.name, lambda: source.build(spec), most_weights)
    return source.build(spec).eval()


def _unknown(name: str) -> str:
    from amc_latency.models.zoo.torchvision_zoo import classifiers

    prefixes = [f"{source.prefix}NAME" for source in SOURCES.values() if source.prefix not in (None, MODULE)]
    shown = {**{other: f"torchvision:{other}" for other in classifiers()}, **{known: known for known in known_models()}}
    near = nearest(name, shown)
    hint = "" if near is None else f"; did you mean '{shown[near]}'?"
    return (
        f"there is no model '{name}'{hint or '.'} "
        f"Known are {', '.join([*known_models(), *prefixes])}, FILE.py:FUNCTION, bundled, and "
        "any checkpoint (.safetensors)"
    )


def with_counts(model: nn.Module, spec: ModelSpec, channels: tuple[int, ...]) -> nn.Module:
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
