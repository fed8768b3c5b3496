"""From what a user names, a model or a checkpoint, to a network with its coupled groups."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from amc_latency.errors import UserError
from amc_latency.models.checkpoint import bundled_checkpoint, load_checkpoint
from amc_latency.models.registry import ModelSpec, build_model, known_models, nearest, parse_input

if TYPE_CHECKING:
    from torch import nn

    from amc_latency.graph import NetworkGraph

BUNDLED = "bundled"


@dataclass(frozen=True)
class NetworkOptions:
    """Which network. What is None follows from the model: a checkpoint knows its own input and classes."""

    model: str = BUNDLED
    """`bundled`, a checkpoint's path, or one of `known_models()` with random weights"""
    width: float | None = None
    """channel multiplier, 1.0 unless told"""
    input: str | None = None
    """CxHxW, 3x224x224 unless told"""
    classes: int | None = None
    """1000 unless told"""


@dataclass(frozen=True)
class Network:
    """A network in eval mode with its coupled groups."""

    model: nn.Module
    spec: ModelSpec
    graph: NetworkGraph
    trained: bool
    """False for random weights"""


def load_network(options: NetworkOptions) -> Network:
    """Build or load what `options` name. Raises `UserError` saying what exists, or what doesn't fit."""
    from amc_latency.graph import trace

    if options.model == BUNDLED or options.model.endswith(".safetensors") or Path(options.model).is_file():
        path = bundled_checkpoint() if options.model == BUNDLED else Path(options.model)
        model, spec, _ = load_checkpoint(path)
        _check_agrees(options, spec, path)
        return Network(model, spec, trace(model, spec.input), trained=True)
    spec = _described(options, ModelSpec(name=options.model))
    if spec.name not in known_models():
        names = [BUNDLED, *known_models()]
        raise UserError(
            f"there is no model '{spec.name}'; did you mean '{nearest(spec.name, names)}'? "
            f"Known are {', '.join(names)}, and any checkpoint (.safetensors)"
        )
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(spec)
    return Network(model, spec, trace(model, spec.input), trained=False)


def settled(network: Network) -> Network:
    """An untrained network whose batch norms have seen images: without that its signal fades to nothing on the way."""
    import torch

    model = copy.deepcopy(network.model).train()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None
        if isinstance(module, torch.nn.Dropout):
            module.eval()
    with torch.no_grad():
        model(torch.randn(4, *network.spec.input, generator=torch.Generator().manual_seed(0)))
    return replace(network, model=model.eval())


def checkpoint_digest(model: str) -> str:
    """The sha256 of a checkpoint's file, `bundled` or a path: what tells trained weights apart."""
    path = bundled_checkpoint() if model == BUNDLED else Path(model)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def cut_to(network: Network, counts: tuple[int, ...]) -> Network:
    """The network with each coupled group cut to `counts`, keeping the channels that AMC's L1 rank puts first.

    Raises `UserError` for a wrong number of counts, or one that its group doesn't have.
    """
    from amc_latency.graph import trace
    from amc_latency.prune.cut import cut
    from amc_latency.prune.rank import consumer_l1, keep_indices

    check_counts(network.graph.architecture.group_channels, counts)
    importance = consumer_l1(network.model, network.graph)
    keep = [keep_indices(scores, count) for scores, count in zip(importance, counts, strict=True)]
    model = cut(network.model, network.graph, keep)
    spec = replace(network.spec, channels=counts)
    return replace(network, model=model, spec=spec, graph=trace(model, spec.input))


def check_counts(full: tuple[int, ...], counts: tuple[int, ...]) -> None:
    """Raise `UserError` unless `counts` has one possible count a group of `full`."""
    if len(counts) != len(full):
        raise UserError(
            f"{len(counts)} channel counts were given, the network has {len(full)} coupled groups: give one each, "
            f"in network order; at full width they are {','.join(map(str, full))}"
        )
    for group, (count, channels) in enumerate(zip(counts, full, strict=True)):
        if not 1 <= count <= channels:
            raise UserError(f"coupled group {group + 1} has {channels} channels: it can't keep {count}")


def parse_counts(text: str) -> tuple[int, ...]:
    """Read "24,48,96" as channel counts; `UserError` for anything else."""
    try:
        return tuple(int(part) for part in text.replace(" ", "").split(","))
    except ValueError:
        raise UserError(f"channels '{text}' is not a list of counts; write it like 24,48,96") from None


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
