"""Which form a calibration takes, from networks of arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from amc_latency.lut.prediction.calibration import (
    Calibration,
    calibration_error,
    fit_calibration,
    outputs_mb,
    weights_mb,
)
from amc_latency.lut.shapes.shape import LayerShape


def networks(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Sums in ms and megabytes of outputs, which grow together but not in step."""
    rng = np.random.default_rng(seed)
    sums = np.sort(rng.uniform(1.0, 10.0, n))
    return sums, 3.0 + 2.0 * np.sqrt(sums) * rng.uniform(0.8, 1.2, n)


def test_networks_that_pay_for_cold_weights_get_a_term_for_outputs() -> None:
    sums, outputs = networks(12)
    measured = 1.1 * sums - 0.02 * outputs
    fit = fit_calibration(sums, measured, {"outputs": outputs})
    assert fit.term == "outputs"
    assert (fit.scale, fit.per_unit_ms, fit.offset_ms) == pytest.approx((1.1, -0.02, 0.0))
    assert fit.ms(5.0, 7.0) == pytest.approx(1.1 * 5.0 - 0.02 * 7.0)
    assert fit.fitted(5.0, 7.0) == (5.0, 7.0)


def test_a_fixed_overhead_gets_an_offset() -> None:
    sums, outputs = networks(12)
    fit = fit_calibration(sums, 1.05 * sums + 0.2, {"outputs": outputs})
    assert fit.term == "offset"
    assert (fit.scale, fit.offset_ms, fit.per_unit_ms) == pytest.approx((1.05, 0.2, 0.0))
    assert fit.fitted(5.0, 7.0) == (5.0, 1.0)


def test_few_networks_or_nearly_alike_ones_leave_no_choice() -> None:
    sums, outputs = networks(7)
    assert fit_calibration(sums, 1.1 * sums - 0.02 * outputs, {"outputs": outputs}).term == "offset"
    alike = np.linspace(5.0, 6.0, 12)
    fit = fit_calibration(alike, 1.1 * alike, {"outputs": np.linspace(1, 9, 12)})
    assert (fit.term, fit.fitted(5.0, 7.0)) == ("none", (5.0,))
    assert fit_calibration(sums[:3], sums[:3]) == Calibration(networks=3)


def test_the_error_is_that_of_the_chosen_form() -> None:
    sums, outputs = networks(14, seed=1)
    noise = np.random.default_rng(2).normal(0, 0.01, 14)
    measured = (1.1 * sums - 0.02 * outputs) * (1 + noise)
    assert fit_calibration(sums, measured, {"outputs": outputs}).term == "outputs"
    error = calibration_error(sums, measured, [0.0] * 14, {"outputs": outputs})
    assert error is not None
    # NumPy's own least squares, with the relative residuals' variance.
    columns = np.stack([sums, outputs], axis=1) / measured[:, None]
    solution, residue, *_ = np.linalg.lstsq(columns, np.ones(14), rcond=None)
    np.testing.assert_allclose(error.covariance, np.linalg.inv(columns.T @ columns) * residue[0] / 12, rtol=1e-9)
    assert solution[1] < 0


def test_networks_that_outgrow_the_cache_get_a_term_for_weights() -> None:
    sums, outputs = networks(12)
    weights = np.random.default_rng(5).uniform(0.1, 4.0, 12)
    fit = fit_calibration(sums, 0.98 * sums + 0.1 * weights, {"outputs": outputs, "weights": weights})
    assert fit.term == "weights"
    assert (fit.scale, fit.per_unit_ms, fit.offset_ms) == pytest.approx((0.98, 0.1, 0.0))
    layers = (LayerShape("conv", 3, 32, 224, 224, 3, 2, 1), LayerShape("linear", 32, 10))
    parameters = 3 * 32 * 9 + 32 + 32 * 10 + 10
    assert fit.amount(layers) == weights_mb(layers) == pytest.approx(4 * parameters / 1e6)
    assert Calibration(term="offset").amount(layers) == 0.0


def test_outputs_are_counted_as_float32() -> None:
    layers = (LayerShape("conv", 3, 32, 224, 224, 3, 2, 1), LayerShape("linear", 32, 10))
    assert outputs_mb(layers) == pytest.approx((32 * 112 * 112 + 10) * 4 / 1e6)


def test_operators_that_are_cheaper_among_others_get_a_term_of_their_own() -> None:
    sums, outputs = networks(12)
    operators = np.array([0.0, 0, 0, 0, 31, 31, 35, 25, 9, 14, 31, 20])
    traffic = {"outputs": outputs, "quantised": operators}
    fit = fit_calibration(sums, 0.97 * sums - 0.001 * operators, traffic)
    assert fit.term == "quantised"
    assert (fit.scale, fit.per_unit_ms) == pytest.approx((0.97, -0.001))
    layers = (
        LayerShape("quantize", 3, 3, 8, 8, precision="int8"),
        LayerShape("conv", 3, 8, 8, 8, precision="int8"),
        LayerShape("dequantize", 8, 8, 8, 8, precision="int8"),
        LayerShape("depthwise", 8, 8, 8, 8, 3, 1, 1),
    )
    assert fit.amount(layers) == 3.0
    # Of float32 networks alone nothing can be told of it.
    assert fit_calibration(sums, 0.97 * sums + 0.1, {"quantised": 0 * operators}).term == "offset"
