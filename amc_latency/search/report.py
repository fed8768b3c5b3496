"""A search's result as text for a terminal, and as a page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from amc_latency.estimating import bench_advice
from amc_latency.report import WIDTH, console, right
from amc_latency.search.config import SearchReport
from amc_latency.search.folder import TimedFile


def search_text(report: SearchReport) -> None:
    """Original, uniform width and ours, then the policy and the files."""
    _write_search(report, console())


def search_html(report: SearchReport, settings: Mapping[str, Any], measurements: Sequence[TimedFile]) -> str:
    """The same as a page of its own for the run folder, with the settings and every timing on the way."""
    page = Console(record=True, file=io.StringIO(), width=WIDTH)
    target = "no latency target" if report.target_ms is None else f"{report.target_ms:.4f} ms"
    page.print(f"{settings['model']} for {target} on {report.device}", style="bold", markup=False)
    _write_search(report, page)
    told = _told(report)
    columns = ("attempt", "what", right("predicted ms"), right(f"{told} ms"), "kept")
    timings = Table(*columns, title="estimates" if report.estimated else "timings")
    for row in measurements:
        counts = ",".join(map(str, row.counts))
        timings.add_row(str(row.attempt + 1), row.phase, f"{row.predicted_ms:.4f}", f"{row.measured_ms:.4f}", counts)
    page.print(timings)
    page.print("settings: " + ", ".join(f"{name} = {value}" for name, value in settings.items()), markup=False)
    return page.export_html()


def _baselines(report: SearchReport) -> Table:
    columns = ("", right("predicted ms"), right("held back %"), right("policies tried"), "kept")
    table = Table(*columns, title="other ways to choose, under the same budgets, before fine-tuning")
    for row in report.baselines:
        counts = ",".join(map(str, row.counts))
        table.add_row(row.name, f"{row.predicted_ms:.4f}", f"{row.held_back:.2f}", str(row.evaluations), counts)
    return table


def _told(report: SearchReport) -> str:
    return "estimated" if report.estimated else "measured"


def _write_search(report: SearchReport, target: Console) -> None:
    table = Table(
        "",
        *map(right, ("predicted ms", f"{_told(report)} ms", "target ms", "MACs", "size kB", "held back %", "test %")),
        title="held back: after cut and refit, before fine-tuning; test: images that nothing was chosen by, at the end",
        caption="%: agreement with the original, as the images have no labels" if report.unlabelled else None,
    )
    for row in report.rows:
        table.add_row(
            row.name,
            f"{row.predicted_ms:.4f}",
            f"{row.measured_ms:.4f}",
            "" if row.name == "original" or report.target_ms is None else f"{report.target_ms:.4f}",
            f"{row.macs / 1e6:.2f}M",
            f"{row.bytes / 1000:,.0f}",
            f"{row.held_back:.2f}",
            f"{row.accuracy:.2f}",
        )
    target.print(table)
    _, uniform, ours = report.rows
    if report.baselines:
        target.print(_baselines(report))
    lines = [f"{'weights' if report.zipped_bytes else 'channels'} kept: {','.join(map(str, ours.counts))}"]
    if report.zipped_bytes:
        sizes = zip(report.rows, report.zipped_bytes, strict=True)
        lines.append("zipped: " + ", ".join(f"{row.name} {size / 1000:,.0f} kB" for row, size in sizes))
    if ours.counts == uniform.counts:
        lines.append("ours is the uniform width: nothing that was tried did better on the held-back images")
    lines += [f"{row.name}: {row.actual:,} of at most {row.limit:,}" for row in report.budgets]
    lines.append(
        f"{report.episodes} episodes, {report.evaluations} policies tried, "
        f"{report.attempts} attempt{'s' if report.attempts > 1 else ''}, "
        f"{report.seconds:.0f} s; data: {report.data}; {_told(report)}: {report.statistic}"
    )
    if report.confidence is not None and report.bound_ms is not None:
        lines.append(
            f"chosen to stay under {report.bound_ms:.4f} ms with a probability of {100 * report.confidence:g} %: "
            f"a margin of {100 * (report.bound_ms / report.predicted_ms - 1):.1f} %"
        )
    lines += [f"{row.name:9} {row.tflite}" for row in report.rows]
    by_estimate = " by estimate" if report.estimated else ""
    lines.append(f"{'target met' if report.met else 'TARGET NOT MET'}{by_estimate} on {report.device}")
    if report.phone is not None:
        lines.append(f"this result is {bench_advice(report.phone, ours.tflite)}")
    for line in lines:
        target.print(line, markup=False, highlight=False, soft_wrap=True)
