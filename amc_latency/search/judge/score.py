"""What a policy is worth: its score, and what a search maximises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from amc_latency.search.costs.costs import Counts

if TYPE_CHECKING:
    from amc_latency.training.outcome import Outcome

ACCURACY = "accuracy"
"""The measure that is a percentage of images; any other is a figure of its own."""


@dataclass(frozen=True)
class Score:
    """How a policy's network did on held-back images, cut and refitted but not fine-tuned."""

    accuracy: float
    """share that it got right, 0..1"""
    loss: float
    """mean cross entropy in nats"""
    images: int
    """how many it was asked; fewer where the first of them left no hope"""
    top5: float | None = None
    """share whose label is among its first five, where that was asked for"""


@dataclass(frozen=True)
class Tested:
    """What a network is worth, as it is shown: percent of images, or a task's own score."""

    value: float
    images: int = 0
    """that it is a share of; 0 for a score"""
    top5: float | None = None
    """percent whose label is among the first five, where that is told"""
    outcome: Outcome | None = None
    """image by image"""


Reward = Callable[[Score, Counts], float]
"""What is maximised, of a score and the policy that got it."""


def negative_error(score: Score, counts: Counts) -> float:
    """AMC's R_err, for a search under a budget."""
    return score.accuracy - 1.0
