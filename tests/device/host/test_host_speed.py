"""How speeds cancel: samples beside the sentinel's, memory and arithmetic apart, by arithmetic alone."""

from __future__ import annotations

from typing import Any

import pytest
from amc_latency.device.host.host_speed import Speed, at_reference, smoothed, summary_of, wandering
from hypothesis import given
from hypothesis import strategies as st

from tests.device.worker_answers import answer


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([5], [5]),
        ([1, 9, 1, 1, 1], [1, 1, 1, 1, 1]),
        ([1, 1, 1, 3, 3, 3], [1, 1, 1, 3, 3, 3]),
        ([1, 2, 3, 4, 5, 6, 7], [2, 2.5, 3, 4, 5, 5.5, 6]),
    ],
)
def test_a_speed_is_the_median_of_five_sentinels(values: list[float], expected: list[float]) -> None:
    assert smoothed(values) == expected


@pytest.mark.parametrize(
    ("sentinel_ns", "share"),
    [
        ([200] * 20, 0.0),
        # Two in twenty alone, however long they took, are luck; half of them are another speed.
        ([200] * 6 + [900] + [200] * 6 + [900] + [200] * 6, 0.0),
        ([200] * 10 + [300] * 10, 0.5),
        ([300] * 10 + [200] * 10, 0.5),
        # The middle 80 %: two in twenty are left out on each side.
        ([200] * 18 + [300] * 2, 0.0),
        ([200, 200, 200, 260, 260, 260], 0.3),
        ([200], 0.0),
    ],
)
def test_how_far_the_speed_wandered(sentinel_ns: list[int], share: float) -> None:
    assert wandering(sentinel_ns) == pytest.approx(share)


def test_samples_twice_as_long_beside_sentinels_twice_as_long_come_out_the_same() -> None:
    quick, slow = answer([50_000] * 8, [200_000] * 8), answer([100_000] * 8, [400_000] * 8)
    for found in (quick, slow):
        assert at_reference(found, "cpu", "cpu", Speed(200.0, 200.0)) == pytest.approx([50_000] * 8)
        assert at_reference(found, "cpu", "cpu", Speed(300.0, 300.0)) == pytest.approx([75_000] * 8)


def test_minimum_and_median_hold_where_the_speed_changes_midway() -> None:
    samples = [52_000, 50_000, 51_000, 54_000, 53_000]
    changing = answer([*samples, *(3 * ns for ns in samples)], [200_000] * 5 + [600_000] * 5)
    found = summary_of(at_reference(changing, "cpu", "cpu", Speed(200.0, 200.0)))
    assert (found.min_us, found.median_us, found.mean_us) == pytest.approx((50.0, 52.0, 52.0))
    # The speed is the counted clock's, for both clocks: wall time waits for other things too.
    wall = summary_of(at_reference(changing, "wall", "cpu", Speed(200.0, 200.0)))
    assert (wall.min_us, wall.median_us) == pytest.approx((75.0, 78.0))
    other = summary_of(at_reference(changing, "wall", "wall", Speed(200.0, 200.0)))
    assert other.min_us == pytest.approx(75.0 / 2)


def test_each_sample_goes_by_the_sentinel_of_its_own_chunk() -> None:
    # Chunks of four, one and three runs; a run that was read wrongly is missing from the first.
    sentinels = [200_000] * 3 + [400_000] * 3
    found = answer([10_000, 10_000, 10_000, 20_000, 20_000, 20_000, 20_000], sentinels, [0, 0, 2, 3, 3, 3, 5])
    assert at_reference(found, "cpu", "cpu", Speed(100.0, 100.0)) == pytest.approx([5_000] * 7)


def apart(compute: float = 1, memory: float = 1, n: int = 6) -> dict[str, Any]:
    """The sentinel takes 60 us of arithmetic and 40 of memory, the model 20 and 30; either slowed by a factor."""

    def runs(compute_ns: int, memory_ns: int) -> tuple[list[int], list[int]]:
        hot_ns = round(compute * compute_ns)
        return [hot_ns + round(memory * memory_ns)] * n, [hot_ns] * n

    (samples, hot), (sentinels, sentinels_hot) = runs(20_000, 30_000), runs(60_000, 40_000)
    return answer(samples, sentinels, hot_ns=hot, sentinel_hot_ns=sentinels_hot)


@pytest.mark.parametrize(("compute", "memory"), [(1, 1), (2, 1.5), (1, 3), (3, 1)])
def test_arithmetic_and_memory_slowed_apart_come_out_as_at_reference(compute: float, memory: float) -> None:
    slow = apart(compute, memory)
    assert at_reference(slow, "cpu", "cpu", Speed(100.0, 60.0)) == pytest.approx([50_000] * 6)
    assert at_reference(slow, "wall", "cpu", Speed(100.0, 60.0)) == pytest.approx([75_000] * 6)
    # At a reference of half the speed in arithmetic, and a quarter of it in memory.
    assert at_reference(slow, "cpu", "cpu", Speed(280.0, 120.0)) == pytest.approx([2 * 20_000 + 4 * 30_000] * 6)


@pytest.mark.parametrize(
    ("sentinel_hot_us", "reference_hot_us", "expected_us"),
    [
        # Nine of a hundred are too little to tell apart, and fifteen of two hundred: the whole is twice as long.
        (91, 120.0, 100.0),
        (100, 120.0, 100.0),
        # A second run that was even longer.
        (103, 120.0, 100.0),
        (50, 185.0, 100.0),
        (50, 210.0, 100.0),
        (88, 120.0, 20 * 120 / 88 + 30 * 80 / 12),
        (50, 170.0, 20 * 170 / 50 + 30 * 30 / 50),
        (50, 176.0, 20 * 176 / 50 + 30 * (2 / 4)),
        # Memory is set at most four times what the whole would be, which is doubled.
        (88, 20.0, 20 * 20 / 88 + 30 * (4 * 2)),
    ],
)
def test_where_there_is_hardly_memory_the_whole_goes_by_one_speed(
    sentinel_hot_us: int, reference_hot_us: float, expected_us: float
) -> None:
    found = answer([50_000] * 3, [100_000] * 3, hot_ns=[20_000] * 3, sentinel_hot_ns=[1000 * sentinel_hot_us] * 3)
    assert at_reference(found, "cpu", "cpu", Speed(200.0, reference_hot_us)) == pytest.approx([1000 * expected_us] * 3)


@given(st.lists(st.tuples(*[st.integers(1_000, 900_000)] * 4), min_size=1, max_size=30), st.floats(0.05, 1.2))
def test_no_sample_is_set_to_less_than_nothing(runs: list[tuple[int, int, int, int]], hot_share: float) -> None:
    found = answer(*([run[place] for run in runs] for place in (0, 1)), hot_ns=[run[2] for run in runs],
                   sentinel_hot_ns=[run[3] for run in runs])  # fmt: skip
    assert all(sample > 0 for sample in at_reference(found, "cpu", "cpu", Speed(100.0, 100.0 * hot_share)))


def test_luck_of_single_second_runs_is_left_out_and_of_samples_is_not() -> None:
    # Samples of 85 us, 40 of them arithmetic, beside 180 and 120.
    found = apart(2, 1.5, n=12)
    # Memory took 10.5 us longer once, 7 at reference speed.
    found["cpu_ns"][2] += 10_500
    found["hot_cpu_ns"][4] = 70_000
    found["sentinel_hot_cpu_ns"][7] = 150_000
    found["sentinel_cpu_ns"][9] = 400_000
    expected = [50_000] * 12
    expected[2] = 57_000
    assert at_reference(found, "cpu", "cpu", Speed(100.0, 60.0)) == pytest.approx(expected)


def test_second_runs_go_by_the_speed_of_their_own_chunk() -> None:
    found, slow = apart(n=4), apart(2, 1.5, n=4)
    for name, values in slow.items():
        found[name] += [4 + chunk for chunk in values] if name == "chunk" else values
    # A run that was read wrongly is missing, and its second run with it.
    for name in ("chunk", "cpu_ns", "wall_ns", "hot_cpu_ns", "hot_wall_ns"):
        del found[name][2]
    assert at_reference(found, "cpu", "cpu", Speed(100.0, 60.0)) == pytest.approx([50_000] * 7)
