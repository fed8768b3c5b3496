"""One JSON object a line, appended as it comes: what a kill can tear is the last line, and that one is dropped."""

from __future__ import annotations

import errno
import json
import math
import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from amc_latency.errors import JobError, UserError

T = TypeVar("T")


_TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}
_TUPLES = {"Counts": "int", "tuple[float, ...]": "float"}


def checked(kind: type[T], row: object) -> T:
    """A dataclass from a JSON object, if that has its fields and finite values of their types.

    A type that is none of those above is not looked into. Raises `ValueError` naming what is wrong.
    """
    if not isinstance(row, dict):
        raise ValueError(f"{str(row)[:40]!r} is no object")
    own = fields(kind)  # type: ignore[arg-type]
    if different := {field.name for field in own} ^ set(row):
        raise ValueError(f"fields are missing or unknown: {', '.join(sorted(different))}")
    return kind(**{field.name: _checked_value(field.name, str(field.type), row[field.name]) for field in own})


def _checked_value(name: str, type_name: str, value: Any) -> Any:
    if type_name in _TUPLES:
        if not isinstance(value, list):
            raise ValueError(f"{name} is {value!r}")
        return tuple(_checked_value(name, _TUPLES[type_name], item) for item in value)
    scalar = type_name.removesuffix(" | None")
    if scalar not in _TYPES or (value is None and scalar != type_name):
        return value
    right = isinstance(value, _TYPES[scalar]) and (scalar == "bool" or not isinstance(value, bool))
    if not right or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"{name} is {value!r}")
    return value


def read_lines(path: Path, kind: type[T]) -> list[T]:
    """All whole lines as dataclasses; a torn last one is cut off the file. Raises `UserError` naming a damaged line."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    rows = []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            rows.append(checked(kind, json.loads(line)))
        except ValueError as error:
            raise UserError(
                f"{path}, line {number} is damaged: {line[:80]!r} ({error}). Start another folder"
            ) from error
    return rows


def append_line(path: Path, row: Any) -> None:
    """Add a dataclass as one line, in a single write.

    Raises `JobError` if it cannot be stored; the lines before still stand.
    """
    line = json.dumps(asdict(row)).encode() + b"\n"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            if os.write(descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise JobError(
            f"cannot write {path}: {error.strerror}. What is there is kept: set it right and run again to go on"
        ) from error
