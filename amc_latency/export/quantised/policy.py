"""What `precision` and `io` mean: a precision for each layer, and what the file takes and gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from amc_latency.arguments.names import unknown
from amc_latency.errors import OptionError
from amc_latency.lut.shapes.precisions import FLOAT32, INT8

if TYPE_CHECKING:
    from amc_latency.graph.trace import NetworkGraph

UINT8 = "uint8"
WRITTEN = (FLOAT32, INT8)
"""Precisions in which a file can be written."""
IO = (FLOAT32, INT8, UINT8)

Policy = tuple[str, ...]
"""The name of a precision for each of `Architecture.layers`, in order."""


def check_names(precision: str | Sequence[str]) -> list[str]:
    """The names of precisions as they are given: one for all layers, or several. Raises `OptionError` for others."""
    if not isinstance(precision, str | list | tuple):
        raise OptionError("precision", f"is a name, or a list of one each layer, not {repr(precision)[:100]}")
    names = precision.replace(" ", "").split(",") if isinstance(precision, str) else list(precision)
    for name in names:
        if name not in WRITTEN:
            raise OptionError(("precision",), f"`precision`: {unknown(WRITTEN, str(name), 'precision')}")
    return names


def is_quantised(precision: str | Sequence[str], io: str) -> bool:
    """Whether a file in that precision, with inputs and outputs of type `io`, takes ranges of real images."""
    return io != FLOAT32 or any(name != FLOAT32 for name in check_names(precision))


def policy_of(precision: str | Sequence[str], graph: NetworkGraph) -> Policy:
    """One precision for all layers, or one each, also as text with commas: "int8,float32,int8".

    Raises `OptionError` for a name that there is not, and for more or fewer than there are layers.
    """
    layers = len(graph.architecture.layers)
    names = check_names(precision)
    if isinstance(precision, str) and len(names) == 1:
        names *= layers
    if len(names) != layers:
        raise OptionError(
            "precision", f"has {len(names)} names, and the network {layers} layers: give one for all, or one each"
        )
    return tuple(names)


def check_io(io: str) -> None:
    """Raise `OptionError` for what no file can take and give."""
    if io not in IO:
        raise OptionError(("io",), f"`io`: {unknown(IO, io, 'type of inputs and outputs')}")
