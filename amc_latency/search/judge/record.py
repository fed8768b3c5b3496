"""A judged policy as a line of the run folder's log, and which of many are best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec

from amc_latency.errors import UserError
from amc_latency.search.costs.costs import Counts
from amc_latency.search.judge.score import Score

START, NEIGHBOUR = "start", "neighbour"
"""Sources of policies that an agent is given."""


@dataclass(frozen=True)
class EpisodeRecord:
    """One finished episode: a line of the run folder's log."""

    episode: int
    """From 0, over all targets of a search."""
    source: str
    """`start` (a policy that was given), `neighbour` (given to learn from), `warm-up` (random) or `learned`."""
    counts: Counts
    """Channels kept, one a coupled group."""
    actions: tuple[float, ...]
    """Keep ratios executed, after the clamp."""
    reward: float
    """Of the whole policy; what the agent was given, unless it is rewarded by layer."""
    accuracy: float
    """Of the cut, refitted network on held-back images, 0..1; or a task's own score, which may be any number."""
    loss: float
    """Cross entropy in nats, on the same images."""
    images: Annotated[int, msgspec.Meta(ge=1)]
    """How many images these were."""
    predicted_ms: float
    """By the costs that the search ran under."""
    target_ms: float | None
    """The target that the clamp held it to; None where milliseconds were not limited."""
    seconds: float
    """Wall time it took."""

    @property
    def limit_ms(self) -> float:
        """`target_ms`, infinite where there is none."""
        return math.inf if self.target_ms is None else self.target_ms

    @property
    def score(self) -> Score:
        """What it was judged to be."""
        return Score(self.accuracy, self.loss, self.images)


def best_of(records: Sequence[EpisodeRecord], target_ms: float, n: int = 1) -> list[EpisodeRecord]:
    """The `n` best-rewarded records predicted at or under `target_ms`; of equal ones the faster, then the earlier.

    Each policy is there once; those that were given up early come last.

    Raises `UserError` if there is none.
    """
    feasible = [record for record in records if record.predicted_ms <= target_ms]
    if not feasible:
        raise UserError(f"no episode in the log is predicted at or under {target_ms:.6g} ms; run more episodes")
    ranked = sorted(feasible, key=lambda record: (-record.images, -record.reward, record.predicted_ms, record.episode))
    distinct: dict[Counts, EpisodeRecord] = {}
    for record in ranked:
        distinct.setdefault(record.counts, record)
    return list(distinct.values())[:n]
