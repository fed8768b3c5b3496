"""Pruning in rounds: prune, fine-tune, and prune what came of it again, as AMC does on ResNet-50."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.table import Table

from amc_latency.android_bench.safe.files import replacing
from amc_latency.console import Console, number_column, table_console
from amc_latency.device.base import source_word
from amc_latency.device.kinds import PhoneOptions
from amc_latency.errors import JobError
from amc_latency.search.config import SearchConfig
from amc_latency.search.config.amounts import absolute
from amc_latency.search.records import BUDGETS
from amc_latency.search.results.report import search_text
from amc_latency.search.results.result import SearchReport
from amc_latency.search.run import search
from amc_latency.training.intervals import with_interval

RunRound = Callable[[SearchConfig, Path, Path | None], SearchReport]
"""A round's search, from its config, its folder, and the checkpoint that the round before ended in."""


@dataclass(frozen=True)
class Round:
    """How one round ended."""

    target_ms: float | None
    """None where milliseconds were not limited"""
    measured_ms: float
    limits: dict[str, int]
    """the other budgets, by name"""
    actual: dict[str, int]
    """what the round's network takes of them"""
    accuracy: float
    """percent of the test images, fine-tuned"""
    accuracy_95: tuple[float, ...]
    """both ends of its 95 % interval"""
    met: bool
    folder: str


@dataclass(frozen=True)
class RoundsReport:
    """What rounds end with: the last round's report is the result."""

    rounds: list[Round]
    report: SearchReport


def search_rounds(
    config: SearchConfig, out: Path, console: Console, phone: PhoneOptions = PhoneOptions()
) -> RoundsReport:
    """Search `config.rounds` times, each time pruning the fine-tuned network of the round before.

    The budgets go from the original's figures to those of `config` in equal ratios, or by `rounds_density`. Each round
    is a search with a folder of its own within `out`, which goes on where it stopped. Raises what `search` raises.
    """
    return run_rounds(config, out, console, lambda each, folder, start: search(each, folder, console, phone, start))


def run_rounds(config: SearchConfig, out: Path, console: Console, run: RunRound) -> RoundsReport:
    """The same, where `run` searches a round."""
    rounds: list[Round] = []
    start: Path | None = None
    for number in range(1, config.rounds + 1):
        folder = out / f"round-{number}"
        console.say(f"round {number} of {config.rounds}")
        report = run(replace(config, round=number), folder, start)
        rounds.append(_round(report, folder))
        start = folder / "model.safetensors"
        if report.is_uncut and _meets_last(config, report):
            break
    result = RoundsReport(rounds, report)
    path = out / "rounds.json"
    try:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps([{**asdict(r), "folder": Path(r.folder).name} for r in rounds], indent=2))
    except OSError as error:
        raise JobError(f"cannot write {path}: {error.strerror}. Set it right and run again to go on") from error
    return result


def rounds_text(result: RoundsReport) -> None:
    """A line a round, then the last one's report."""
    told = source_word(result.report.estimated)
    others = list(result.rounds[0].limits)
    columns = [number_column("target ms"), number_column(f"{told} ms")]
    columns += [number_column(text) for name in others for text in (f"{name} at most", name)]
    table = Table("round", *columns, number_column("test %"), "folder", title="rounds of pruning and fine-tuning")
    for number, each in enumerate(result.rounds, 1):
        target = "" if each.target_ms is None else f"{each.target_ms:.4f}"
        sizes = [f"{value:,}" for name in others for value in (each.limits[name], each.actual[name])]
        table.add_row(
            str(number),
            target,
            f"{each.measured_ms:.4f}",
            *sizes,
            with_interval(each.accuracy, each.accuracy_95),
            each.folder,
        )
    table_console().print(table)
    search_text(result.report)


def _meets_last(config: SearchConfig, report: SearchReport) -> bool:
    """Whether the uncut network, which met a round's budgets, meets the last round's too."""
    limits = config.limits
    others = [(row.actual, limits[BUDGETS[row.name].field]) for row in report.budgets]
    return report.rows[-1].verdict(config.target_of(report.original_ms)).is_enough and all(
        uncut <= absolute(limit, uncut) for uncut, limit in others
    )


def _round(report: SearchReport, folder: Path) -> Round:
    return Round(
        target_ms=report.target_ms,
        measured_ms=report.measured_ms,
        limits={row.name: row.limit for row in report.budgets},
        actual={row.name: row.actual for row in report.budgets},
        accuracy=report.accuracy,
        accuracy_95=report.rows[-1].accuracy_95,
        met=report.met,
        folder=str(folder),
    )
