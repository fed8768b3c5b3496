"""Budgets as they are given: so many MACs, parameters or bytes, or a percentage of the uncut network's."""

from __future__ import annotations

import math

from amc_latency.arguments.settings import Rule
from amc_latency.errors import OptionError, UserError

Amount = float | str
"""A number, or `50%`."""


def percent_of(amount: Amount) -> float | None:
    """The percentage that `amount` is, None for a number. Raises `UserError` for a text that is none in 0..100 %."""
    if not isinstance(amount, str):
        return None
    try:
        percent = float(amount.strip().removesuffix("%"))
    except ValueError:
        percent = 0.0
    if not amount.strip().endswith("%") or not 0 < percent <= 100:
        raise UserError(
            f"a percentage of the uncut network is above 0 % and at most 100 %, such as 50%, not '{amount}'"
        )
    return percent


def amount_rule(unit: str) -> Rule:
    """What an amount is: a percentage, or a positive number. A text that is no percentage raises `UserError`."""
    return Rule(
        lambda amount: percent_of(amount) is not None or 0 < amount < math.inf, f"is a positive number of {unit}"
    )


def absolute(amount: Amount, uncut: float) -> float:
    """`amount` where the uncut network takes `uncut`."""
    percent = percent_of(amount)
    # In this order, so that whole percentages of whole numbers come out exactly.
    return float(amount) if percent is None else percent * uncut / 100


def amount_text(amount: Amount, unit: str) -> str:
    """As a part of a folder's name: `6e+06macs`, or `50pct-macs`."""
    percent = percent_of(amount)
    return f"{amount:g}{unit}" if percent is None else f"{percent:g}pct-{unit}"


def read_amount(text: str, name: str) -> Amount:
    """A count such as `6M`, `300k` or `1.2e6`, or a percentage, which stays a text; `OptionError` for else."""
    number = text.strip()
    if number.endswith("%"):
        return f"{_percentage(number, name):g}%"
    scale = {"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}.get(number[-1:])
    try:
        return float(number) if scale is None else float(number[:-1]) * scale
    except ValueError:
        raise OptionError(name, f"is a number such as 6M, 300k or 1200000, or a percentage, not '{text}'") from None


def read_milliseconds(text: str, name: str) -> float | str:
    """Milliseconds, or a percentage of the uncut network's, which stays a text; `OptionError` for else."""
    if text.strip().endswith("%"):
        return f"{_percentage(text.strip(), name)!r}%"
    try:
        return float(text)
    except ValueError:
        raise OptionError(name, f"is milliseconds such as 20, or a percentage such as 50%, not '{text}'") from None


def speedup_of(percentage: str) -> float:
    """How many times as fast a network is that takes this share of the uncut one's time: 2 for `50%`."""
    return 100 / _percentage(percentage, "target_ms")


def _percentage(text: str, name: str) -> float:
    try:
        percent = percent_of(text)
    except UserError as error:
        raise OptionError((name,), f"`{name}`: {error}") from None
    assert percent is not None
    return percent
