"""The kinds of modules and functions, by their type, by what is called, and by the layers that they make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from amc_latency.graph.kinds import (
    activations,
    arithmetic,
    convolutions,
    linear,
    moves,
    norms,
    passing,
    pools,
    reshapes,
    resizing,
    transposed,
)
from amc_latency.graph.kinds.record import Channels, Made, TorchKind

TORCH_KINDS: Mapping[str, TorchKind] = {
    kind.name: kind
    for home in (
        *(activations, arithmetic, convolutions, linear, moves, norms, passing, pools, reshapes, resizing, transposed),
    )
    for kind in home.KINDS
}
MODULES: Mapping[type[nn.Module], TorchKind] = {
    module: kind for kind in TORCH_KINDS.values() for module in kind.modules
}
FUNCTIONS: Mapping[Any, TorchKind] = {function: kind for kind in TORCH_KINDS.values() for function in kind.functions}
MADE: Mapping[str, Made] = {name: made for kind in TORCH_KINDS.values() for name, made in kind.made.items()}
"""By kind of layer."""


def kind_of_module(module: nn.Module) -> TorchKind | None:
    """That of its type, or of the nearest one that it is derived from; None for what is not known."""
    return next((MODULES[base] for base in type(module).__mro__ if base in MODULES), None)


def channels_of(module: nn.Module) -> Channels:
    """How its channels lie in it. Raises `TypeError` for a module that has none."""
    kind = kind_of_module(module)
    if kind is None or kind.channels is None:
        raise TypeError(f"{type(module).__name__} has no channels")
    return kind.channels


def is_weighted(module: nn.Module | None) -> bool:
    """Whether it multiplies what it reads by weights, as convolutions and linear layers do."""
    kind = None if module is None else kind_of_module(module)
    return kind is not None and kind.channels is not None and bool(kind.channels.bound)


def outputs_first(module: nn.Module) -> Tensor:
    """The module's weight, [out, in, ...] or [channels], as a view."""
    weight, dims = module.get_parameter("weight"), channels_of(module).weight_dims
    return weight if dims == (0, 1) else weight.transpose(*dims)
