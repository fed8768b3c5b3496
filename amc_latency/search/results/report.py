"""A search's result as text for a terminal, and as a page."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.table import Column, Table

from amc_latency.console import WIDTH, number_column, rich_console, table_console
from amc_latency.device.base import source_word
from amc_latency.measuring.estimating import bench_advice
from amc_latency.search.judge.score import ACCURACY
from amc_latency.search.results.folder import TimedFile
from amc_latency.search.results.result import Row, SearchReport
from amc_latency.training.intervals import interval_pct, with_interval

if TYPE_CHECKING:
    from rich.console import Console

_TITLE = "held back: after cut and refit, before fine-tuning; test: images that nothing was chosen by, at the end"
_TOP5 = "top-5 %: held back,\ntest below"


def search_text(report: SearchReport) -> None:
    """Original, uniform width and ours, then the policy and the files."""
    _write_search(report, table_console())


def search_html(report: SearchReport, settings: Mapping[str, Any], measurements: Sequence[TimedFile]) -> str:
    """The same as a page of its own for the run folder, with the settings and every timing on the way."""
    page = rich_console(record=True, file=io.StringIO(), width=WIDTH)
    target = "no latency target" if report.target_ms is None else f"{report.target_ms:.4f} ms"
    page.print(f"{settings['model']} for {target} on {report.device}", style="bold", markup=False)
    _write_search(report, page)
    told = source_word(report.estimated)
    columns = ("attempt", "what", number_column("predicted ms"), number_column(f"{told} ms"), "kept")
    timings = Table(*columns, title="estimates" if report.estimated else "timings")
    for row in measurements:
        counts = ",".join(map(str, row.counts))
        timings.add_row(str(row.attempt + 1), row.phase, f"{row.predicted_ms:.4f}", f"{row.measured_ms:.4f}", counts)
    page.print(timings)
    page.print("settings: " + ", ".join(f"{name} = {value}" for name, value in settings.items()), markup=False)
    return page.export_html()


def _baselines(report: SearchReport) -> Table:
    has_top5 = any(row.held_back_top5 is not None for row in report.baselines)
    timed = any(row.measured_ms is not None for row in report.baselines)
    top5_column = [number_column("top-5 %")] if has_top5 else []
    figures = [
        number_column("predicted ms"),
        *([number_column("measured ms")] if timed else []),
        number_column("held back %" if report.measure == ACCURACY else report.measure),
        *top5_column,
        number_column("policies tried"),
    ]
    columns: list[Column | str] = ["", *figures, "kept"]
    table = Table(*columns, title="other ways to choose, under the same budgets, before fine-tuning")
    for row in report.baselines:
        counts = ",".join(map(str, row.counts))
        held_back = _figure(report, row.held_back, row.held_back_95)
        top5 = [_top5(row.held_back_top5, report.held_back_images, row.held_back_95)] if has_top5 else []
        measured = [] if not timed else ["" if row.measured_ms is None else f"{row.measured_ms:.4f}"]
        table.add_row(row.name, f"{row.predicted_ms:.4f}", *measured, held_back, *top5, str(row.evaluations), counts)
    return table


def _figure(report: SearchReport, value: float, interval: Sequence[float]) -> str:
    """A percentage of images, or a task's score."""
    return with_interval(value, interval) if report.measure == ACCURACY else f"{value:.4g}"


def _caption(report: SearchReport) -> str | None:
    """What the percentages are of, and what stands in brackets."""
    if not report.test_images:
        return None
    what = "agreement with the original, as the images have no labels" if report.unlabelled else "right"
    images = f"{report.held_back_images:,} images held back and {report.test_images:,} for the test"
    return f"%: {what}, of {images}; in brackets where 95 % of the chance of drawing them lies"


def _kept(row: Row) -> str:
    """Channels of coupled groups, or weights of layers."""
    return ",".join(map(str, row.channels or row.counts))


def _precisions(row: Row) -> str:
    """How many layers are in which precision, and in runs which."""
    counted = ", ".join(f"{count} layers {name}" for name, count in sorted(Counter(row.precisions).items()))
    runs = " ".join(f"{len(list(run))}x{name}" for name, run in groupby(row.precisions))
    return f"{counted}, in order {runs}"


def _pair(report: SearchReport, row: Row) -> str:
    """Top-5 of the held-back images, and below it of the test images."""
    return "\n".join(
        (
            _top5(row.held_back_top5, report.held_back_images, row.held_back_95),
            _top5(row.top5, report.test_images, row.accuracy_95),
        )
    )


def _top5(value: float | None, images: int, top1_interval: Sequence[float]) -> str:
    """Empty where there is none; with an interval where top-1 has one."""
    if value is None:
        return ""
    return with_interval(value, interval_pct(value, images) if images and top1_interval else ())


def _beside_uniform(report: SearchReport) -> str:
    """What the images say of ours beside the uniform width, for the last line."""
    found = [each for each in report.comparisons if each.other == "uniform"]
    if not found or report.rows[-1].counts == report.rows[1].counts:
        return ""
    return f"; beside the uniform width: {found[0].verdict}"


def _with_half(row: Row) -> str:
    """Milliseconds, and half of their 95 % interval where it has a width."""
    if not row.measured_95 or row.measured_95[0] == row.measured_95[1]:
        return f"{row.measured_ms:.4f}"
    return f"{row.measured_ms:.4f} ±{(row.measured_95[1] - row.measured_95[0]) / 2:.4f}"


def _shares(report: SearchReport) -> list[str]:
    """How much faster than the original the others are, by rounds in which all were timed in turn."""
    lines = []
    for row in report.rows[1:]:
        if row.share_95 and not report.is_uncut:
            share, low, high = row.share_95
            interval = "" if low == high else f" (95 %: {1 / high:.3f} to {1 / low:.3f})"
            lines.append(f"{row.name}: {1 / share:.3f} times as fast as the original in {row.rounds} rounds{interval}")
    return lines


def _of_files(report: SearchReport) -> list[str]:
    """What the files themselves are worth, which ship: the table's figures are of the networks in PyTorch."""
    rows = report.rows[:1] if report.is_uncut else report.rows
    told = [
        f"{row.name} {with_interval(row.file_accuracy, row.file_accuracy_95)}"
        for row in rows
        if row.file_accuracy is not None
    ]
    return [f"test % of the files, run by LiteRT: {', '.join(told)}"] if told else []


def _measured_by(report: SearchReport) -> str:
    """Which statistic milliseconds are, and how much ours varied."""
    ours, text = report.rows[-1], f"{source_word(report.estimated)}: {report.statistic}"
    if report.estimated or not ours.rounds_sd_pct:
        return text
    spreads = [f"{ours.rounds_sd_pct:.1f} % from round to round (standard deviation)"]
    if ours.within_pct is not None:
        spreads.insert(0, f"±{ours.within_pct:.1f} % within a round (p10 to p90)")
    if ours.repeat_pct is not None:
        spreads.append(f"{ours.repeat_pct:+.1f} % beside the timing before fine-tuning")
    return f"{text}; ours varies by {', '.join(spreads)}"


def _write_search(report: SearchReport, target: Console) -> None:
    told = source_word(report.estimated)
    judged, title = ("held back %", "test %"), _TITLE
    if report.measure != ACCURACY:
        judged, title = (f"{report.measure} after cut and refit", f"{report.measure} at the end"), ""
    table = Table(
        "",
        *map(number_column, ("predicted ms", f"{told} ms", "target ms", "MACs", "size kB", *judged)),
        title=title,
        caption=_caption(report),
    )
    has_top5 = any(row.top5 is not None for row in report.rows)
    if has_top5:
        table.add_column(_TOP5, justify="right")
    for row in report.rows[:1] if report.is_uncut else report.rows:
        table.add_row(
            row.name,
            f"{row.predicted_ms:.4f}",
            _with_half(row),
            "" if row.name == "original" or report.target_ms is None else f"{report.target_ms:.4f}",
            f"{row.macs / 1e6:.2f}M",
            f"{row.bytes / 1000:,.0f}",
            _figure(report, row.held_back, row.held_back_95),
            _figure(report, row.accuracy, row.accuracy_95),
            *([_pair(report, row)] if has_top5 else []),
        )
    target.print(table)
    _, uniform, ours = report.rows
    if report.baselines:
        target.print(_baselines(report))
    lines = [f"{'weights' if report.zipped_bytes else 'channels'} kept: {_kept(ours)}"]
    lines += [f"{row.name}: {_precisions(row)}" for row in report.rows if row.precisions]
    if report.zipped_bytes:
        sizes = zip(report.rows, report.zipped_bytes, strict=True)
        lines.append("zipped: " + ", ".join(f"{row.name} {size / 1000:,.0f} kB" for row, size in sizes))
    if report.is_uncut:
        lines.append("the uncut network meets this: nothing was searched, cut or fine-tuned")
    elif ours.counts == uniform.counts:
        lines.append("ours is the uniform width: nothing that was tried did better on the held-back images")
    lines += [f"{row.name}: {row.actual:,} of at most {row.limit:,}" for row in report.budgets]
    lines += _of_files(report)
    lines += _shares(report)
    lines += [comparison.text for comparison in report.comparisons]
    if report.pixels:
        lines.append(f"the files take pixels normalised by {report.pixels}")
    lines.append(
        f"{report.episodes} episodes, {report.evaluations} policies tried, "
        f"{report.attempts} attempt{'' if report.attempts == 1 else 's'}, "
        f"{report.seconds:.0f} s; data: {report.data}"
    )
    lines.append(_measured_by(report))
    if report.confidence is not None and report.bound_ms is not None:
        lines.append(
            f"chosen to stay under {report.bound_ms:.4f} ms with a probability of {100 * report.confidence:g} %: "
            f"a margin of {100 * (report.bound_ms / report.predicted_ms - 1):.1f} %"
        )
    lines += [f"{row.name:9} {row.tflite}" for row in report.rows]
    by_estimate = " by estimate" if report.estimated else ""
    lines.append(f"{report.verdict}{by_estimate} on {report.device}{_beside_uniform(report)}")
    if report.phone is not None:
        lines.append(f"this result is {bench_advice(report.phone, ours.tflite)}")
    for line in lines:
        target.print(line, markup=False, highlight=False, soft_wrap=True)
