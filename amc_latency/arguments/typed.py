"""Whether an argument is what its annotation says: Python takes any value, and a loop far behind then says why not."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from amc_latency.errors import OptionError

_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "True or False", Path: "a path"}


def typed(name: str, hint: Any, value: Any) -> Any:
    """The argument `name` as `hint` has it, see `plain`. Raises `OptionError` where it is of another type, or NaN."""
    found = plain(hint, value)
    if isinstance(found, float) and math.isnan(found):
        raise OptionError(name, f"is {found}; give a number")
    check_type(name, hint, found)
    return found


def check_type(name: str, hint: Any, value: Any) -> None:
    """Raise `OptionError` for a value that is not of the type `hint`. True and False are no numbers."""
    if not _fits(hint, value):
        raise OptionError(name, f"is {_words(hint)}, not {repr(value)[:100]}")


def plain(hint: Any, value: Any) -> Any:
    """`value` in Python's own types where another stands for it: numpy's numbers, text for a path, a list for a tuple.

    What can't stand for `hint` is returned as it is.
    """
    kinds = _alternatives(hint)
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return int(value) if isinstance(value, numbers.Integral) else float(value)
    if isinstance(value, str | os.PathLike):
        return Path(value) if Path in kinds else os.fspath(value)
    for kind in kinds:
        if get_origin(kind) is tuple and isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
            return tuple(plain(get_args(kind)[0], each) for each in value)
        if get_origin(kind) is Mapping and isinstance(value, Mapping):
            return {key: plain(get_args(kind)[1], each) for key, each in value.items()}
    return value


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _fits(hint: Any, value: Any) -> bool:
    if hint is Any:
        return True
    kinds = _alternatives(hint)
    if len(kinds) > 1:
        return any(_fits(kind, value) for kind in kinds)
    origin, of = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is Literal:
        return isinstance(value, str) and value in of
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(of[0], each) for each in value)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(
            _fits(of[0], key) and _fits(of[1], each) for key, each in value.items()
        )
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, int | float if hint is float else hint)


def _words(hint: Any) -> str:
    kinds = [kind for kind in _alternatives(hint) if kind is not NoneType]
    return " or ".join(map(_word, kinds))


def _word(kind: Any) -> str:
    origin, of = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(map(repr, of))
    if origin is tuple:
        return f"a list, of which each is {_words(of[0])}"
    if origin is Mapping:
        return f"a dictionary, in which each value is {_words(of[1])}"
    return _WORDS.get(kind) or str(kind.__name__)
