"""Files of a run folder with values that no search writes: each is refused by file, line and field."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from amc_latency.android_bench.safe.records import exactly
from hypothesis import given
from hypothesis import strategies as st

from amc_latency.errors import UserError
from amc_latency.jsonl import read_lines
from amc_latency.search.judge.config import JudgedPolicy
from amc_latency.search.judge.record import EpisodeRecord
from amc_latency.search.results.folder import RunFolder, TimedFile
from amc_latency.search.results.result import BaselineRow, BudgetRow, Row, SearchReport

SCORE = asdict(JudgedPolicy((8, 16), 0.5, 1.25, 100, False, None))
EPISODE = asdict(EpisodeRecord(0, "start", (8,), (1.0,), 0.5, 0.5, 1.0, 100, 2.0, None, 0.1))
TIMED = asdict(TimedFile(0, "cut", (8,), 2.0, 2.1, None, 2.0, 2.2))


@pytest.mark.parametrize(
    ("kind", "row", "changed", "field"),
    [
        (JudgedPolicy, SCORE, {"images": 0}, "$.images"),
        (JudgedPolicy, SCORE, {"images": 10**30}, "out of range"),
        (JudgedPolicy, SCORE, {"accuracy": 1.5}, "$.accuracy"),
        (JudgedPolicy, SCORE, {"counts": {"a": 1}}, "$.counts"),
        (JudgedPolicy, SCORE, {"final": 1}, "$.final"),
        (EpisodeRecord, EPISODE, {"images": 0}, "$.images"),
        (EpisodeRecord, EPISODE, {"actions": [[1.0]]}, "$.actions[0]"),
        (EpisodeRecord, EPISODE, {"target_ms": "2"}, "$.target_ms"),
        (TimedFile, TIMED, {"measured_ms": 0.0}, "$.measured_ms"),
        (TimedFile, TIMED, {"high_ms": -1.0}, "$.high_ms"),
    ],
)
def test_a_value_that_no_search_writes(
    tmp_path: Path, kind: type[Any], row: dict[str, Any], changed: dict[str, Any], field: str
) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in (row, row | changed)))
    with pytest.raises(UserError, match=r"log\.jsonl, line 2 is damaged") as caught:
        read_lines(path, kind)
    assert field in str(caught.value) or "bits" in str(caught.value)
    path.write_text(json.dumps(row) + "\n")
    assert len(read_lines(path, kind)) == 1


@pytest.mark.timeout(20)
@pytest.mark.parametrize("text", ["a = nan", "a = [" * 3000, "a = " + "9" * 5000, "a = 1979-13-01", "\\", "", "a = 1"])
def test_a_config_of_anything(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(UserError, match=r"config\.toml cannot be read|belongs to a search with"):
        RunFolder(tmp_path, {"seed": 0})


@pytest.mark.timeout(20)
def test_a_pipe_that_comes_in_a_config_s_place_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "config.toml")
    monkeypatch.setattr(Path, "is_file", lambda self: True)
    with pytest.raises(UserError, match=r"config\.toml cannot be read \(is no regular file"):
        RunFolder(tmp_path, {"seed": 0})


def test_a_config_s_text_is_told_on_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(f"seed = 0\n'a{chr(0x202E)}' = \"x\\nerror: all is well{'y' * 9000}\"\n")
    with pytest.raises(UserError, match=r"with a\\u202e = x\\nerror: all is well") as caught:
        RunFolder(tmp_path, {"seed": 0})
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 1000


@pytest.mark.timeout(20)
def test_a_pipe_is_no_log_and_no_config(tmp_path: Path) -> None:
    for name in ("log.jsonl", "config.toml"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match="no regular file"):
        read_lines(tmp_path / "log.jsonl", JudgedPolicy)
    with pytest.raises(UserError, match=r"config\.toml is no file"):
        RunFolder(tmp_path, {"seed": 0})


@pytest.mark.parametrize("value", [[], None, {}, {"rows": 3}, "[" * 40])
def test_a_report_of_anything(tmp_path: Path, value: object) -> None:
    with pytest.raises(ValueError, match=r"no object|missing or unknown"):
        SearchReport.from_json(value, tmp_path)


def _report() -> dict[str, Any]:
    rows = [
        Row(name, (8,), 0.1, 0.1, None, 7, 100, 90.0, 91.0, "x", measured_95=(0.1, 0.2), share_95=(0.5, 0.4, 0.6))
        for name in ("original", "uniform", "ours")
    ]
    report = SearchReport(
        *(
            0.4,
            0.2,
            0.1,
            0.125,
            True,
            "median",
            92.0,
            90.0,
            90.0,
            7,
            5,
            3,
            1,
            1.5,
            "data",
            "device",
            "t.tsv",
            "x",
            rows,
        ),
        budgets=[BudgetRow("MACs", 10, 7)],
        baselines=[BaselineRow("uniform", (8,), 0.1, 90.0, 3)],
        confidence=0.9,
        bound_ms=0.11,
        zipped_bytes=[3, 2, 1],
    )
    return json.loads(json.dumps(report.to_json()))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        *(
            ((name,), value)
            for name in ("original_ms", "target_ms", "predicted_ms", "measured_ms")
            for value in (0, -1.0)
        ),
        (("original_ms",), 1e300),
        (("rows", 0, "measured_ms"), 0),
        (("rows", 2, "measured_95", 1), -1),
        (("rows", 1, "share_95", 0), 0),
        (("rows", 1, "share_95"), [1.0]),
        (("rows",), []),
        (("baselines", 0, "predicted_ms"), 0),
        (("baselines", 0, "held_back_95"), [90.0]),
        (("budgets", 0, "limit"), 0),
        (("budgets", 0, "name"), "\x1b[2J"),
        (("zipped_bytes",), [1]),
    ],
)
def test_a_report_that_could_not_be_shown(tmp_path: Path, place: tuple[str | int, ...], value: object) -> None:
    report = _report()
    assert SearchReport.from_json(report, tmp_path).original_ms == 0.4
    inner: Any = report
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    with pytest.raises(ValueError, match=r"\$\.|three rows|two ends|no budget"):
        SearchReport.from_json(report, tmp_path)


@given(low_ms=st.floats(0, 1e308), high_ms=st.floats(5e-324, 1e308))
def test_an_interval_of_any_width_is_a_number(low_ms: float, high_ms: float) -> None:
    row = replace(exactly(TIMED, TimedFile), low_ms=low_ms, high_ms=high_ms)
    assert abs(row.relative_error) < 400
