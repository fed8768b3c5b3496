"""Intervals against scipy's and by how often they hold the truth; pairs of networks by arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from amc_latency.training.intervals import compare, interval_pct, with_interval


@given(st.integers(1, 100_000), st.floats(0, 1))
def test_a_share_has_the_interval_that_scipy_gives_it(images: int, share: float) -> None:
    right = round(share * images)
    expected = binomtest(right, images).proportion_ci(0.95, method="wilson")
    assert interval_pct(100 * right / images, images) == pytest.approx(
        (100 * expected.low, 100 * expected.high), abs=1e-9
    )


@pytest.mark.parametrize(("images", "share"), [(45, 0.71), (58, 0.776), (500, 0.9), (1000, 0.1)])
def test_it_holds_the_truth_about_as_often_as_it_says(images: int, share: float) -> None:
    covered = 0.0
    for right in range(images + 1):
        low, high = interval_pct(100 * right / images, images)
        covered += binom.pmf(right, images, share) * (low <= 100 * share <= high)
    assert covered == pytest.approx(0.95, abs=0.025)


def test_figures_and_interval_in_words() -> None:
    # 32 of 45, by Wilson's formula: 56.6 to 82.3.
    assert with_interval(71.11, interval_pct(100 * 32 / 45, 45)) == "71.11 (56.6-82.3)"
    assert with_interval(100.0, ()) == "100.00"


def test_two_networks_that_are_right_alike_are_not_told_apart() -> None:
    found = compare("uniform", 3, 3, 45)
    assert found.points == 0
    assert found.low == pytest.approx(-found.high)
    assert found.text.endswith("no difference shown on 45 images")
    same = compare("uniform", 0, 0, 45)
    assert not same.is_shown
    # Not even where every image agrees is the difference known to be 0: d of images * d / (1 - d) = z^2.
    assert same.high == pytest.approx(100 * 1.959964**2 / (45 + 1.959964**2), rel=1e-5)
    assert same.low == pytest.approx(-same.high)


def test_a_difference_is_told_where_chance_hardly_explains_it() -> None:
    # Of 10 images that only one of two gets right, 8 to 2 is a p-value of 0.11; 20 to 3 of 0.0005.
    assert binomtest(8, 10).pvalue > 0.1
    assert not compare("uniform", 8, 2, 500).is_shown
    assert binomtest(20, 23).pvalue < 0.001
    found = compare("uniform", 20, 3, 500)
    assert found.is_shown
    assert found.points == pytest.approx(100 * 17 / 500)
    assert "no difference" not in found.text
    assert found.verdict == f"{found.low:.1f} to {found.high:.1f} points more of 500 images right"
    back = compare("original", 3, 20, 500)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))
    assert back.verdict == found.verdict.replace("more", "fewer")
    assert compare("uniform", 8, 2, 500).verdict == "no difference shown on 500 images"


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 300))
def test_a_difference_is_shown_where_mcnemar_finds_one(gained: int, lost: int, alike: int) -> None:
    images = gained + lost + alike
    if images:
        statistic = (gained - lost) / math.sqrt(gained + lost) if gained + lost else 0.0
        found = compare("uniform", gained, lost, images)
        assert found.is_shown == (abs(statistic) > 1.959964)
        assert -100 <= found.low <= found.points + 1e-9
        assert found.points <= found.high + 1e-9 <= 100 + 2e-9


@pytest.mark.parametrize("kinds", [(0.06, 0.04), (0.2, 0.0), (0.01, 0.01), (0.3, 0.1)])
def test_pairs_hold_the_true_difference_about_as_often_as_they_say(kinds: tuple[float, float]) -> None:
    gained, lost = kinds
    draws = np.random.default_rng(0).multinomial(200, (gained, lost, 1 - gained - lost), size=2000)
    covered = 0
    for (more, fewer, _), times in zip(*np.unique(draws, axis=0, return_counts=True), strict=True):
        found = compare("uniform", int(more), int(fewer), 200)
        covered += times * (found.low <= 100 * (gained - lost) <= found.high)
    assert covered / 2000 >= 0.94
