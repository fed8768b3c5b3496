"""Records from outside: JSON and TOML of the right types and of finite numbers, or a sentence that names the field."""

from __future__ import annotations

import functools
import math
import re
import tomllib
from collections.abc import Callable, Hashable
from dataclasses import fields
from typing import Any, TypeVar, cast

import msgspec
from amc_latency.android_bench.safe.limits import JSON_BYTES, JSON_DEPTH
from amc_latency.android_bench.safe.text import shown_line

T = TypeVar("T")
_LONG = re.compile(rb"[0-9]{19}")
_LARGEST = 2**63
"""No counter of any machine goes further."""


class RecordError(ValueError):
    """What is wrong with a record, and where in it (`$.rounds`); the caller adds file and line."""


def from_json(text: str | bytes, kind: type[T]) -> T:
    """A JSON text as `kind`: a msgspec struct, a dataclass, or a type such as `dict[str, int]`; nothing is coerced.

    Raises `RecordError` for malformed JSON, another type, a number that is not finite, or a text too large or too deep.
    """
    content = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(content) > JSON_BYTES:
        raise RecordError(f"is longer than {JSON_BYTES / 1e6:.0f} MB")
    record = reader(kind)(content)
    # A type with an open part lets any depth through, and whoever walks it would run out of stack.
    if content.count(b"[") + content.count(b"{") > JSON_DEPTH or _LONG.search(content):
        _check_finite(msgspec.to_builtins(record), "$", 0)
    return record


def reader(kind: type[T]) -> Callable[[str | bytes], T]:
    """`from_json` for many lines that are bounded already, of a kind without an open part: what it lacks is skipped."""
    decode: Callable[[str | bytes], T] = _decoder(cast(Hashable, kind)).decode

    def read(text: str | bytes) -> T:
        try:
            return decode(text)
        except (msgspec.DecodeError, UnicodeError) as error:
            raise RecordError(shown_line(str(error))) from error
        except RecursionError as error:
            raise RecordError("is nested too deep") from error

    return read


@functools.cache
def _decoder(kind: Hashable) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind, strict=True)


def from_toml(text: str, kind: type[T]) -> T:
    """A TOML text as `kind`, like `from_json`."""
    try:
        return from_values(tomllib.loads(text), kind)
    except RecordError:
        raise
    except ValueError as error:
        # TOMLDecodeError is one, and so is what Python says of a number of thousands of digits.
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


def exactly(values: Any, kind: type[T]) -> T:
    """`from_values` for a dataclass as this program writes it: with all of its fields, and no others."""
    if not isinstance(values, dict):
        raise RecordError(f"{shown_line(repr(values), 40)} is no object")
    if different := {each.name for each in fields(kind)} ^ set(values):  # type: ignore[arg-type]
        raise RecordError(f"fields are missing or unknown: {shown_line(', '.join(sorted(map(str, different))))}")
    return from_values(values, kind)


def _check_finite(value: Any, where: str, depth: int) -> None:
    if depth > JSON_DEPTH:
        raise RecordError("is nested too deep")
    if isinstance(value, float) and not math.isfinite(value):
        raise RecordError(f"{value} is no finite number - at `{shown_line(where)}`")
    if isinstance(value, int) and abs(value) >= _LARGEST:
        raise RecordError(f"a number of {value.bit_length()} bits is too large - at `{shown_line(where)}`")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_finite(item, f"{where}.{key}", depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_finite(item, f"{where}[...]", depth + 1)
