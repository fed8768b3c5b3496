"""The shift of a table by networks that were timed: shrunken by what is known of both."""

from __future__ import annotations

import math
import random
import statistics

import pytest
from amc_latency.lut.prediction.correction import LEAST_PRIOR, Miss, shift


def test_nothing_timed_shifts_nothing() -> None:
    assert shift([], 0.02) == 1.0


def test_a_timing_without_error_is_believed() -> None:
    assert shift([Miss(0.2, 0.21, 0.0)], 0.02) == pytest.approx(1.05)
    assert shift([Miss(0.2, 0.2, 0.0)], 0.02) == pytest.approx(1.0)


def test_one_timing_is_shrunk_by_the_variances() -> None:
    # Normal with equal variances: half of the deviation is the prediction's.
    assert shift([Miss(1.0, math.exp(0.02), 0.02)], 0.02) == pytest.approx(math.exp(0.01))
    # Three times the error of the timing, nine times the variance: a tenth.
    assert shift([Miss(1.0, math.exp(0.02), 0.06)], 0.02) == pytest.approx(math.exp(0.002))


def test_two_timings_are_as_the_formula_of_two_normals_says() -> None:
    variance, error, share = 0.03**2, 0.02**2, 0.5
    a, b = 0.01, 0.03
    # Covariance of both with the second one's own error, by hand: [v s, v] (K + e I)^-1 [a, b].
    k = [[variance + error, share * variance], [share * variance, variance + error]]
    determinant = k[0][0] * k[1][1] - k[0][1] ** 2
    weights = [(k[1][1] * a - k[0][1] * b) / determinant, (k[0][0] * b - k[0][1] * a) / determinant]
    expected = share * variance * weights[0] + variance * weights[1]
    misses = [Miss(1.0, math.exp(a), 0.02), Miss(1.0, math.exp(b), 0.02)]
    assert shift(misses, 0.03) == pytest.approx(math.exp(expected))


def test_shrinking_is_nearer_to_the_truth_than_the_last_ratio() -> None:
    rng = random.Random(0)
    shrunk, last = [], []
    for _ in range(2000):
        shared = rng.gauss(0, 0.02 * math.sqrt(0.5))
        truths = [shared + rng.gauss(0, 0.02 * math.sqrt(0.5)) for _ in range(2)]
        seen = [truth + rng.gauss(0, 0.03) for truth in truths]
        misses = [Miss(1.0, math.exp(each), 0.03) for each in seen]
        shrunk.append((math.log(shift(misses, 0.02)) - truths[-1]) ** 2)
        last.append((seen[-1] - truths[-1]) ** 2)
    assert statistics.fmean(shrunk) < 0.5 * statistics.fmean(last)


def test_a_miss_that_the_prior_does_not_allow_is_believed_all_the_same() -> None:
    assert shift([Miss(1.0, 1.5, 0.01)], 0.005) == pytest.approx(1.5, rel=0.005)


def test_a_miss_that_the_timings_own_error_explains_does_not_widen_the_prior() -> None:
    # Variances .01^2 and .04^2: a 17th is the prediction's, though the miss is three times the prior.
    assert shift([Miss(1.0, math.exp(0.03), 0.04)], 0.01) == pytest.approx(math.exp(0.03 / 17))
    # Of .05^2 the timing explains .03^2, so .04^2 are the prediction's.
    assert shift([Miss(1.0, math.exp(0.05), 0.03)], 0.01) == pytest.approx(math.exp(0.05 * 16 / 25))


def test_what_lies_beyond_is_by_both_errors() -> None:
    assert not Miss(1.0, 1.03, 0.01).is_beyond(0.015)
    assert Miss(1.0, 1.05, 0.01).is_beyond(0.015)
    assert Miss(1.0, math.exp(1.97 * LEAST_PRIOR), 0.0).is_beyond(0.0)
    assert not Miss(1.0, math.exp(1.95 * LEAST_PRIOR), 0.0).is_beyond(0.0)
