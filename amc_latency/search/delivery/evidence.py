"""What a search has learnt of its table: how far it is off for the networks that were timed since."""

from __future__ import annotations

import math
from collections.abc import Callable

from amc_latency.device.base import Device
from amc_latency.errors import JobError
from amc_latency.lut.building.retime import decisive_layers, retime
from amc_latency.lut.prediction.correction import LEAST_PRIOR, Miss, shift
from amc_latency.lut.prediction.predict import Predictor
from amc_latency.lut.table.table import TableError
from amc_latency.search.costs.costs import Counts, LatencyCosts
from amc_latency.search.results.folder import TimedFile

MOST_DRIFT_PCT = 30.0
"""A device whose uncut network differs by more from the table is another one than was profiled."""


class Evidence:
    """The networks that were timed beside what the table says of them, and the factor that follows."""

    def __init__(self, predictor: Predictor, costs: LatencyCosts, say: Callable[[str], object]) -> None:
        self._predictor = predictor
        self._costs = costs
        self._say = say
        self._misses: list[Miss] = []

    def factor(self, counts: Counts) -> float:
        """How much slower than the table says networks like this one are."""
        return shift(self._misses, self._prior(counts)) if self._misses else 1.0

    def add(self, counts: Counts, predicted_ms: float, timed: TimedFile, device: Device | None) -> None:
        """A policy that was timed. If it is further off than the table claims, that is said, and its decisive layers
        are timed again on `device`, if there is one, into the table. A table that can't be written ends no search.
        """
        miss = Miss(predicted_ms, timed.measured_ms, timed.relative_error)
        self._misses.append(miss)
        prior, table = self._prior(counts), self._predictor.table
        if device is None or not miss.is_beyond(prior):
            return
        self._say(
            f"{timed.measured_ms:.4f} ms is {100 * math.expm1(miss.log_ratio):+.1f} % off the prediction of "
            f"{predicted_ms:.4f} ms, which should be off by {196 * max(prior, LEAST_PRIOR):.1f} % at most: the layers "
            "that this network depends on most are timed again"
        )
        layers = decisive_layers(self._predictor, self._costs.architecture.shapes(counts))
        try:
            before_ms, after_ms = retime(device, table, layers)
        except TableError as error:
            self._say(f"what they take is not kept: {error}")
            return
        self._say(
            f"{len(layers)} layers: {after_ms:.4f} ms in place of {before_ms:.4f}, for the next search on {table.path}"
        )

    def add_drift(self, original_ms: float, timed: TimedFile, is_relative: bool) -> None:
        """The uncut network as timed today, `original_ms` in the table; by ratios to it the table still holds.

        Raises `JobError` where the device has surely changed too much for any figure of the table to hold: a single
        round, which says nothing of its own error, is told and no more.
        """
        miss = Miss(original_ms, timed.measured_ms, timed.relative_error)
        drift_pct = 100 * math.expm1(miss.log_ratio)
        least = abs(miss.log_ratio) - 1.96 * miss.relative_error
        is_sure = timed.high_ms is not None
        if is_sure and least > math.log(1 + MOST_DRIFT_PCT / 100):
            raise JobError(
                f"the uncut network takes {timed.measured_ms:.4g} ms now, and {original_ms:.4g} ms in "
                f"{self._predictor.table.path}: {drift_pct:+.0f} %. The device is not as it was: name another `table` "
                "and `out`, to time anew"
            )
        if not miss.is_beyond(0.0):
            return
        how = "predictions stay as they are" if drift_pct < 0 else "predictions are shifted by that"
        how = "the speed-up is measured beside it" if is_relative else how
        how = how if is_sure or is_relative else "by one round, which may be chance"
        self._say(f"the uncut network's milliseconds are {drift_pct:+.1f} % off the table's now: {how}")
        if is_sure and not is_relative:
            self._misses.append(miss)

    def _prior(self, counts: Counts) -> float:
        """How far the prediction of a policy may be off: the relative standard error, 0 where the table can't tell."""
        # The predictor's own milliseconds: the uncut network need not be a policy, by `max_keep`.
        shapes = self._costs.architecture.shapes(counts)
        error_ms = self._predictor.standard_error_ms(shapes)
        return 0.0 if error_ms is None else error_ms / self._predictor.ms(shapes)
