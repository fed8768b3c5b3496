"""Results as text for a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Column, Table

from amc_latency.prediction import Prediction
from amc_latency.profiling import ProfileReport
from amc_latency.search.config import SearchReport


def profile_text(report: ProfileReport) -> None:
    """What was timed, and how far predictions are off."""
    print(
        f"{report.table}: {report.rows:,} rows of {report.device}, {report.timed:,} of them timed now in "
        f"{report.seconds:.0f} s\n"
        f"original network {report.original_ms:.4f} ms; networks held out of the calibration are predicted to "
        f"{report.held_out_mape_pct:.2f} % on average, {report.held_out_max_pct:.2f} % at most"
    )


def prediction_text(report: Prediction) -> None:
    """A row a layer, then the sums."""
    table = Table("layer", "shape", right("MACs"), right("ms"))
    for layer in report.layers:
        table.add_row(layer.name, layer.shape, f"{layer.macs:,}", _ms(layer.ms))
    _print(table)
    print(f"{report.macs:,} MACs, {report.params:,} parameters")
    if report.predicted_ms is not None:
        print(
            f"{report.predicted_ms:.4f} ms predicted; the layers sum to {_ms(report.raw_ms)} ms before the calibration "
            f"on {report.calibration_networks} networks"
        )


def search_text(report: SearchReport) -> None:
    """Original, uniform width and ours, then the policy and the files."""
    table = Table(
        "",
        *map(right, ("predicted ms", "measured ms", "target ms", "MACs", "size kB", "held back %", "test %")),
        title="held back: after cut and refit, before fine-tuning; test: the standard 10,000 images, at the end",
    )
    for row in report.rows:
        table.add_row(
            row.name,
            f"{row.predicted_ms:.4f}",
            f"{row.measured_ms:.4f}" + (f" ±{row.spread_pct:.1f} %" if row.spread_pct is not None else ""),
            "" if row.name == "original" else f"{report.target_ms:.4f}",
            f"{row.macs / 1e6:.2f}M",
            f"{row.bytes / 1000:,.0f}",
            "" if row.held_back is None else f"{row.held_back:.1f}",
            f"{row.accuracy:.2f}",
        )
    _print(table)
    ours = report.rows[-1]
    print(f"channels kept: {','.join(map(str, ours.counts))}")
    if report.best_random_held_back is not None:
        print(f"best of the random policies: {report.best_random_held_back:.1f} % of the held-back images")
    print(
        f"{report.episodes} episodes, {report.attempts} attempt{'s' if report.attempts > 1 else ''}, "
        f"{report.seconds:.0f} s; data: {report.data}; {report.statistic}"
    )
    for row in report.rows:
        print(f"{row.name:9} {row.tflite}")
    print("target met on the device" if report.met else "TARGET NOT MET on the device")


def right(name: str) -> Column:
    """A column of figures."""
    return Column(name, justify="right")


def _ms(ms: float | None) -> str:
    return "" if ms is None else f"{ms:.4f}"


def _print(table: Table) -> None:
    # A piped table keeps its width: 80 columns would fold it.
    console = Console()
    Console(width=None if console.is_terminal else 140).print(table)
