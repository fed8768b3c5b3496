"""Damage to bytes, and values that no honest writer writes."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

NINES = "9" * 400
_PIECES = (b"\0", b"\n", b"\t", b"\r\n", b"\x1b[2J", b"\xff\xfe", b"NaN", b"-1", b"1e999", b'"', b"{", b"[" * 50, b"#")
_TEXTS = (
    "",
    "\x1b[31mred",
    "\u202eabc",
    "a\nb",
    "a\tb",
    "x" * 5000,
    "../../etc/passwd",
    "[/x]",
    "%s{0}",
    "\ud800",
    "'",
)

_NUMBERS = (
    *("NaN", "Infinity", "-Infinity", "nan", "inf", "-0", "-1", "1e308", "1e999", "1e-400", "0", "1_000", NINES),
    *("٣", "0x10", " 1", "1.", "+1", "1e5", "true", "1000000000000", "-9223372036854775809", "1.5"),
)


def damaged(draw: random.Random, data: bytes) -> bytes:
    """One to three changes: a bit, a byte, a digit, a piece put in, cut out, doubled, moved, or the end cut off."""
    content = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        at = draw.randrange(len(content)) if content else 0
        length = draw.choice((1, 2, 8, 80, 500))
        match draw.randrange(9):
            case 0 if content:
                content[at] ^= 1 << draw.randrange(8)
            case 1 if content:
                content[at] = draw.randrange(256)
            case 2:
                _other_digit(draw, content, at)
            case 3:
                content[at:at] = draw.choice(_PIECES)
            case 4:
                del content[at : at + length]
            case 5:
                content[at:at] = content[at : at + length]
            case 6:
                to = draw.randrange(len(content) + 1)
                content[to:to] = content[at : at + length]
            case 7:
                lines = bytes(content).split(b"\n")
                one, other = draw.randrange(len(lines)), draw.randrange(len(lines))
                lines[one], lines[other] = lines[other], lines[one]
                content = bytearray(b"\n".join(lines))
            case 8:
                del content[at:]
    return bytes(content)


def _other_digit(draw: random.Random, content: bytearray, at: int) -> None:
    digits = [i for i in range(at, min(len(content), at + 200)) if 48 <= content[i] <= 57]
    if digits:
        content[draw.choice(digits)] = draw.randrange(48, 58)


def odd_number(draw: random.Random) -> str:
    """A number as text that may be too large, too small, none, or in another notation."""
    return draw.choice(_NUMBERS)


def odd_value(draw: random.Random, depth: int = 0) -> Any:
    """A value of any type that JSON has, and some that only Python's has."""
    leaves: tuple[Callable[[], Any], ...] = (
        lambda: None,
        lambda: draw.choice((True, False)),
        lambda: draw.choice((0, -1, 1, 2**63, 10**12, int(NINES), 1000000000)),
        lambda: draw.choice((float("nan"), float("inf"), float("-inf"), 1e308, -0.0, 5e-324, 0.5)),
        lambda: draw.choice(_TEXTS),
        lambda: [],
        lambda: {},
    )
    kind = draw.randrange(10)
    if kind < 7 or depth > 3:
        return draw.choice(leaves)()
    if kind == 7:
        return [odd_value(draw, depth + 1) for _ in range(draw.choice((1, 2, 5)))]
    if kind == 8:
        return {str(odd_value(draw, 9)): odd_value(draw, depth + 1) for _ in range(draw.choice((1, 2)))}
    deep: Any = 1
    for _ in range(draw.choice((40, 400))):
        deep = [deep] if draw.random() < 0.5 else {"a": deep}
    return deep


def odd_place(draw: random.Random, record: Any) -> Any:
    """The record with an odd value somewhere in it; keys may go, come and be doubled."""
    if not isinstance(record, dict | list) or not record or draw.random() < 0.2:
        return odd_value(draw)
    if isinstance(record, list):
        copy = list(record)
        at = draw.randrange(len(copy))
        copy[at] = odd_place(draw, copy[at])
        return copy
    changed = dict(record)
    key = draw.choice(list(changed))
    match draw.randrange(8):
        case 0:
            del changed[key]
        case 1:
            changed[str(odd_value(draw, 9))] = odd_value(draw)
        case _:
            changed[key] = odd_place(draw, changed[key])
    return changed
