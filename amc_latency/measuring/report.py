"""Results as text for a terminal."""

from __future__ import annotations

import math

from rich.table import Table

from amc_latency.console import number_column, put, table_console
from amc_latency.lut.building.learn import NOISE_ROOM
from amc_latency.measuring.prediction import Prediction, share_text
from amc_latency.measuring.profiling import ProfileReport


def profile_text(report: ProfileReport) -> None:
    """What was timed, and how far predictions are off."""
    put(
        f"{report.table}: {report.rows:,} rows of {report.device}, {report.timed:,} of them timed now in "
        f"{report.seconds:.0f} s\n"
        f"original network {report.original_ms:.4f} ms; {held_out_text(report)}"
    )
    put(layers_text(report))
    if report.incomplete:
        put(f"{report.incomplete} of them failed in some rounds; the same command tries these again")
    if report.suspect:
        put(suspect_text(report))


def layers_text(report: ProfileReport) -> str:
    """How well layers are told that were not timed, and whether noise stood in the way of more."""
    text = f"{report.layers:,} layers in the table"
    if report.layers_mape_pct is None or report.goal_pct is None:
        return text
    text += (
        f"; others, picked by chance, were predicted to {report.layers_mape_pct:.2f} "
        f"(+- {report.layers_standard_error_pct:.2f}) % on average, {report.layers_max_pct:.2f} % at most"
    )
    if report.layers_mape_pct <= report.goal_pct:
        return text
    if not report.layers_left:
        return f"{text}; now all that a search may reach are timed"
    noise_pct = report.layers_noise_pct or 0.0
    missed = f"{text}, which misses the goal of {report.goal_pct:g} %"
    if report.layers_mape_pct <= NOISE_ROOM * noise_pct:
        return (
            f"{missed}: a layer's own timing is off by {noise_pct:.2f} % here by chance. On a quieter device, or with "
            "more rounds, a new table would be better"
        )
    return (
        f"{missed}, by more than chance explains, {noise_pct:.2f} %: see `amc-latency lut check {report.table}`; "
        "the plan grid times more"
    )


def suspect_text(report: ProfileReport) -> str:
    """How much of a table cannot be trusted, and why."""
    return (
        f"{report.suspect:,} of {report.rows:,} rows cannot be trusted, most often because of: {report.suspect_because}"
    )


def held_out_text(report: ProfileReport) -> str:
    """What predictions are worth, in words."""
    if not report.calibrated:
        return "too few networks on this grid to calibrate on: predictions are the layers' sums"
    if report.held_out_mape_pct is None or report.held_out_max_pct is None:
        return "no network was held out of the calibration"
    return (
        "networks held out of the calibration are predicted to "
        f"{report.held_out_mape_pct:.2f} % on average, {report.held_out_max_pct:.2f} % at most"
    )


def prediction_text(report: Prediction) -> None:
    """A row a layer, then the sums."""
    table = Table("layer", "shape", number_column("MACs"), number_column("ms"))
    for layer in report.layers:
        table.add_row(layer.name, layer.shape, f"{layer.macs:,}", _ms(layer.ms))
    table_console().print(table)
    put(f"{report.macs:,} MACs, {report.params:,} parameters")
    if report.predicted_ms is None and report.covers_pct:
        put(
            f"at least {_ms(report.raw_ms)} ms, which the layers sum to that the table covers: "
            f"{share_text(report.covers_pct)} of {report.ops} ops"
        )
    if report.predicted_ms is not None:
        whence = (
            "; estimated, not measured"
            if report.estimated
            else f"; the layers sum to {_ms(report.raw_ms)} ms before the calibration on {report.calibration_networks} "
            f"networks; the table covers 100 % of {report.ops} ops"
        )
        put(f"{report.predicted_ms:.4f} ms{_error(report)}{whence}")


def _error(report: Prediction) -> str:
    if report.standard_error_ms is None or report.interval_ms is None:
        return "" if report.estimated else " predicted"
    low, high = report.interval_ms
    # Two digits of the error, and as many decimals of the ends.
    decimals = max(0, 1 - math.floor(math.log10(report.standard_error_ms))) if report.standard_error_ms > 0 else 4
    return (
        f" +- {report.standard_error_ms:.{decimals}f} predicted, 95 % between {low:.{decimals}f} and "
        f"{high:.{decimals}f}"
    )


def _ms(ms: float | None) -> str:
    return "" if ms is None else f"{ms:.4f}"
