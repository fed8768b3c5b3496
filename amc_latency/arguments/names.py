"""What goes by a name: one record a name in a dictionary, and what is said of a name that none has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

from amc_latency.errors import UserError

T = TypeVar("T")


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The entry of `names` that is spelt much like `name`, upper and lower case alike; None where none is near."""
    lowered = {each.lower(): each for each in names}
    found = get_close_matches(name.lower(), lowered, n=1)
    return lowered[found[0]] if found else None


def known(names: Iterable[str], name: str) -> str:
    """How a message goes on about a `name` that is none of `names`: with the one that is near, or else with all."""
    has = list(names)
    near = nearest(name, has)
    return f"; it has {', '.join(has)}" if near is None else f"; did you mean '{near}'?"


def find(records: Mapping[str, T], name: str, what: str) -> T:
    """The record called `name`. Raises UserError, as `unknown` words it."""
    if name not in records:
        raise UserError(unknown(records, name, what))
    return records[name]


def unknown(names: Iterable[str], name: str, what: str) -> str:
    """What is said of a `name` that is none of `names`: `what` it would be, which there are, and the nearest."""
    *others, last = names
    listed = f"{', '.join(others)}{' and ' if len(others) == 1 else ', '}{last}" if others else last
    near = nearest(name, [*others, last])
    guess = "" if near is None else f". Did you mean '{near}'?"
    return f"no {what} is called '{name}'; there are {listed}{guess}"
