"""Budgets as they are given: so many MACs, parameters or bytes, or a percentage of the uncut network's."""

from __future__ import annotations

from amc_latency.errors import UserError

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


def absolute(amount: Amount, uncut: float) -> float:
    """`amount` where the uncut network takes `uncut`."""
    percent = percent_of(amount)
    # In this order, so that whole percentages of whole numbers come out exactly.
    return float(amount) if percent is None else percent * uncut / 100


def amount_text(amount: Amount, unit: str) -> str:
    """As a part of a folder's name: `6e+06macs`, or `50pct-macs`."""
    percent = percent_of(amount)
    return f"{amount:g}{unit}" if percent is None else f"{percent:g}pct-{unit}"
