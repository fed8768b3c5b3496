"""Files of a run folder with values that no search writes: each is refused by file, line and field."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from amc_latency.errors import UserError
from amc_latency.jsonl import read_lines
from amc_latency.search.judge.judge import JudgedPolicy
from amc_latency.search.judge.record import EpisodeRecord
from amc_latency.search.results.folder import RunFolder, TimedFile
from amc_latency.search.results.result import SearchReport

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
