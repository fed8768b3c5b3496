"""Staircases of arithmetic: found, read between, and honest about what they don't know."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from amc_latency.lut.prediction.interpolate import Staircase, channels, fit_staircases
from amc_latency.lut.shapes.family import family, grid_of
from amc_latency.lut.shapes.shape import LayerShape
from hypothesis import given, settings
from hypothesis import strategies as st


def pointwise(c_in: int, c_out: int, size: int = 14) -> LayerShape:
    return LayerShape("conv", c_in, c_out, size, size, activation="relu6")


def depthwise(count: int, size: int = 14) -> LayerShape:
    return LayerShape("depthwise", count, count, size, size, 3, 1, 1, "relu6")


def stepped_us(shape: LayerShape, step: int) -> float:
    """Linear in input channels, flat inside steps of output channels."""
    return 3.0 + -(-shape.c_out // step) * step * (0.5 + 0.02 * shape.c_in)


def fitted(latencies_us: dict[LayerShape, float]) -> Staircase:
    (staircase,) = fit_staircases({family(next(iter(latencies_us))): latencies_us}).values()
    return staircase


def some_pointwise(n: int, seed: int, largest: int = 512) -> list[LayerShape]:
    rng = np.random.default_rng(seed)
    counts = range(24, largest + 1, 8)
    return [pointwise(64, 96 + 8 * i) for i in range(7)] + [
        pointwise(int(rng.choice(counts)), int(rng.choice(counts))) for _ in range(n)
    ]


@pytest.mark.parametrize("step", [8, 12, 16, 24, 32])
def test_a_staircase_of_any_width_is_read_exactly_between_thirty_points(step: int) -> None:
    timed = {shape: stepped_us(shape, step) for shape in some_pointwise(23, seed=step)}
    staircase = fitted(timed)
    others = some_pointwise(200, seed=1000 + step)
    inside = [s for s in others if s.c_in <= max(t.c_in for t in timed) and s.c_in >= min(t.c_in for t in timed)]
    expected = [stepped_us(shape, step) for shape in inside]
    assert staircase.latency_us(channels(inside)) == pytest.approx(expected, rel=1e-3)


def test_a_period_that_is_no_staircase_is_learned() -> None:
    """Depthwise layers that are 10 % slower off a multiple of 16, near 256 channels, and less at more."""

    def us(count: int) -> float:
        return 2.0 + 0.1 * count + (2.5 if count % 16 else 0.0)

    rng = np.random.default_rng(3)
    timed = {depthwise(int(c)): us(int(c)) for c in rng.choice(range(104, 513, 8), 18, replace=False)}
    staircase = fitted(timed)
    inside = range(min(s.c_in for s in timed), max(s.c_in for s in timed) + 1, 8)
    read = staircase.latency_us(channels(map(depthwise, inside)))
    assert read == pytest.approx([us(count) for count in inside], rel=0.01)
    # A straight line through them is off by up to 10 %.
    assert max(us(c + 8) - us(c) for c in inside) > 0.07 * us(256)


def test_a_bend_is_followed_where_it_was_timed() -> None:
    """A cache that is full at 480 channels: from there each channel takes twice as long."""

    def us(count: int) -> float:
        return 0.02 * count + max(0.0, 0.02 * (count - 480))

    timed = {depthwise(count): us(count) for i in range(24) for count in (192 + 32 * i + 8 * (i % 3),)}
    inside = range(min(timed).c_in, max(timed).c_in + 1, 8)
    read = fitted(timed).latency_us(channels(map(depthwise, inside)))
    assert read == pytest.approx([us(count) for count in inside], rel=0.03)


def test_relatives_say_what_a_family_of_few_points_cannot() -> None:
    many = {shape: stepped_us(shape, 24) for shape in some_pointwise(30, seed=1)}
    few = {pointwise(c_in, c_out, 7): stepped_us(pointwise(c_in, c_out, 7), 24) / 4 for c_in, c_out in
           ((64, 64), (64, 256), (256, 64), (256, 256), (128, 128))}  # fmt: skip
    name = family(pointwise(64, 64, 7))
    staircase = fit_staircases({family(pointwise(64, 64)): many, name: few})[name]
    assert staircase.pattern.step == 24
    asked = [pointwise(128, c_out, 7) for c_out in (80, 88, 96, 104)]
    expected = [stepped_us(shape, 24) / 4 for shape in asked]
    assert staircase.latency_us(channels(asked)) == pytest.approx(expected, rel=0.002)


def test_the_standard_error_grows_away_from_what_was_timed_and_covers() -> None:
    rng = np.random.default_rng(5)
    counts = np.arange(104, 1025, 8)

    def us(count: int) -> float:
        return 0.05 * count * (1 + 0.05 * np.sin(count / 60))

    timed_counts = sorted(int(c) for c in rng.choice(counts, 25, replace=False))
    timed = {depthwise(c): us(c) * float(np.exp(rng.normal(0, 0.004))) for c in timed_counts}
    staircase = fitted(timed)
    at, between = channels([depthwise(timed_counts[3])]), channels([depthwise(4096)])
    assert staircase.error(at)[0] < 0.01
    assert staircase.error(between)[0] > 5 * staircase.error(at)[0]
    inside = [int(c) for c in counts if timed_counts[0] <= c <= timed_counts[-1]]
    points = channels([depthwise(c) for c in inside])
    off = np.abs(staircase.latency_us(points) / [us(c) for c in inside] - 1)
    # 95 % lie within two standard errors; some slack for one draw of 25 points.
    assert np.mean(off <= 2 * staircase.error(points) + 0.002) > 0.85


def test_left_out_errors_are_those_of_fits_without_the_point() -> None:
    rng = np.random.default_rng(2)
    timed = {depthwise(c): 0.05 * c * float(np.exp(rng.normal(0, 0.02))) for c in range(64, 513, 32)}
    whole = fitted(timed)
    points, us = channels(timed), np.array(list(timed.values()))
    for left_out in (0, 5, 14):
        rest = [i for i in range(len(us)) if i != left_out]
        # The same formula for both, so that the Gaussian process alone is compared.
        without = Staircase(points[rest], us[rest], False, whole.pattern)
        read = without.latency_us(points[[left_out]])[0]
        assert whole.left_out_errors()[left_out] == pytest.approx(np.log(read / us[left_out]), abs=0.006)


def test_one_odd_count_changes_no_reading() -> None:
    """A row of another network at 301 channels, where all others are multiples of 8 and dip at multiples of 16."""

    def us(count: int) -> float:
        return 2.0 + 0.1 * count + (2.5 if count % 16 else 0.0)

    timed = {depthwise(c): us(c) for c in (104, 112, 120, 128, 200, 208, 232, 304, 312, 368, 392, 448, 496, 504, 512)}
    odd = LayerShape("depthwise", 301, 301, 28, 28, 3, 1, 1, "relu6")
    other = {odd: 30.0, replace(odd, c_in=602, c_out=602): 60.0}
    inside = [depthwise(c) for c in range(104, 513, 8)]
    staircases = fit_staircases({family(inside[0]): timed, family(odd): other})
    expected = [us(shape.c_in) for shape in inside]
    assert staircases[family(inside[0])].latency_us(channels(inside)) == pytest.approx(expected, rel=0.015)


def test_alignments_of_8_are_found_among_all_counts() -> None:
    def us(count: int) -> float:
        return 2.0 + 0.1 * count + (0.0 if count % 8 == 0 else 2.0)

    rng = np.random.default_rng(4)
    counts = sorted({*range(160, 180), *(int(c) for c in rng.choice(range(100, 400), 40, replace=False)), 100, 400})
    inside = [depthwise(c) for c in range(104, 400, 8)]
    read = fitted({depthwise(c): us(c) for c in counts}).latency_us(channels(inside))
    assert read == pytest.approx([us(shape.c_in) for shape in inside], rel=0.02)


@given(st.integers(1, 40), st.lists(st.integers(1, 60), min_size=2, max_size=20, unique=True), st.integers(1, 2000))
def test_most_counts_lie_on_the_grid_and_the_widest_need_not(grid: int, multiples: list[int], more: int) -> None:
    counts = [grid * k for k in multiples]
    found = grid_of([[*counts, max(counts) + more]])
    assert found % grid == 0
    assert sum(count % found == 0 for count in counts) >= 0.9 * len(counts)


def test_a_grid_is_that_of_all_families_together() -> None:
    assert grid_of([[16, 32, 48], [8, 24, 40, 1000]]) == 8
    assert grid_of([[1000], [7]]) == 1
    assert grid_of([range(8, 400, 8), [301, 512]]) == 8


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.integers(1, 64), st.floats(0.05, 5000)), min_size=1, max_size=12, unique_by=lambda t: t[0])
)
def test_any_timings_give_finite_positive_readings(rows: list[tuple[int, float]]) -> None:
    staircase = fitted({depthwise(8 * k): us for k, us in rows})
    points = channels([depthwise(8 * k) for k in range(1, 65)])
    assert np.all(np.isfinite(staircase.latency_us(points)))
    assert np.all(staircase.latency_us(points) > 0)
    assert np.all(np.isfinite(staircase.error(points)))


def test_rows_that_were_fitted_are_not_fitted_again_and_others_are() -> None:
    rows = {pointwise(64, c_out): 5.0 + c_out / 8 for c_out in range(16, 272, 16)}
    name = family(pointwise(64, 64))
    first = fit_staircases({name: rows})[name]
    assert fit_staircases({name: dict(rows)})[name] is first
    changed = rows | {pointwise(64, 64): 2 * rows[pointwise(64, 64)]}
    points = channels([pointwise(64, 64)])
    assert fit_staircases({name: changed})[name].latency_us(points) > 1.2 * first.latency_us(points)
