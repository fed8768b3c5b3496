"""Met is a statement about an interval: its upper end, the figure itself, and what is said of each."""

from __future__ import annotations

import math

import pytest

from amc_latency.search.results.folder import TimedFile
from amc_latency.search.results.verdict import verdict_of


@pytest.mark.parametrize(
    ("ms", "low", "high", "is_under", "is_met", "text"),
    [
        (0.95, 0.93, 0.97, True, True, "target met"),
        (0.98, 0.96, 1.0, True, True, "target met"),
        # Half of 0.06 in 0.98 is 3.1 %.
        (0.98, 0.95, 1.01, True, False, "target met, within the noise: ±3.1 %"),
        (1.0, 0.99, 1.01, True, False, "target met, within the noise: ±1.0 %"),
        (1.02, 0.99, 1.05, False, False, "TARGET NOT MET, by less than the noise: ±2.9 %"),
        (1.02, 1.01, 1.03, False, False, "TARGET NOT MET"),
        (0.9, 0.0, math.inf, True, False, "target met by a single round, which says nothing of its noise"),
        (1.1, 0.0, None, False, False, "TARGET NOT MET by a single round, which says nothing of its noise"),
        # What is predicted has no noise.
        (1.0, 1.0, 1.0, True, True, "target met"),
    ],
)
def test_a_target_of_one_millisecond(
    ms: float, low: float, high: float | None, is_under: bool, is_met: bool, text: str
) -> None:
    found = verdict_of(ms, low, high, 1.0)
    assert (found.is_under, found.is_met, found.text) == (is_under, is_met, text)


def test_without_a_target_all_is_met() -> None:
    assert verdict_of(5.0, 4.0, 6.0, math.inf).is_met
    assert verdict_of(5.0, 0.0, None, math.inf).text == "target met"


@pytest.mark.parametrize(("high", "is_enough"), [(0.99, True), (1.01, False), (None, True)])
def test_an_uncut_network_is_enough_by_its_upper_end_or_by_all_that_a_single_round_says(
    high: float | None, is_enough: bool
) -> None:
    assert TimedFile(0, "final original", (1,), 0.97, 0.97, 1.0, 0.95, high).verdict(1.0).is_enough == is_enough
    assert not TimedFile(0, "final original", (1,), 1.2, 1.2, 1.0, 0.95, high).verdict(1.0).is_enough
