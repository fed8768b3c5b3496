"""From what a user names, a model or a checkpoint, to a network with its coupled groups."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from amc_latency.arguments.settings import check_settings, setting
from amc_latency.errors import OptionError, UserError
from amc_latency.graph.outputs import tensors_of
from amc_latency.lut.shapes.activations import ACTIVATIONS
from amc_latency.models.files.checkpoint import NORMALISATION_KEY, bundled_checkpoint, is_of_own_file, load_checkpoint
from amc_latency.models.files.file_kinds import check_network_name
from amc_latency.models.files.weights import SUFFIXES, put_weights, read_weights
from amc_latency.models.registry import RANDOM, build_original, source_of
from amc_latency.models.spec import ModelSpec, names_own_file, parse_input
from amc_latency.pixels import Normalisation, parse_normalisation

if TYPE_CHECKING:
    import torch
    from torch import nn

    from amc_latency.graph.trace import NetworkGraph
    from amc_latency.models.known_networks import KnownGraph
BUNDLED = "bundled"
BUNDLED_PIXELS = "fashion_mnist"
"""The bundled checkpoint is older than the figures that others remember."""
OWN = "own"
"""Weights that the function of an own file loads itself."""
_SAME = 1e-3
"""Share of its outputs' range that a network may be off by in the form in which it is cut."""


@dataclass(frozen=True)
class NetworkOptions:
    """Which network. What is None follows from the model: a checkpoint knows its own input and classes."""

    model: str = setting(
        BUNDLED,
        "bundled, a checkpoint (.safetensors), a name such as mobilenet_v1, torchvision:NAME, timm:NAME, or "
        "FILE.py:FUNCTION",
        "Network",
    )
    width: float | None = setting(None, "channel multiplier of a named model, 1.0 unless set", "Network")
    input: str | None = setting(None, "CxHxW of a named model, its own unless set, mostly 3x224x224", "Network")
    classes: int | None = setting(None, "classes of a named model, its own unless set, mostly 1000", "Network")
    weights: str | None = setting(
        None,
        "of a named model: a file (.safetensors, .pt, .pth), torchvision's name such as DEFAULT, pretrained (its "
        "best, or timm's), own (what FILE.py:FUNCTION loads itself), or random: that unless set, but for "
        "efficientnet_lite0, whose own come with it",
        "Network",
    )
    normalisation: str | None = setting(
        None,
        "what the weights expect of pixels: MEAN,.../STD,... of pixels scaled to 0..1, or imagenet, half, lite, "
        "cifar10, cifar100, fashion_mnist, none (0..1), raw (0..255); as published, or as a checkpoint remembers, or "
        "else the data's own",
        "Network",
    )

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class Network:
    """A network in eval mode with its coupled groups."""

    model: nn.Module
    spec: ModelSpec
    graph: NetworkGraph
    trained: bool
    """False for random weights"""
    pixels: Normalisation | None = None
    """what the weights expect of pixels, if that is known"""
    pixels_because: str = "as the network's weights expect"
    """how that is known"""
    weights: str = "random"
    """where they come from"""
    build: Callable[[ModelSpec], nn.Module] | None = None
    """makes the network of a spec anew, uncut or cut, whatever its weights; None where its name says how"""


def load_network(options: NetworkOptions) -> Network:
    """Build or load what `options` name. Raises `UserError` saying what exists, or what doesn't fit."""
    from amc_latency.graph.trace import trace

    # What the user's own code prints is no result.
    with redirect_stdout(sys.stderr):
        model, spec, trained, pixels = _load(options)
        model = checked_form(model, spec)
        graph, because = trace(model, spec.input), _pixels_because(options)
        return Network(model, spec, graph, trained, pixels, because, weights_text(options, spec))


def checked_form(model: nn.Module, spec: ModelSpec) -> nn.Module:
    """The normal form of a network, which was seen to compute the same; `UserError` if it doesn't, or has none."""
    from amc_latency.graph.rewriting.normal_form import normal_form

    expected = _outputs(model.eval(), spec)
    model = normal_form(model, spec.input)
    _check_same(expected, model, spec)
    return model


def _outputs(model: nn.Module, spec: ModelSpec) -> list[list[torch.Tensor]]:
    """The tensors that a network returns for one noisy image, asked twice; nothing where it can't be asked."""
    import torch

    image = torch.randn(1, *spec.input, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            outputs = [model(image.clone()) for _ in range(2)]
    except Exception:  # whatever a network's own code raises: who traces it says what is wrong
        return []
    found = [tensors_of(output) for output in outputs]
    return [[tensor.clone() for tensor in tensors] for tensors in found if tensors]


def _check_same(expected: list[list[torch.Tensor]], traced: nn.Module, spec: ModelSpec) -> None:
    """Raise UserError for a network that says something else each time, or in the form in which it can be cut."""
    from amc_latency.closeness import close

    for other in [*expected[1:], *_outputs(traced, spec)[:1]] if expected else []:
        alike = len(other) == len(expected[0]) and all(
            close(one, two, _SAME) or not bool(two.isfinite().all())
            for one, two in zip(other, expected[0], strict=True)
        )
        if not alike:
            why = "says something else of the same image each time, in eval mode: is dropout always on?"
            if other is not expected[1]:
                why = (
                    "computes something else when traced: does it change a tensor in place that it has a second name "
                    "for, or a view of? Write x = x + 1 in place of x += 1"
                )
            raise UserError(f"{spec.name} {why}")


def load_model(options: NetworkOptions) -> tuple[nn.Module, ModelSpec, bool, Normalisation | None]:
    """Model, spec, trained and pixels of what `load_network` would trace, as it is: some can only be converted.

    Raises `UserError` as `load_network` does.
    """
    from amc_latency.graph.rewriting.normal_form import check_accepts

    with redirect_stdout(sys.stderr):
        model, spec, trained, pixels = _load(options)
        check_accepts(model.eval(), spec.input)
    return model, spec, trained, pixels


def weights_text(options: NetworkOptions, spec: ModelSpec) -> str:
    """Where the weights come from, in a few words."""
    if is_checkpoint(options.model):
        return "of the checkpoint"
    name = options.weights or source_of(spec.name).weights
    return "the function's own" if name == OWN else name


def _load(options: NetworkOptions) -> tuple[nn.Module, ModelSpec, bool, Normalisation | None]:
    from amc_latency.models.own_network import classes_made
    from amc_latency.models.zoo.wrappers import folded

    check_network_name(options.model)
    if is_checkpoint(options.model):
        path = bundled_checkpoint() if options.model == BUNDLED else Path(options.model)
        if options.weights is not None:
            raise UserError(f"{options.model} has weights of its own: leave `weights` out, or name a model")
        model, spec, extra = load_checkpoint(path)
        _check_agrees(options, spec, path)
        saved = extra.get(NORMALISATION_KEY, BUNDLED_PIXELS if options.model == BUNDLED else None)
        return model, spec, True, _pixels(options, spec, saved, published=True)
    if names_own_file(options.model) and options.weights and is_of_own_file(Path(options.weights)):
        model, spec, extra = load_checkpoint(Path(options.weights), options.model)
        _check_agrees(options, spec, Path(options.weights))
        return model, spec, True, _pixels(options, spec, extra.get(NORMALISATION_KEY), published=False)
    spec = _described(options, source_of(options.model).described(options.model))
    model = seeded(spec)
    origin = _put_weights(options, spec, model)
    model = folded(model)
    if names_own_file(spec.name):
        classes = classes_made(model, spec)
        if classes is not None:
            if classes != spec.classes and options.classes is not None:
                raise UserError(f"{spec.name} makes {classes} logits, not `classes={options.classes}`")
            spec = replace(spec, classes=classes)
    pixels = _pixels(options, spec, None, published=origin == "published")
    return model, spec, origin != RANDOM, pixels


def _pixels(options: NetworkOptions, spec: ModelSpec, saved: str | None, published: bool) -> Normalisation | None:
    """What the weights expect of pixels: as the user says, as was `saved` beside them, or as `published` ones do.

    Raises UserError for another number of channels than the network has.
    """
    channels = spec.input[0]
    if (text := options.normalisation or saved) is None:
        found = source_of(spec.name).normalisation(spec.name) if published else None
        return found if found is not None and len(found.mean) == channels else None
    given = parse_normalisation(text, channels)
    if len(given.mean) != channels:
        raise UserError(
            f"normalisation {text} is for {len(given.mean)} channels, and {spec.name} takes "
            f"{'x'.join(map(str, spec.input))}: give one figure a channel"
        )
    return given


def _pixels_because(options: NetworkOptions) -> str:
    """How `_pixels` came to what it says."""
    if options.normalisation is not None:
        return "as `normalisation` says"
    remembered = is_checkpoint(options.model) or is_of_own_file(Path(options.weights or ""))
    return "as the checkpoint remembers" if remembered else "as published with the network's weights"


def is_checkpoint(model: str) -> bool:
    """Whether `model` is meant as a network on disk, the bundled one included."""
    return model == BUNDLED or model.endswith(".safetensors") or (Path(model).is_file() and not names_own_file(model))


def check_logits(network: Network) -> None:
    """Raise `UserError` for a network whose output is no logits: what is scored is those."""
    if len(network.graph.output_sizes) != 1 or len(network.graph.output_sizes[0]) != 1:
        sizes = ", ".join("x".join(map(str, size)) for size in network.graph.output_sizes)
        raise UserError(
            f"{network.spec.name} returns {sizes} for an image, and classes are told by logits [N, classes]: give the "
            "search a task of your own (`amc_latency.Task`)"
        )
    layers = network.graph.architecture.layers
    if layers and layers[-1].shape.kind == "softmax":
        raise UserError(
            f"{network.spec.name} ends in softmax, and scoring and training need the logits before it: leave it out, "
            "and put it behind the result"
        )
    last = ACTIVATIONS.get(layers[-1].shape.activation) if layers else None
    if last is not None and last.non_negative and network.spec.classes == 1:
        raise UserError(
            f"{network.spec.name} has one output that is never below 0, and scoring and training need a logit, above 0 "
            "for class 1: leave its last activation out, and put it behind the result"
        )


def cut_to(network: Network, counts: tuple[int, ...]) -> Network:
    """The network with each coupled group cut to `counts`, keeping the channels that AMC's L1 rank puts first.

    Raises `UserError` for a wrong number of counts, or one that its group doesn't have.
    """
    from amc_latency.graph.trace import trace
    from amc_latency.prune.cut import cut
    from amc_latency.prune.rank import consumer_l1, keep_indices

    check_counts(network.graph, counts)
    importance = consumer_l1(network.model, network.graph)
    keep = [keep_indices(scores, count) for scores, count in zip(importance, counts, strict=True)]
    model = cut(network.model, network.graph, keep)
    spec = replace(network.spec, channels=counts)
    return replace(network, model=model, spec=spec, graph=trace(model, spec.input))


def check_counts(graph: NetworkGraph | KnownGraph, counts: tuple[int, ...]) -> None:
    """Raise `UserError` unless `counts` has one possible count for each coupled group."""
    full = graph.architecture.group_channels
    if len(counts) != len(full):
        raise UserError(
            f"{len(counts)} channel counts were given, the network has {len(full)} coupled groups: give one each, "
            f"in network order; at full width they are {','.join(map(str, full))}"
        )
    for number, (count, group) in enumerate(zip(counts, graph.groups, strict=True), 1):
        if not group.least <= count <= group.channels:
            why = f"; {group.depthwise[0]} needs {group.least}" if 1 <= count < group.least else ""
            raise UserError(f"coupled group {number} has {group.channels} channels: it can't keep {count}{why}")


def parse_counts(text: str) -> tuple[int, ...]:
    """Read "24,48,96" as channel counts; `UserError` for anything else."""
    try:
        return tuple(int(part) for part in text.replace(" ", "").split(","))
    except ValueError:
        raise UserError(f"channels '{text}' is not a list of counts; write it like 24,48,96") from None


def seeded(spec: ModelSpec, seed: int = 0) -> nn.Module:
    """The network of `spec` with the random weights of a seed."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_original(spec)


def _put_weights(options: NetworkOptions, spec: ModelSpec, model: nn.Module) -> str:
    """Load into `model` what the options name; where that is from: random, own, file or published.

    Raises UserError for weights that are not there or don't fit, JobError if they can't be downloaded.
    """
    source = source_of(spec.name)
    name = options.weights or source.weights
    if name == RANDOM or (name == OWN and source.own_code):
        return name
    if Path(name).suffix in SUFFIXES or Path(name).is_file():
        _put_file(Path(name), model)
        return "file"
    tensors = source.published(spec.name, name)
    if tensors is None:
        raise OptionError(
            "weights",
            f"{name}: no such file ({', '.join(SUFFIXES)}), and {spec.name} has no weights of that name; "
            "networks with published weights are torchvision:NAME and timm:NAME",
        )
    put_weights(name, model, tensors)
    return "published"


def _put_file(path: Path, model: nn.Module) -> None:
    """The file's weights: as the network keeps them, or, of one that computes some from others, what they come to."""
    from amc_latency.models.zoo.wrappers import folded, is_folded

    tensors = read_weights(path)
    try:
        put_weights(path, model, tensors)
    except UserError as error:
        if is_folded(model):
            raise
        try:
            put_weights(path, folded(model), tensors)
        except UserError:
            raise error from None


def _described(options: NetworkOptions, spec: ModelSpec) -> ModelSpec:
    """`spec` with whatever the options say of it."""
    if options.width is not None:
        spec = replace(spec, width=options.width)
    if options.input is not None:
        spec = replace(spec, input=parse_input(options.input))
    if options.classes is not None:
        spec = replace(spec, classes=options.classes)
    return spec


def _check_agrees(options: NetworkOptions, spec: ModelSpec, path: Path) -> None:
    wanted = _described(options, spec)
    for field in ("width", "classes", "input"):
        if getattr(wanted, field) != getattr(spec, field):
            raise UserError(
                f"{path.name} was trained with {field} {getattr(spec, field)}, not {getattr(wanted, field)}: leave the "
                "option out, or name a model instead of a checkpoint"
            )
