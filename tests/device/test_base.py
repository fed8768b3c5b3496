"""What all devices share: protocols, orders, and which figure counts."""

from __future__ import annotations

from typing import Any

import pytest
from amc_latency.device.base import DeviceError, Protocol, Summary, Timing, shuffled
from hypothesis import given
from hypothesis import strategies as st

CPU = Summary(min_us=1.0, median_us=2.0, mean_us=3.0, std_us=4.0)
WALL = Summary(min_us=5.0, median_us=6.0, mean_us=7.0, std_us=8.0)


@given(items=st.lists(st.integers()), seed=st.integers(), round_index=st.integers(0, 9))
def test_shuffled_is_a_repeatable_permutation(items: list[int], seed: int, round_index: int) -> None:
    order = shuffled(items, seed, round_index)
    assert sorted(order) == sorted(items)
    assert order == shuffled(tuple(items), seed, round_index)


def test_every_round_and_seed_has_its_own_order() -> None:
    orders = {tuple(shuffled(range(20), seed, round_index)) for seed in range(3) for round_index in range(3)}
    assert len(orders) == 3 * 3
    assert tuple(range(20)) not in orders


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"runs": 0}, "at least one run"),
        ({"rounds": 0}, "at least one run"),
        ({"threads": 0}, "at least one run"),
        ({"warmup": -1}, "at least one run"),
        ({"timeout_s": 0}, "positive time-out"),
        ({"clock": "sun"}, "cpu or wall"),
        ({"statistic": "mode"}, "min, median or mean"),
        ({"threads": 2}, "clock='wall'"),
    ],
)
def test_a_protocol_that_cannot_be_followed_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Protocol(**fields)


@pytest.mark.parametrize(
    ("clock", "statistic", "latency_us"),
    [("cpu", "min", 1.0), ("cpu", "median", 2.0), ("wall", "min", 5.0), ("wall", "median", 6.0)],
)
def test_the_protocol_names_the_figure_that_counts(clock: Any, statistic: Any, latency_us: float) -> None:
    timing = Timing("w", 0, 10, CPU, WALL)
    assert timing.latency_us(Protocol(clock=clock, statistic=statistic)) == latency_us


def test_an_error_row_has_no_latency() -> None:
    with pytest.raises(DeviceError, match="w was not timed: out of order"):
        Timing("w", 0, error="out of order").latency_us(Protocol())
