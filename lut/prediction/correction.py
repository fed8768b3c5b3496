"""How far a table is off for the networks that a search ends in: a shrunken estimate from all that were timed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEAST_PRIOR = 0.01
"""Predictions are taken to be off by as much at least: a search looks for networks that are predicted too fast."""
_SHARED = 0.5
"""How much of two networks' errors is one: a search's networks have most of their layers in common."""


@dataclass(frozen=True)
class Miss:
    """A network that was timed: how it differs from its prediction, and how well that is known."""

    predicted_ms: float
    measured_ms: float
    relative_error: float
    """the standard error of `measured_ms`, as a share of it"""

    @property
    def log_ratio(self) -> float:
        """0 where the prediction was right, about 0.01 for a network that is 1 % slower."""
        return math.log(self.measured_ms / self.predicted_ms)

    def is_beyond(self, prior: float) -> bool:
        """Whether prediction and measurement exclude each other, by 95 %; `prior` is the prediction's error."""
        return abs(self.log_ratio) > 1.96 * math.hypot(max(prior, LEAST_PRIOR), self.relative_error)


def shift(misses: Sequence[Miss], prior: float) -> float:
    """The factor by which the table is off for networks like the last one; 1 for none.

    Errors of predictions are normal with the relative deviation `prior`, half of their variance shared by all networks
    of the search; what is measured is off by its own error. The estimate is the mean of the last network's own error
    given all of them: the less a timing can be trusted, the nearer to 1, or to what others say.
    """
    if not misses:
        return 1.0
    variance = max(prior, LEAST_PRIOR) ** 2
    ratios = np.array([miss.log_ratio for miss in misses])
    errors = np.array([miss.relative_error for miss in misses])
    # A miss that prior and timing do not allow shows that the prior is too small.
    variance = max(variance, float(np.mean(ratios**2 - errors**2)))
    covariance = variance * (_SHARED * np.ones((len(misses),) * 2) + (1 - _SHARED) * np.eye(len(misses)))
    weights = np.linalg.pinv(covariance + np.diag(errors**2)) @ ratios
    return math.exp(float(covariance[-1] @ weights))
