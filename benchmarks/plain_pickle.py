"""What a pickle of plain values and numpy arrays holds, read from its opcodes: nothing in it is imported or called.

Numbers, text, None, lists, tuples, dictionaries and arrays of numbers are understood; a file with anything else is
refused.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from amc_latency.android_bench.safe.files import read_bytes

MOST_BYTES = 64 * 2**20
_MARK = object()
_ARRAYS = {"numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct"}
_NUMBERS = "biuf"
"""Kinds of numpy's types that are numbers."""


@dataclass
class PickledArray:
    """An array of numbers; it is made before its content is known."""

    value: np.ndarray = field(default_factory=lambda: np.empty(0))


@dataclass
class _Type:
    """A type of numbers."""

    name: str
    order: str = field(default="=")


def read_plain(path: Path) -> Any:
    """The value in the pickle `path`, its arrays as `PickledArray`.

    Raises `ValueError` for one of other things than plain values and arrays, `OSError` for a file that can't be read.
    """
    try:
        return _value(read_bytes(path, MOST_BYTES))
    except (IndexError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no pickle of plain values: {error}") from error


def _value(content: bytes) -> Any:
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for opcode, argument, _ in pickletools.genops(content):
        name = opcode.name
        match name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                stack.append(_MARK)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE":
                stack.append(tuple(_above_mark(stack)))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(_last(stack, int(name[-1]))))
            case "APPEND":
                (item,) = _last(stack, 1)
                stack[-1].append(item)
            case "APPENDS":
                items = _above_mark(stack)
                stack[-1].extend(items)
            case "SETITEM":
                key, value = _last(stack, 2)
                stack[-1][key] = value
            case "SETITEMS":
                items = _above_mark(stack)
                stack[-1].update(zip(items[::2], items[1::2], strict=True))
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                memo[int(argument)] = stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                stack.append(memo[int(argument)])
            case "GLOBAL":
                stack.append(str(argument))
            case "STACK_GLOBAL":
                module, attribute = _last(stack, 2)
                stack.append(f"{module} {attribute}")
            case "REDUCE":
                called, given = _last(stack, 2)
                stack.append(_made(called, given))
            case "BUILD":
                (state,) = _last(stack, 1)
                _build(stack[-1], state)
            case _ if not opcode.stack_before and isinstance(argument, int | float | str | bytes):
                stack.append(argument)
            case _:
                raise ValueError(f"it holds more than plain values and arrays: {name}")
    raise ValueError("it has no end")


def _last(stack: list[Any], count: int) -> list[Any]:
    found = stack[-count:]
    if len(found) < count or any(item is _MARK for item in found):
        raise ValueError("its opcodes take more than there is")
    del stack[-count:]
    return found


def _above_mark(stack: list[Any]) -> list[Any]:
    at = max(i for i, item in enumerate(stack) if item is _MARK)
    found = stack[at + 1 :]
    del stack[at:]
    return found


def _made(called: Any, given: Any) -> PickledArray | _Type:
    if called in _ARRAYS:
        return PickledArray()
    if called == "numpy dtype":
        return _Type(str(given[0]))
    raise ValueError(f"it calls {called}")


def _build(thing: Any, state: Any) -> None:
    """What numpy's own `__setstate__` is told, for a type and for an array."""
    if isinstance(thing, _Type):
        thing.order = state[1]
        return
    if not isinstance(thing, PickledArray):
        raise ValueError("it builds what is no array")
    _, shape, kind, by_columns, content = state
    dtype = np.dtype(kind.name).newbyteorder(kind.order if kind.order in "<>=" else "=")
    if dtype.kind not in _NUMBERS or not isinstance(content, bytes):
        raise ValueError("it has an array of something else than numbers")
    thing.value = np.frombuffer(content, dtype).reshape(shape, order="F" if by_columns else "C")
