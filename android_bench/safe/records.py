"""Records from outside: JSON and TOML of the right types and of finite numbers, or a sentence that names the field."""

from __future__ import annotations

import math
import tomllib
from typing import Any, TypeVar

import msgspec

from android_bench.safe.limits import JSON_BYTES, JSON_DEPTH
from android_bench.safe.text import shown_line

T = TypeVar("T")


class RecordError(ValueError):
    """What is wrong with a record, and where in it (`$.rounds`); the caller adds file and line."""


def from_json(text: str | bytes, kind: type[T]) -> T:
    """A JSON text as `kind`: a msgspec struct, a dataclass, or a type such as `dict[str, int]`; nothing is coerced.

    Raises `RecordError` for malformed JSON, another type, a number that is not finite, or a text too large or too deep.
    """
    if len(text) > JSON_BYTES:
        raise RecordError(f"is longer than {JSON_BYTES / 1e6:.0f} MB")
    try:
        record = msgspec.json.decode(text, type=kind, strict=True)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RecordError(shown_line(str(error))) from error
    except RecursionError as error:
        raise RecordError("is nested too deep") from error
    # A type with an open part lets any depth through, and whoever walks it would run out of stack.
    if _brackets(text) > JSON_DEPTH:
        _check_finite(msgspec.to_builtins(record), "$", 0)
    return record


def _brackets(text: str | bytes) -> int:
    return text.count("[") + text.count("{") if isinstance(text, str) else text.count(b"[") + text.count(b"{")


def from_toml(text: str, kind: type[T]) -> T:
    """A TOML text as `kind`, like `from_json`."""
    try:
        return from_values(tomllib.loads(text), kind)
    except tomllib.TOMLDecodeError as error:
        raise RecordError(shown_line(str(error))) from error
    except RecursionError as error:
        raise RecordError("is nested too deep") from error


def from_values(values: Any, kind: type[T]) -> T:
    """Plain values, as another parser read them, as `kind`; see `from_json`."""
    _check_finite(values, "$", 0)
    try:
        return msgspec.convert(values, kind, strict=True)
    except msgspec.ValidationError as error:
        raise RecordError(shown_line(str(error))) from error


def _check_finite(value: Any, where: str, depth: int) -> None:
    if depth > JSON_DEPTH:
        raise RecordError("is nested too deep")
    if isinstance(value, float) and not math.isfinite(value):
        raise RecordError(f"{value} is no finite number - at `{shown_line(where)}`")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_finite(item, f"{where}.{key}", depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_finite(item, f"{where}[...]", depth + 1)
