"""A process over many points reads as one over all of them does, and a point left out is as if it had never been."""

from __future__ import annotations

import numpy as np
import pytest
from amc_latency.lut.prediction.gaussian import MOST_WHOLE, NEIGHBOURS, LocalProcess, WholeProcess, process
from amc_latency.lut.prediction.interpolate import channels, fit_staircases
from amc_latency.lut.shapes.family import family
from amc_latency.lut.shapes.shape import LayerShape


def kernel(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Smooth over a distance of 0.2."""
    apart = points[..., :, None, :] - others[..., None, :, :]
    return np.exp(-(apart**2).sum(axis=-1) / (2 * 0.2**2))


def scattered(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 1, (n, 2))


def height(points: np.ndarray) -> np.ndarray:
    return np.sin(4 * points[:, 0]) * np.cos(3 * points[:, 1])


def test_few_points_are_taken_together_and_many_by_neighbours() -> None:
    for n, kind in ((MOST_WHOLE, WholeProcess), (MOST_WHOLE + 1, LocalProcess)):
        assert type(process(kernel, 0.01, scattered(n, 0), np.zeros(n))) is kind


def test_neighbours_say_what_all_points_say() -> None:
    points, asked = scattered(700, 0), scattered(60, 1)
    whole, local = (kind(kernel, 0.01, points, height(points)).read(asked) for kind in (WholeProcess, LocalProcess))
    assert local[0] == pytest.approx(height(asked), abs=0.01)
    assert local[0] == pytest.approx(whole[0], abs=0.01)
    # Fewer points never explain more.
    assert np.all(local[1] <= whole[1] + 1e-6)
    assert local[1] == pytest.approx(whole[1], abs=0.001)


def test_a_point_is_left_out_as_if_it_had_not_been_there() -> None:
    points = scattered(NEIGHBOURS + 200, 2)
    values = height(points) + np.random.default_rng(3).normal(0, 0.01, len(points))
    errors = LocalProcess(kernel, 0.01, points, values).left_out_errors()
    assert len(errors) == len(points)
    for index in (0, 100, len(points) - 1):
        rest = np.arange(len(points)) != index
        mean, _ = LocalProcess(kernel, 0.01, points[rest], values[rest]).read(points[[index]])
        assert errors[index] == pytest.approx(mean[0] - values[index], abs=1e-8)


def test_a_family_of_thousands_is_read_like_its_staircase() -> None:
    def us(c_in: int, c_out: int) -> float:
        return 3.0 + -(-c_out // 16) * 16 * (0.5 + 0.02 * c_in)

    rng = np.random.default_rng(5)
    counts = [(int(a), int(b)) for a, b in rng.integers(16, 513, (2500, 2))]
    shapes = {LayerShape("conv", a, b, 14, 14, activation="relu6"): us(a, b) for a, b in counts[:2400]}
    staircase = fit_staircases({family(next(iter(shapes))): shapes}).popitem()[1]
    others = [(a, b) for a, b in counts[2400:] if a >= 32 and b >= 32]
    read = staircase.latency_us(channels([LayerShape("conv", a, b, 14, 14, activation="relu6") for a, b in others]))
    assert read == pytest.approx([us(a, b) for a, b in others], rel=1e-3)
