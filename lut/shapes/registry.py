"""The kinds of layers by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from amc_latency.lut.shapes.kind import Kind
from amc_latency.lut.shapes.kinds import convolutions, elementwise, moves, others, pools, resizing, transposed

KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        *(*convolutions.KINDS, *elementwise.KINDS, *moves.KINDS, *others.KINDS),
        *(*pools.KINDS, *resizing.KINDS, *transposed.KINDS),
    )
}


def kind_of(name: str) -> Kind:
    """The kind called so. Raises `ValueError` that names all, and the nearest."""
    if name not in KINDS:
        near = difflib.get_close_matches(name, KINDS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"layer kind '{name}' is none of {', '.join(KINDS)}{hint}")
    return KINDS[name]
