"""What `benchmarks/repeatability.py` counts from its raw rounds, by figures that can be worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from amc_latency.device.base import Protocol

from benchmarks.repeatability_figures import (
    CLOCKS,
    FORMER,
    NOOP,
    SPEEDS,
    STATISTICS,
    Candidate,
    Rounds,
    Row,
    candidates,
    complete,
    default_candidate,
    deviation_pct,
    difference_pct,
    figures_of,
    left_out_errors_pct,
    ordered_pairs,
    reloading,
    shown_candidates,
    table_lines,
)

MEDIAN = Candidate("frame", "median", "median", "cpu", "reference", 3)
NETWORKS = {"small": ["a"], "large": ["a", "b", "b"]}


def row(workload: str, us: float, repeat: int = 0, round_index: int = 0, state: str = "frame") -> Row:
    """`us` is the median of the CPU clock at reference speed; all else is a thousand times that."""
    figures = {c: {s: dict.fromkeys(STATISTICS, 1000 * us) for s in SPEEDS} for c in CLOCKS}
    figures["cpu"]["reference"]["median"] = us
    return Row(repeat, round_index, workload, state, 0.0, 300.0, figures)


def small_rounds() -> Rounds:
    """Two networks in three rounds, layers in one: the sums are 5 - 1 = 4 and 4 + 2 * (4 - 1) = 10."""
    rows = [row(NOOP, 1), row("a", 5), row("b", 4), row("c", 0.5)]
    rows += [row("small", us, round_index=i) for i, us in enumerate((4, 9, 5))]
    rows += [row("large", us, round_index=i) for i, us in enumerate((10, 10, 90))]
    return Rounds(rows, repeats=1, rounds=3)


def test_a_latency_is_the_median_or_the_least_of_the_first_rounds() -> None:
    rounds = small_rounds()
    assert rounds.latency_us("small", MEDIAN) == [5]
    assert rounds.latency_us("small", replace(MEDIAN, over="min")) == [4]
    assert rounds.latency_us("small", replace(MEDIAN, rounds=2)) == [6.5]
    assert rounds.latency_us("small", replace(MEDIAN, clock="wall")) == [5000]


def test_sums_are_of_layers_less_the_noop_each_and_never_below_zero() -> None:
    rounds = small_rounds()
    assert rounds.sums_us(NETWORKS, MEDIAN).tolist() == [[4, 10]]
    assert rounds.sums_us({"fast": ["c", "a"]}, MEDIAN).tolist() == [[4]]


def test_errors_are_of_networks_that_the_scale_has_not_seen() -> None:
    errors = left_out_errors_pct(np.array([1.0, 2.0, 4.0]), np.array([2.0, 4.0, 10.0]))
    # The first two ask for a scale of 2, and the third takes 10 where that says 8.
    assert errors[2] == pytest.approx(-20)
    # Least relative squares of ratios .5 and .4: (.5 + .4) / (.25 + .16).
    assert errors[0] == pytest.approx(100 * (0.9 / 0.41 * 0.5 - 1))


def test_deviation_and_difference_are_each_networks_over_repeats() -> None:
    latencies = np.array([[1.0, 10.0], [3.0, 10.0]])
    assert deviation_pct(latencies) == pytest.approx([100 * math.sqrt(2) / 2, 0])
    assert difference_pct(latencies) == pytest.approx([200, 0])


def test_close_pairs_are_told_by_the_other_repeats() -> None:
    # The first two are 2 % apart but for the last repeat, which has them the other way round.
    latencies = np.array([[100.0, 102.0, 150.0], [100.0, 102.0, 150.0], [101.0, 100.0, 150.0]])
    # Repeats 0 and 1 see the others' means 100.5 and 101: not 1 % apart. The last sees 2 %, and is wrong.
    assert ordered_pairs(latencies) == (0, 1)
    assert ordered_pairs(latencies[[0, 1]]) == (2, 2)


def test_one_repeat_has_no_repeatability() -> None:
    found = figures_of(small_rounds(), NETWORKS, MEDIAN)
    assert (found.deviation_pct, found.difference_pct, found.rank, found.close) == (None, None, None, 0)
    assert found.sums_rank == pytest.approx(1)
    # 4 for 5 and 10 for 10: each is told by the other's ratio.
    assert (found.mape_pct, found.max_pct) == pytest.approx((22.5, 25))


def test_the_default_is_the_devices_protocol_and_marked() -> None:
    protocol = Protocol(state="frame", statistic="median", rounds=3)
    default = default_candidate(protocol)
    assert default == Candidate("frame", "median", "median", "cpu", "reference", 9)
    assert len(candidates([3, 9, 27])) == len(set(candidates([3, 9, 27]))) == 2 * 4 * 2 * 2 * 2 * 3
    shown = shown_candidates([3, 9, 27], default, every=False)
    # Itself, one other state, clock, speed and statistic over rounds, three statistics, two numbers, and the former.
    assert len(shown) == 1 + 4 + 3 + 2 + 1
    assert {default, FORMER} <= set(shown)
    lines = table_lines([figures_of(small_rounds(), NETWORKS, each) for each in (MEDIAN,)], MEDIAN)
    assert lines[1].endswith("<- default")


def test_a_repeat_that_was_broken_off_is_made_anew_and_counts_once() -> None:
    rows = [row("a", 1), row("b", 1), row("a", 1, repeat=1), row("a", 2, repeat=1), row("b", 2, repeat=1)]
    kept = complete(rows, expected=2)
    assert {repeat: len(some) for repeat, some in kept.items()} == {0: 2, 1: 2}
    assert {each.figures_us["cpu"]["reference"]["median"] for each in kept[1]} == {2}
    assert list(complete(rows[:3], expected=2)) == [0]


def test_reloading_compares_each_process_with_the_fresh_ones_of_its_minutes() -> None:
    # The second process met a computer at half its speed, and so did the fresh ones.
    found = reloading("net", fresh=[[9.0, 11.0], [18.0, 22.0]], reloaded=[[10.0, 10.0], [20.0, 20.0]])
    assert found.fresh_pct == pytest.approx(100 * math.sqrt(2) / 10)
    assert (found.reloaded_pct, found.processes_pct) == pytest.approx((0, 0))
    assert found.expected_pct == pytest.approx(10)
    assert found.ratio.value == pytest.approx(1)
