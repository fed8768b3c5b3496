"""Standard errors against arithmetic, NumPy's and SciPy's own, and against how often they hold in simulated worlds."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from amc_latency.device.base import Summary, Timing
from amc_latency.lut.prediction.calibration import calibration_error, fit_calibration
from amc_latency.lut.prediction.predict import Predictor
from amc_latency.lut.prediction.uncertainty import RowErrors, relative_variance, sum_variance
from amc_latency.lut.shapes.shape import NOOP, LayerShape, NetworkShape, network_text
from amc_latency.lut.table.table import LatencyTable

from tests.lut.scripted_device import IDENTITY, OFFSET_US, PROTOCOL, SCALE, small_architecture

WIDE, NARROW = LayerShape("conv", 8, 32, 8, 8), LayerShape("conv", 8, 16, 8, 8)


def test_the_gap_above_the_smallest_tells_its_error() -> None:
    # 0.3 above 10, of three rounds: s/3 is two thirds of the gap, whose square has twice its mean square.
    assert relative_variance([10.3, 11.0, 10.0], "min") == pytest.approx((0.3 * 2 / 3) ** 2 / 2 / 10**2)
    assert relative_variance([10.0], "min") is None


@pytest.mark.parametrize("rounds", [2, 3, 9])
def test_the_variance_of_the_smallest_is_right_on_average(rounds: int) -> None:
    draws = 1000 + np.random.default_rng(1).exponential(1.0, (20_000, rounds))
    claimed = np.mean([relative_variance(row, "min") for row in draws.tolist()]) * 1000**2
    assert claimed == pytest.approx(draws.min(axis=1).var(), rel=0.1)


@pytest.mark.parametrize("rounds", [2, 3, 4, 5, 9, 12])
@pytest.mark.parametrize("statistic", ["median", "mean"])
def test_the_variance_of_median_and_mean_is_right_on_average(statistic: str, rounds: int) -> None:
    draws = np.random.default_rng(2).normal(1000.0, 1.0, (20_000, rounds))
    claimed = np.mean([relative_variance(row, statistic) for row in draws.tolist()]) * 1000**2
    assert claimed == pytest.approx(getattr(np, statistic)(draws, axis=1).var(), rel=0.06)


def table_of(path: Path, rows: dict[str, list[float]]) -> LatencyTable:
    table = LatencyTable.create(path, IDENTITY, PROTOCOL)
    for key, rounds_us in rows.items():
        for i, us in enumerate(rounds_us):
            table.append(Timing(key, i, 5, Summary(us, us, us, 0), None))
    return table


def test_a_layers_own_spread_is_drawn_to_that_of_its_kind(tmp_path: Path) -> None:
    pool = LayerShape("global_pool", 8, 8, 8, 8)
    rows = {NOOP.text: [1, 1], WIDE.text: [100, 104], NARROW.text: [50, 50], pool.text: [10]}
    errors = RowErrors(table_of(tmp_path / "t.tsv", rows))
    own = (0.04 / 2) ** 2 / 2  # of WIDE; NARROW's two rounds agree
    kind = own / 2
    assert errors.variance(WIDE) == pytest.approx((4 * kind + own) / 5)
    assert errors.variance(NARROW) == pytest.approx(4 * kind / 5)
    assert errors.variance(LayerShape("conv", 8, 24, 8, 8)) == pytest.approx(kind)
    # Nothing is known of pools, so they are taken to be like the rest: three rows with two rounds.
    assert errors.variance(pool) == pytest.approx(own / 3)


def test_a_shape_that_comes_twice_is_wrong_twice_in_the_same_way() -> None:
    assert sum_variance([(WIDE, 30.0, 3.0), (NARROW, 70.0, 4.0)]) == pytest.approx((9 + 16) / 100**2)
    assert sum_variance([(WIDE, 30.0, 3.0), (WIDE, 30.0, 3.0), (NARROW, 40.0, 4.0)]) == pytest.approx(52 / 100**2)
    assert sum_variance([]) == 0


def world(rng: np.random.Generator, n: int, own: float, layers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums and timings of `n` networks: relative errors of `own` and, for each network, of its `layers`."""
    sums = rng.uniform(1.0, 8.0, n)
    errors = rng.normal(0, 1, n) * np.sqrt(own**2 + layers**2)
    return sums, (1.07 * sums - 0.05) * (1 + errors)


def test_the_fits_covariance_is_that_of_numpy() -> None:
    sums, measured = world(np.random.default_rng(3), 12, 0.02, np.zeros(12))
    error = calibration_error(sums, measured, [0.0] * 12)
    assert error is not None
    _, covariance = np.polyfit(sums, measured, 1, w=1 / measured, cov=True)
    np.testing.assert_allclose(error.covariance, covariance, rtol=1e-9)
    assert error.freedom == 10
    assert error.layers_share == 1


def test_the_quantile_is_students() -> None:
    error = calibration_error(*world(np.random.default_rng(4), 6, 0.02, np.zeros(6)), [0.0] * 6)
    assert error is not None
    # Any printed table of Student's t, four degrees of freedom.
    assert error.quantile(0.975) == pytest.approx(2.776, abs=5e-4)
    assert error.quantile(0.95) == pytest.approx(2.132, abs=5e-4)
    assert error.quantile(0.5) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("claimed", [0.003, 0.01, 0.3])
def test_nothing_is_counted_twice(claimed: float) -> None:
    """What the rows claim of layers, if alike for all networks, moves no standard error: residuals hold it already."""
    sums, measured = world(np.random.default_rng(5), 10, 0.02, np.zeros(10))
    without = calibration_error(sums, measured, [0.0] * 10)
    claiming = calibration_error(sums, measured, [claimed**2] * 10)
    assert without is not None
    assert claiming is not None
    expected = without.standard_error_ms((4.0, 1.0), 4.2, 0.0)
    assert claiming.standard_error_ms((4.0, 1.0), 4.2, claimed**2) == pytest.approx(expected, rel=0.02)
    assert (claiming.layers_share < 1) == (claimed == 0.3)


@pytest.mark.parametrize("networks", [4, 13])
@pytest.mark.parametrize("own", [0.002, 0.015])
def test_as_many_lie_inside_as_the_interval_says(networks: int, own: float) -> None:
    rng = np.random.default_rng(6)
    inside = above = 0
    for _ in range(2000):
        layers = rng.choice([0.004, 0.012], networks + 1)
        sums, measured = world(rng, networks + 1, own, layers)
        fit = fit_calibration(sums[:-1], measured[:-1])
        error = calibration_error(sums[:-1], measured[:-1], layers[:-1] ** 2)
        assert error is not None
        predicted_ms = fit.scale * sums[-1] + fit.offset_ms
        error_ms = error.standard_error_ms(fit.fitted(sums[-1], 0.0), predicted_ms, layers[-1] ** 2)
        inside += abs(measured[-1] - predicted_ms) <= error.quantile(0.975) * error_ms
        above += measured[-1] > predicted_ms + error.quantile(0.95) * error_ms
    # Three standard errors of a share of 2,000 are 1.5 %; that of unequal variances is known from few networks.
    assert 0.93 <= inside / 2000 <= 0.97
    assert 0.03 <= above / 2000 <= 0.07


def noisy_table(path: Path, networks: int, noise: float = 0.01) -> tuple[LatencyTable, list[NetworkShape]]:
    """The small network at some widths: layers cost what their channels say, the timings of networks are noisy."""
    rng = np.random.default_rng(7)
    architecture = small_architecture()
    shapes = [architecture.shapes((8 * i, 16 * i, 32 * i)) for i in (4, 3, 2, 1)]
    shapes += [architecture.shapes((8 * a, 16 * b, 32 * c)) for a, b, c in ((1, 2, 4), (3, 1, 2), (4, 2, 1))]
    rows = {NOOP.text: [1.0]}
    for network in shapes[:networks]:
        rows |= {shape.text: [1.0 + shape.c_in + shape.c_out] for shape in network}
    for network in shapes[:networks]:
        sum_us = sum(shape.c_in + shape.c_out for shape in network)
        rows[network_text(network)] = [(SCALE * sum_us + OFFSET_US) * (1 + noise * rng.normal())]
    return table_of(path, rows), shapes[:networks]


def test_a_predictor_has_an_interval_about_its_prediction(tmp_path: Path) -> None:
    table, networks = noisy_table(tmp_path / "t.tsv", 7)
    predictor = Predictor(table)
    shapes = networks[1]
    error_ms, interval_ms = predictor.standard_error_ms(shapes), predictor.interval_ms(shapes)
    assert error_ms is not None
    assert interval_ms is not None
    # Seven networks, two coefficients: t of five degrees of freedom.
    assert interval_ms[1] - predictor.ms(shapes) == pytest.approx(2.5706 * error_ms, rel=1e-4)
    assert sum(interval_ms) / 2 == pytest.approx(predictor.ms(shapes))
    assert predictor.margin_ms(shapes, 0.975) == pytest.approx(2.5706 * error_ms, rel=1e-4)
    assert 0.002 < error_ms / predictor.ms(shapes) < 0.03
    assert predictor.interval_ms(shapes, 0.5)[1] < interval_ms[1]


def test_in_state_frame_a_measurement_may_be_of_another_time(tmp_path: Path) -> None:
    table, networks = noisy_table(tmp_path / "t.tsv", 7)
    within_ms = Predictor(table).standard_error_ms(networks[1])
    table.protocol = replace(table.protocol, state="frame")
    predictor = Predictor(table)
    error_ms = predictor.standard_error_ms(networks[1])
    assert within_ms is not None
    assert error_ms is not None
    assert error_ms**2 == pytest.approx(within_ms**2 + (0.008 * predictor.ms(networks[1])) ** 2)


def test_too_few_networks_tell_nothing(tmp_path: Path) -> None:
    table, networks = noisy_table(tmp_path / "t.tsv", 3)
    predictor = Predictor(table)
    assert predictor.standard_error_ms(networks[0]) is None
    assert predictor.interval_ms(networks[0]) is None
    assert predictor.margin_ms(networks[0], 0.95) is None


def test_a_layer_read_between_others_has_the_error_of_reading(tmp_path: Path) -> None:
    """Rows that a smooth surface passes through exactly, and rows that are off it by 5 % either way."""
    counts = [16 * i for i in range(1, 9)]
    shapes = [LayerShape("conv", c_in, c_out, 8, 8) for c_in in counts for c_out in counts if (c_in, c_out) != (48, 64)]
    between = LayerShape("conv", 48, 64, 8, 8)
    signs = np.random.default_rng(8).choice([-1, 1], len(shapes))
    errors = []
    for off in (0.0, 0.05):
        rows = {NOOP.text: [1.0, 1.0]}
        for shape, sign in zip(shapes, signs, strict=True):
            us = (10 + shape.c_in * shape.c_out / 50) * (1 + off * sign)
            rows[shape.text] = [us, us * 1.02]
        predictor = Predictor(table_of(tmp_path / f"{off}.tsv", rows))
        assert predictor.layer_error_us(shapes[0]) == pytest.approx(
            rows[shapes[0].text][0] * 0.01 / math.sqrt(2), rel=1e-2
        )
        errors.append(predictor.layer_error_us(between) / predictor.layer_us(between))
    assert errors[0] < 0.015
    assert 0.02 < errors[1] < 0.1
