"""To the same measured milliseconds by a rival's own knob."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from amc_latency.errors import UserError

EQUAL_PCT = 2.0
"""Networks whose measured milliseconds differ by no more are of equal latency, as in a search's report."""
MOST_TRIALS = 8
LEAST_STEP = 1e-3
"""A knob that moves by less gives the same network."""

Network = TypeVar("Network")


@dataclass(frozen=True)
class Trial(Generic[Network]):
    """One setting of the knob."""

    knob: float
    network: Network
    share: float
    """of the uncut network's milliseconds, as measured"""

    def off_pct(self, wanted: float) -> float:
        """How far its share is from `wanted`, in percent of that."""
        return 100 * abs(self.share / wanted - 1)


def equalised(
    make: Callable[[float], Network],
    measure: Callable[[Network], float],
    wanted: float,
    tolerance_pct: float = EQUAL_PCT,
    most: int = MOST_TRIALS,
) -> Trial[Network]:
    """The first network within `tolerance_pct` of the share `wanted`, or the nearest of `most`.

    `make` gives the network of a knob in 0..1, where 1 is the uncut one and more means slower; it raises UserError for
    a knob that is out of its reach, which counts as too small. The next knob is read off the line between the ends of
    the bracket, but never nearer to one than a tenth; where the same end stays twice, the middle is taken.
    Raises the last UserError where no knob gave a network.
    """
    low, high = (0.0, 0.0), (1.0, 1.0)
    trials: list[Trial[Network]] = []
    refused: UserError | None = None
    moved: list[str] = []
    for _ in range(most):
        knob = _between(low, high, wanted, halves=len(moved) > 1 and moved[-1] == moved[-2])
        try:
            network = make(knob)
        except UserError as error:
            refused, low = error, (knob, 0.0)
            moved.append("low")
        else:
            trial = Trial(knob, network, measure(network))
            trials.append(trial)
            if trial.off_pct(wanted) <= tolerance_pct:
                return trial
            if trial.share < wanted:
                low = (knob, trial.share)
                moved.append("low")
            else:
                high = (knob, trial.share)
                moved.append("high")
        if high[0] - low[0] < LEAST_STEP:
            break
    if not trials:
        assert refused is not None
        raise refused
    return min(trials, key=lambda trial: abs(math.log(trial.share / wanted)))


def _between(low: tuple[float, float], high: tuple[float, float], wanted: float, halves: bool) -> float:
    """The next knob between the two (knob, share)."""
    (from_knob, from_share), (to_knob, to_share) = low, high
    way = 0.5 if halves or to_share <= from_share else (wanted - from_share) / (to_share - from_share)
    return from_knob + min(max(way, 0.1), 0.9) * (to_knob - from_knob)
