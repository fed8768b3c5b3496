"""What is there already, and which of it counts: rows of the CSVs. Costs no torch import."""

from __future__ import annotations

from collections.abc import Sequence

Row = dict[str, str]
OURS = "ours"
ORIGINAL = "original"
"""A row of `cuts.csv` that is no rival's: the uncut network."""


def key(row: Row) -> tuple[str, str, float, str, int]:
    """What tells rows apart, the rate aside."""
    return row["task"], row["network"], float(row["share"]), row["rival"], int(row["seed"])


def of_run(rows: Sequence[Row], task: str, network: str, share: float, rival: str) -> list[Row]:
    """The rows of a rival at a share, over all seeds."""
    return [row for row in rows if key(row)[:4] == (task, network, share, rival)]


def rates_left(done: Sequence[Row], seed: int, rates: Sequence[float]) -> list[float]:
    """The rates that a seed is still to be fine-tuned at, by the rows of its rival.

    The first seed takes all; the others the one that did best with it.
    """
    best = best_rate(done)
    wanted = list(rates) if seed == 0 else [] if best is None else [best]
    there = {float(row["rate"]) for row in done if int(row["seed"]) == seed}
    return [rate for rate in wanted if rate not in there]


def best_rate(rows: Sequence[Row]) -> float | None:
    """The rate with which the first seed did best on held-back images; None before it ran."""
    first = [row for row in rows if int(row["seed"]) == 0]
    return float(max(first, key=lambda row: float(row["held_back"]))["rate"]) if first else None


def at_best_rate(rows: Sequence[Row]) -> list[Row]:
    """The rows of one rival that count: those at its best rate."""
    best = best_rate(rows)
    return [row for row in rows if float(row["rate"]) == best]
