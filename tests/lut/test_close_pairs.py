"""Pairs of networks that a table tells alike, as `benchmarks/prediction.py` draws and judges them."""

from __future__ import annotations

import itertools

import pytest
from amc_latency.device.rounds.paired import Ratio

from benchmarks.close_pairs import PairTest, pair_test, pairs_within, partners, within


def test_within_is_the_same_both_ways_and_holds_its_edge() -> None:
    assert within(100, 101, 1.01)
    assert within(101, 100, 1.01)
    assert not within(100, 101.01, 1.01)


def test_pairs_are_those_predicted_alike() -> None:
    assert pairs_within([100, 200, 100.5, 101.2, 199]) == [(0, 2), (1, 4), (2, 3)]


def test_partners_are_the_first_that_are_alike_and_no_more_than_needed() -> None:
    ms = {(1,): 150.0, (2,): 100.9, (3,): 100.1, (4,): 201.0, (5,): 99.5}
    # The first network's is not the nearest; with it and the second one's there are two pairs.
    assert partners([100, 200], ms, ms.__getitem__, pairs=2) == [(2,), (4,)]
    # 100, 100.9 and 100.1 are three pairs, and 200 and 201 the fourth.
    assert partners([100, 200], ms, ms.__getitem__, pairs=4) == [(2,), (4,), (3,)]
    assert partners([100, 200], ms, ms.__getitem__, pairs=0) == []
    assert partners([500], ms, ms.__getitem__, pairs=1) == []


def test_a_pair_is_judged_by_the_ratio_of_its_rounds() -> None:
    slow = [1.0, 2.0, 1.0, 1.5, 1.0, 1.2]
    # The second is 2 % above the first in each round, however slow that was; the third 5 %.
    rounds = [[100 * factor * f for f in slow] for factor in (1.0, 1.02, 1.05)]
    found = pair_test([10.0, 10.01, 10.02], rounds, seed=0)
    assert sorted(ratio.value for ratio in found.ratios) == pytest.approx([1 / 1.05, 1.02 / 1.05, 1 / 1.02])
    # 1.05 / 1.02 is 2.94 %.
    assert (found.alike, found.apart) == (2, 1)
    assert found.most_pct == pytest.approx(5)


def test_no_more_pairs_are_drawn_than_asked_for_and_none_twice() -> None:
    factors = [1 + i / 1000 for i in range(9)]
    rounds = [[factor, factor] for factor in factors]
    found = pair_test([10.0] * 9, rounds, seed=3, pairs=20)
    values = [round(ratio.value, 9) for ratio in found.ratios]
    every = {round(a / b, 9) for a, b in itertools.combinations(factors, 2)}
    assert len(set(values)) == 20
    assert set(values) <= every


def test_a_wide_interval_says_neither() -> None:
    unsure = PairTest([Ratio(1.04, 0.9, 1.2, 3)])
    assert (unsure.alike, unsure.apart) == (0, 0)
    assert PairTest([]).most_pct == 0
