"""The run folder: made, gone on with, refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from amc_latency.errors import JobError, UserError
from amc_latency.search.config import SearchConfig, run_name
from amc_latency.search.judge.record import EpisodeRecord
from amc_latency.search.results.folder import RunFolder, TimedFile
from amc_latency.search.results.result import BaselineRow, BudgetRow, Row, SearchReport

CONFIG = {"seed": 0, "target_ms": 0.1, "lut": None, "model": 'a "quoted" \\ name'}
RECORD = EpisodeRecord(0, "warm-up", (8, 16), (0.5, 1.0), -0.25, 0.75, 0.5, 100, 0.1, 0.2, 0.3)


def test_networks_of_other_widths_and_classes_have_folders_of_their_own() -> None:
    config = SearchConfig(speedup=2, model="resnet18", weights="mine.pth")
    assert run_name(config) == "resnet18-mine-host-2x-seed0"
    assert run_name(replace(config, width=0.5, classes=10)) == "resnet18-mine-width0.5-10classes-host-2x-seed0"


TIMED = TimedFile(0, "cut", (8, 16), 0.1, 0.125, 0.2, 0.12, 0.13)


def report_in(folder: Path) -> SearchReport:
    """A report whose files lie in that folder."""
    rows = [
        Row(name, (8, 16), 0.1, 0.125, None, 7, 100, 90.0, 91.0, str(folder / f"{name}.tflite"))
        for name in ("original", "uniform", "ours")
    ]
    return SearchReport(
        original_ms=0.4,
        target_ms=0.2,
        predicted_ms=0.1,
        measured_ms=0.125,
        met=True,
        statistic="minimum",
        accuracy_original=92.0,
        accuracy=90.0,
        accuracy_uniform=90.0,
        macs=7,
        episodes=1,
        evaluations=1,
        attempts=1,
        seconds=1.5,
        data="bundled",
        device="host",
        table=str(folder / "table.tsv"),
        tflite=str(folder / "ours.tflite"),
        rows=rows,
        budgets=[BudgetRow("MACs", 10, 7)],
        baselines=[BaselineRow("random", (8, 8), 0.1, 88.0, 12)],
    )


def started(path: Path) -> RunFolder:
    folder = RunFolder(path, CONFIG)
    folder.start()
    return folder


def test_nothing_is_made_before_the_start(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", CONFIG)
    assert not (tmp_path / "run").exists()


def test_what_was_logged_is_there_again(tmp_path: Path) -> None:
    folder = started(tmp_path / "run")
    folder.append_episode(RECORD)
    folder.append_measurement(TIMED)
    folder.write_report(report_in(Path("elsewhere")))
    del folder
    again = RunFolder(tmp_path / "run", CONFIG)
    assert again.episodes() == [RECORD]
    assert again.measurements() == [TIMED]
    assert again.report() == report_in(tmp_path / "run")


def test_another_config_is_refused_and_the_difference_named(tmp_path: Path) -> None:
    started(tmp_path)
    with pytest.raises(UserError, match=r"seed = 0, this one has 1"):
        RunFolder(tmp_path, {**CONFIG, "seed": 1})
    with pytest.raises(UserError, match=r"lut = not given, this one has table\.tsv"):
        RunFolder(tmp_path, {**CONFIG, "lut": "table.tsv"})


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match="not a run folder"):
        RunFolder(tmp_path, CONFIG)
    with pytest.raises(UserError, match="not a run folder"):
        RunFolder(tmp_path / "photo.jpg", CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


@pytest.mark.parametrize("text", ["seed = ", ""])
def test_a_damaged_config_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(UserError, match=r"config\.toml cannot be read"):
        RunFolder(tmp_path, CONFIG)


def test_a_folder_that_cannot_be_made_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        RunFolder(tmp_path / "file" / "run", CONFIG)


def test_of_two_that_start_at_once_one_is_turned_away(tmp_path: Path) -> None:
    first, second = (RunFolder(tmp_path / "run", CONFIG) for _ in range(2))
    first.start()
    with pytest.raises(UserError, match="another search is running"):
        second.start()
    other = RunFolder(tmp_path / "other", {**CONFIG, "seed": 1})
    started(tmp_path / "other")
    with pytest.raises(UserError, match="seed = 0, this one has 1"):
        other.start()


def test_a_damaged_report_is_named(tmp_path: Path) -> None:
    folder = started(tmp_path)
    folder.write_report(report_in(Path("elsewhere")))
    whole = (tmp_path / "report.json").read_text()
    damages = [whole[:50], "[]", "{}", whole.replace("0.125", '"x"', 1), whole.replace('"macs": 7', '"macs": null')]
    for damaged in [*damages, json.dumps({**json.loads(whole), "rows": []})]:
        (tmp_path / "report.json").write_text(damaged)
        with pytest.raises(UserError, match=r"report\.json is damaged"):
            folder.report()


def test_a_search_whose_folder_was_moved_away_writes_nothing_into_its_successor_s(tmp_path: Path) -> None:
    first = started(tmp_path / "run")
    first.append_episode(RECORD)
    (tmp_path / "run").rename(tmp_path / "elsewhere")
    second = started(tmp_path / "run")
    for write in (
        lambda: first.append_episode(RECORD),
        lambda: first.append_measurement(TIMED),
        lambda: first.write_report(report_in(tmp_path / "run")),
    ):
        with pytest.raises(JobError, match="was moved, removed or replaced"):
            write()
    assert second.episodes() == second.measurements() == []
    assert second.report() is None
    assert len((tmp_path / "elsewhere/events.jsonl").read_text().splitlines()) == 1


def test_two_processes_cannot_share_a_folder(tmp_path: Path) -> None:
    held = started(tmp_path)
    script = (
        "import sys; from pathlib import Path; from amc_latency.search.results.folder import RunFolder\n"
        f"RunFolder(Path(sys.argv[1]), {CONFIG!r})"
    )
    other = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True)
    assert "another search is running" in other.stderr
    assert held.episodes() == []


def test_a_path_that_is_no_text_is_a_setting_too(tmp_path: Path) -> None:
    config = {"data": f"folder:{os.fsdecode(b'/photos/' + bytes([255]))}", "start": ("a", {"b": "\ud800"}), "seed": 0}
    RunFolder(tmp_path / "run", config).start()
    RunFolder(tmp_path / "run", config)
    with pytest.raises(UserError, match=r"data = folder:/photos/.*udcff, this one has folder:/photos"):
        RunFolder(tmp_path / "run", {**config, "data": "folder:/photos"})
