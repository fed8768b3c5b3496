"""The front of several searches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from amc_latency.console import Console
from amc_latency.errors import UserError
from amc_latency.search.config import SearchConfig
from amc_latency.search.results.result import Row, SearchReport
from amc_latency.search.series.pareto import _draw, front_points, pareto_search


def report(target_ms: float, ours: tuple[float, float], uniform: tuple[float, float]) -> SearchReport:
    measured = {"original": (1.0, 93.0), "uniform": uniform, "ours": ours}
    rows = [Row(name, (8,), ms, ms, None, 7, 100, acc, acc, f"{name}.tflite") for name, (ms, acc) in measured.items()]
    return SearchReport(
        original_ms=1.0, target_ms=target_ms, predicted_ms=ours[0], measured_ms=ours[0], met=True, statistic="minimum",
        accuracy_original=93.0, accuracy=ours[1], accuracy_uniform=uniform[1], macs=7, episodes=1, evaluations=1,
        attempts=1, seconds=1.0, data="bundled", device="host", table="table.tsv", tflite="ours.tflite", rows=rows,
    )  # fmt: skip


def test_the_front_holds_what_nothing_beats(tmp_path: Path) -> None:
    # The second search's result is slower than the first's uniform width, and no better.
    reports = [report(0.5, (0.5, 92.0), (0.4, 91.0)), report(0.6, (0.45, 90.5), (0.6, 92.0))]
    points = front_points(reports)
    assert [(point.measured_ms, point.accuracy, point.on_front) for point in points] == [
        (0.4, 91.0, True),
        (0.45, 90.5, False),
        (0.5, 92.0, True),
        (0.6, 92.0, False),
        (1.0, 93.0, True),
    ]
    assert [point.name for point in points].count("original") == 1
    # A device says what it is called, and nothing of that is a formula.
    _draw(points, replace(reports[0], device="phone $\\q$ \ud800"), tmp_path / "front.png")
    assert (tmp_path / "front.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("config", "targets", "message"),
    [
        (SearchConfig(speedup=2), 1, "2 targets or more"),
        (SearchConfig(reward="latency"), 3, "needs the fastest target"),
        (replace(SearchConfig(speedup=2), target_macs=1e6), 3, "milliseconds alone"),
    ],
)
def test_what_draws_no_front_is_refused(tmp_path: Path, config: SearchConfig, targets: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        pareto_search(config, targets, tmp_path / "front", Console(quiet=True))
    assert not (tmp_path / "front").exists()
