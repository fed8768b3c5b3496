"""What goes by a name: one record a name in a dictionary, and what is said of a name that none has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

from amc_latency.errors import UserError

T = TypeVar("T")


def nearest(name: str, names: Iterable[str]) -> str:
    """The entry of `names`, of which there is one at least, spelt most like `name`."""
    return get_close_matches(name, list(names), n=1, cutoff=0.0)[0]


def find(records: Mapping[str, T], name: str, what: str) -> T:
    """The record called `name`. Raises UserError, as `unknown` words it."""
    if name not in records:
        raise UserError(unknown(records, name, what))
    return records[name]


def unknown(names: Iterable[str], name: str, what: str) -> str:
    """What is said of a `name` that is none of `names`: `what` it would be, which there are, and the nearest."""
    *others, last = names
    listed = f"{', '.join(others)}{' and ' if len(others) == 1 else ', '}{last}" if others else last
    return f"no {what} is called '{name}'; there are {listed}. Did you mean '{nearest(name, [*others, last])}'?"
