"""Whether a target in milliseconds is met: a statement about an interval, and not about one figure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from amc_latency.device.rounds.paired import Ratio


@dataclass(frozen=True)
class Verdict:
    """A timing against a target."""

    is_under: bool
    """whether the figure itself is at or under the target: a search that is not goes on"""
    is_decided: bool
    """whether the whole 95 % interval lies on that side"""
    half_pct: float | None
    """half the interval's width in percent of the figure; None where a single round says nothing of it"""

    @property
    def is_met(self) -> bool:
        """Whether the target is held by the interval's upper end."""
        return self.is_under and self.is_decided

    @property
    def is_enough(self) -> bool:
        """Whether an uncut network is left as it is: of a single round no more than its figure can be asked."""
        return self.is_met or (self.is_under and self.half_pct is None)

    @property
    def text(self) -> str:
        """In words."""
        text = "target met" if self.is_under else "TARGET NOT MET"
        if self.is_decided:
            return text
        if self.half_pct is None:
            return f"{text} by a single round, which says nothing of its noise"
        how = "within the noise" if self.is_under else "by less than the noise"
        return f"{text}, {how}: ±{self.half_pct:.1f} %"


def verdict_of(ms: float, low_ms: float, high_ms: float | None, target_ms: float) -> Verdict:
    """Of `ms`, whose 95 % interval is `low_ms` to `high_ms`: None or infinite after a single round."""
    high_ms = math.inf if high_ms is None else high_ms
    found = Ratio(ms, low_ms, high_ms, rounds=0)
    half_pct = found.half_pct if math.isfinite(high_ms) else None
    return Verdict(ms <= target_ms, found.verdict(target_ms) != "within the noise", half_pct)
