"""Results as text for a terminal."""

from __future__ import annotations

import io

from rich.console import Console
from rich.table import Column, Table

from amc_latency.prediction import Prediction
from amc_latency.profiling import ProfileReport
from amc_latency.search.config import SearchReport

_WIDTH = 140


def profile_text(report: ProfileReport) -> None:
    """What was timed, and how far predictions are off."""
    print(
        f"{report.table}: {report.rows:,} rows of {report.device}, {report.timed:,} of them timed now in "
        f"{report.seconds:.0f} s\n"
        f"original network {report.original_ms:.4f} ms; {held_out_text(report)}"
    )
    if report.incomplete:
        print(f"{report.incomplete} of them failed in some rounds; the same command tries these again")


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
    table = Table("layer", "shape", right("MACs"), right("ms"))
    for layer in report.layers:
        table.add_row(layer.name, layer.shape, f"{layer.macs:,}", _ms(layer.ms))
    _console().print(table)
    print(f"{report.macs:,} MACs, {report.params:,} parameters")
    if report.predicted_ms is not None:
        print(
            f"{report.predicted_ms:.4f} ms predicted; the layers sum to {_ms(report.raw_ms)} ms before the calibration "
            f"on {report.calibration_networks} networks"
        )


def search_text(report: SearchReport) -> None:
    """Original, uniform width and ours, then the policy and the files."""
    _write_search(report, _console())


def search_html(report: SearchReport) -> str:
    """The same as a page of its own, for the run folder."""
    console = Console(record=True, file=io.StringIO(), width=_WIDTH)
    _write_search(report, console)
    return console.export_html()


def _write_search(report: SearchReport, console: Console) -> None:
    table = Table(
        "",
        *map(right, ("predicted ms", "measured ms", "target ms", "MACs", "size kB", "held back %", "test %")),
        title="held back: after cut and refit, before fine-tuning; test: the standard 10,000 images, at the end",
    )
    for row in report.rows:
        table.add_row(
            row.name,
            f"{row.predicted_ms:.4f}",
            f"{row.measured_ms:.4f}",
            "" if row.name == "original" else f"{report.target_ms:.4f}",
            f"{row.macs / 1e6:.2f}M",
            f"{row.bytes / 1000:,.0f}",
            f"{row.held_back:.2f}",
            f"{row.accuracy:.2f}",
        )
    console.print(table)
    ours = report.rows[-1]
    lines = [f"channels kept: {','.join(map(str, ours.counts))}"]
    if report.best_random_held_back is not None:
        lines.append(f"best of the random policies: {report.best_random_held_back:.2f} % of the held-back images")
    lines.append(
        f"{report.episodes} episodes, {report.attempts} attempt{'s' if report.attempts > 1 else ''}, "
        f"{report.seconds:.0f} s; data: {report.data}; measured: {report.statistic}"
    )
    lines += [f"{row.name:9} {row.tflite}" for row in report.rows]
    lines.append(f"{'target met' if report.met else 'TARGET NOT MET'} on {report.device}")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def right(name: str) -> Column:
    """A column of figures."""
    return Column(name, justify="right")


def _ms(ms: float | None) -> str:
    return "" if ms is None else f"{ms:.4f}"


def _console() -> Console:
    # A piped table keeps its width: 80 columns would fold it.
    console = Console()
    return console if console.is_terminal else Console(width=_WIDTH)
