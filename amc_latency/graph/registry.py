"""The kinds of modules and functions that the modules in `kinds/` list as KINDS.

By their type, by what is called, and by the layers that they make.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from torch import Tensor, nn

from amc_latency.graph import kinds
from amc_latency.graph.kind import Channels, Made, Plain, TorchKind


def _kinds() -> Iterator[TorchKind]:
    for module in iter_modules(kinds.__path__):
        yield from import_module(f"{kinds.__name__}.{module.name}").KINDS


TORCH_KINDS: Mapping[str, TorchKind] = {kind.name: kind for kind in _kinds()}
MODULES: Mapping[type[nn.Module], TorchKind] = {
    module: kind for kind in TORCH_KINDS.values() for module in kind.modules
}
FUNCTIONS: Mapping[Any, TorchKind] = {function: kind for kind in TORCH_KINDS.values() for function in kind.functions}
MADE: Mapping[str, Made] = {name: made for kind in TORCH_KINDS.values() for name, made in kind.made.items()}
"""By kind of layer."""
PLAIN: Mapping[Any, Plain] = {kind.plain.function: kind.plain for kind in TORCH_KINDS.values() if kind.plain}
"""By function."""


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
