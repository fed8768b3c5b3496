"""The kinds of layers by name: what the modules in `kinds/` list as KINDS."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from importlib import import_module
from pkgutil import iter_modules

from amc_latency.lut.shapes import kinds
from amc_latency.lut.shapes.kind import Kind


def _kinds() -> Iterator[Kind]:
    for module in iter_modules(kinds.__path__):
        yield from import_module(f"{kinds.__name__}.{module.name}").KINDS


KINDS: Mapping[str, Kind] = {kind.name: kind for kind in _kinds()}


def kind_of(name: str) -> Kind:
    """The kind called so. Raises `ValueError` that names all, and the nearest."""
    if name not in KINDS:
        near = difflib.get_close_matches(name, KINDS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"layer kind '{name}' is none of {', '.join(KINDS)}{hint}")
    return KINDS[name]
