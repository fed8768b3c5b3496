"""Several searches, one front: which milliseconds go with which accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.table import Table

from amc_latency.android_bench.safe.files import replacing
from amc_latency.console import Console, number_column, put, table_console
from amc_latency.device.base import source_word
from amc_latency.device.kinds import PhoneOptions
from amc_latency.errors import JobError, OptionError
from amc_latency.lut.audit.sweep_plot import as_drawn
from amc_latency.search.config import SearchConfig, listed
from amc_latency.search.records import BUDGET_FIELDS
from amc_latency.search.results.result import SearchReport
from amc_latency.search.run import search
from amc_latency.training.intervals import with_interval


@dataclass(frozen=True)
class FrontPoint:
    """One network of the front."""

    name: str
    """`ours` or `uniform` at a target, or `original`"""
    target_ms: float | None
    measured_ms: float
    accuracy: float
    """percent of the test images, fine-tuned"""
    on_front: bool
    """no other network here is as fast and more accurate, or as accurate and faster"""
    tflite: str
    accuracy_95: tuple[float, ...] = ()
    """both ends of the 95 % interval of `accuracy`"""


@dataclass(frozen=True)
class Front:
    """What a front ends with."""

    points: list[FrontPoint]
    plot: str
    folder: str
    missed_ms: list[float]
    """targets that were not met"""
    estimated: bool
    """True if no device was there: every `measured_ms` is what its cost model says"""
    unlabelled: bool = False
    """True if the images have no labels: every accuracy is agreement with the original network"""


def pareto_search(
    config: SearchConfig, targets: int, out: Path, console: Console, phone: PhoneOptions = PhoneOptions()
) -> Front:
    """Search at `targets` latencies in even ratios, from the one of `config` up towards the uncut network.

    Each is a search with a folder of its own within `out`, which goes on where it stopped. Raises `UserError` for
    fewer than 2 targets and for a config without a latency target.
    """
    if targets < 2:
        raise OptionError("pareto", f"{targets} draws no front: give 2 targets or more")
    if not config.has_latency_target:
        raise OptionError(
            "pareto", "needs the fastest target of the front: `target_ms` MILLISECONDS or `speedup` FACTOR"
        )
    if config.limits:
        raise OptionError("pareto", f"is over milliseconds alone: leave {listed(BUDGET_FIELDS, 'and')} out")
    if config.rounds > 1 or config.rounds_density is not None:
        raise OptionError("pareto", "and `rounds` are both many searches: give one of them")
    reports = [_search_at(config, targets - 1, targets, None, out, console, phone)]
    # Where the uncut network meets the fastest target, the others lie above it too.
    for i in reversed(range(0 if reports[0].is_uncut else targets - 1)):
        reports.append(_search_at(config, i, targets, reports[0].original_ms, out, console, phone))
    points = front_points(reports)
    plot = out / "front.png"
    with replacing(plot) as temporary:
        _draw(points, reports[0], temporary)
    missed_ms = [report.target_ms for report in reports if report.is_missed and report.target_ms is not None]
    return Front(points, str(plot), str(out), missed_ms, reports[0].estimated, reports[0].unlabelled)


def check_front(front: Front) -> None:
    """Raise `JobError` if a target was not met."""
    if front.missed_ms:
        raise JobError(
            f"not met: {', '.join(f'{ms:.4g} ms' for ms in front.missed_ms)}; the front of all is {front.plot}"
        )


def front_points(reports: Sequence[SearchReport]) -> list[FrontPoint]:
    """The networks of all reports from the fastest on, the uncut one once, each marked if no other beats it."""
    cut = [report for report in reports if not report.is_uncut]
    rows = [(report.target_ms, row) for report in cut for row in report.rows if row.name != "original"]
    rows.append((None, reports[0].rows[0]))
    rows.sort(key=lambda each: (each[1].measured_ms, -each[1].accuracy))
    points, best = [], -math.inf
    for target_ms, row in rows:
        on_front = row.accuracy > best
        points.append(
            FrontPoint(row.name, target_ms, row.measured_ms, row.accuracy, on_front, row.tflite, row.accuracy_95)
        )
        best = max(best, row.accuracy)
    return points


def front_text(front: Front) -> None:
    """The front as a table."""
    table = Table(
        "",
        number_column("target ms"),
        number_column(f"{source_word(front.estimated)} ms"),
        number_column("test %"),
        "",
        "file",
    )
    for point in front.points:
        target = "" if point.target_ms is None else f"{point.target_ms:.4f}"
        table.add_row(
            point.name,
            target,
            f"{point.measured_ms:.4f}",
            with_interval(point.accuracy, point.accuracy_95),
            "front" if point.on_front else "",
            point.tflite,
        )
    table_console().print(table)
    if front.unlabelled:
        put("%: agreement with the original, as the images have no labels")
    put(f"drawn in {front.plot}")


def _search_at(
    config: SearchConfig,
    step: int,
    targets: int,
    original_ms: float | None,
    out: Path,
    console: Console,
    phone: PhoneOptions,
) -> SearchReport:
    """The search `step` of 0 (least cut) to `targets - 1` (the config's own target)."""
    share = (step + 1) / targets
    if config.speedup is not None:
        config = replace(config, speedup=config.speedup**share)
    elif original_ms is not None and config.target_ms is not None:
        config = replace(config, target_ms=original_ms * (config.target_ms / original_ms) ** share)
    console.say(f"target {targets - step} of {targets}")
    return search(config, out / f"target-{targets - step}", console, phone)


def _draw(points: Sequence[FrontPoint], report: SearchReport, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5))
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, marker in (("ours", "o"), ("uniform", "s"), ("original", "*")):
        own = [point for point in points if point.name == name]
        axes.scatter([p.measured_ms for p in own], [p.accuracy for p in own], marker=marker, label=name)
    front = [point for point in points if point.on_front]
    axes.step([p.measured_ms for p in front], [p.accuracy for p in front], where="post", linewidth=0.8, color="grey")
    axes.set_xlabel(as_drawn(f"{source_word(report.estimated)} ms on {report.device}"))
    axes.set_ylabel("agreement with the original, %" if report.unlabelled else "test accuracy, %")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, format="png", dpi=150)
