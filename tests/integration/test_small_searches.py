"""Whole searches of a small network on a cached table: what holds of a search whatever it searches."""

from __future__ import annotations

import json
import math
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from amc_latency.device.base import Summary, Timing
from amc_latency.lut.prediction.replay import ReplayDevice
from amc_latency.lut.shapes.shape import network_text
from amc_latency.lut.table.table import LatencyTable

from amc_latency.errors import JobError, UserError
from amc_latency.models.load import load_network
from amc_latency.search.config import SearchConfig
from amc_latency.search.results.report import search_text
from amc_latency.search.run import check_met
from tests.integration.command_line import Cli
from tests.integration.fork_server import Forked
from tests.integration.searches import events, half_of_uncut_ms, phases, run, slow_device


@pytest.mark.usefixtures("quick")
def test_budgets_beside_milliseconds_are_held_by_what_is_exported(tmp_path: Path, small: SearchConfig) -> None:
    budgeted = replace(small, speedup=1.2, target_macs=900_000, target_bytes=600_000, agent="hill")
    report = run(tmp_path, budgeted)
    assert report.met
    assert [(row.name, row.limit) for row in report.budgets] == [("MACs", 900_000), ("bytes", 600_000)]
    assert report.budgets[0].actual == report.macs <= 900_000
    assert report.budgets[1].actual == Path(report.tflite).stat().st_size <= 600_000
    check_met(report)
    with pytest.raises(UserError, match=r"target_macs = 900000, this one has not given"):
        run(tmp_path, replace(budgeted, target_macs=None))


def test_the_accuracy_of_the_files_stands_beside_pytorchs(
    tmp_path: Path, small: SearchConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(small, agent="dp", finetune_epochs=0)
    report = run(tmp_path, config)
    for row in report.rows:
        # Logits differ in the seventh digit: hardly an image is told otherwise.
        assert row.file_accuracy == pytest.approx(row.accuracy, abs=0.05)
        assert row.file_accuracy_95[0] < row.file_accuracy < row.file_accuracy_95[1]
    search_text(report)
    assert "test % of the files, run by LiteRT: original " in capsys.readouterr().out
    assert "of the files, run by LiteRT: original " in (tmp_path / "run" / "report.html").read_text()
    assert run(tmp_path, config).rows == report.rows


@pytest.mark.usefixtures("quick")
def test_parameters_alone_are_a_budget_and_a_reward_that_trades_needs_none(tmp_path: Path, small: SearchConfig) -> None:
    smaller = run(tmp_path, replace(small, speedup=None, target_params=100_000, agent="dp"), name="params")
    assert smaller.met
    assert smaller.target_ms is None
    assert smaller.budgets[0].actual <= 100_000
    traded = run(tmp_path, replace(small, speedup=None, reward="latency"), name="traded")
    assert traded.met
    scores = [json.loads(line) for line in (tmp_path / "traded" / "scores.jsonl").read_text().splitlines()]
    error = {tuple(row["counts"]): 1 - row["accuracy"] for row in scores if row["final"]}
    predicted_ms = {tuple(row["counts"]): row["predicted_ms"] for row in events(tmp_path / "traded")}
    finalists = [counts for counts in error if counts in predicted_ms]
    assert len(finalists) > 1
    assert traded.rows[-1].counts == max(finalists, key=lambda c: -error[c] * math.log(1e6 * predicted_ms[c]))


@pytest.mark.usefixtures("quick")
def test_the_same_seed_gives_the_same_policy_and_another_seed_another_search(
    tmp_path: Path, small: SearchConfig
) -> None:
    first, second = run(tmp_path, small, "a"), run(tmp_path, small, "b")
    assert first.rows[-1].counts == second.rows[-1].counts
    assert events(tmp_path / "a") == events(tmp_path / "b")
    run(tmp_path, replace(small, seed=1), name="c")
    assert events(tmp_path / "a")[1:] != events(tmp_path / "c")[1:]


@pytest.mark.usefixtures("quick")
def test_a_device_slower_than_its_table_is_corrected_for(
    tmp_path: Path, small: SearchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # More than the best of a few policies may lie under the target by chance.
    slow_device(monkeypatch, small, 1.12)
    target_ms = half_of_uncut_ms(small)
    absolute = replace(small, speedup=None, target_ms=target_ms, warm_start=True, warmup=None, episodes=9)
    report = run(tmp_path, absolute)
    assert report.met
    assert report.attempts == 2
    assert report.episodes == 11
    # Predictions are shifted by what was measured, so they agree with the device now.
    assert report.predicted_ms == pytest.approx(report.measured_ms, rel=1e-6)
    assert report.predicted_ms <= report.target_ms


@pytest.mark.usefixtures("quick")
def test_a_speed_up_is_judged_beside_the_original_in_the_same_rounds(
    tmp_path: Path, small: SearchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Twice as slow as when the table was made, and slower each round: ours and the original alike.
    slow_device(monkeypatch, small, 2.0, growth=1.12)
    report = run(tmp_path, replace(small, timing_rounds=3))
    assert (report.met, report.attempts) == (True, 1)
    original, _, ours = report.rows
    # The table's smallest sample of all rounds is below that of these.
    assert ours.measured_ms == pytest.approx(report.predicted_ms, rel=0.02)
    assert ours.share_95[0] == pytest.approx(ours.measured_ms / original.measured_ms)
    assert original.measured_ms == pytest.approx(report.original_ms)


@pytest.fixture
def measuring(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is replayed counts as measured: drift is looked at, and rivals are timed beside ours."""
    monkeypatch.setattr(ReplayDevice, "is_constant", False)


@pytest.mark.usefixtures("measuring")
def test_a_search_that_is_killed_at_its_end_times_nothing_of_before_again(
    tmp_path: Path, small: SearchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 5 % slower than its table says; the uncut network is not among what may be kept.
    slow_device(monkeypatch, small, 1.05)
    target_ms = half_of_uncut_ms(small)
    config = replace(small, speedup=None, target_ms=target_ms, max_keep=0.9, timing_rounds=3, baselines="uniform")
    whole = run(tmp_path, config)
    folder = tmp_path / "run"
    assert (whole.met, whole.attempts) == (True, 1)
    before = phases(folder)
    assert before[:2] == ["original", "cut"]
    assert {"width", "baseline"} < set(before)
    assert before[-3:] == ["final original", "final uniform", "final ours"]
    _, uniform, ours = whole.rows
    assert all(row.measured_ms is not None for row in whole.baselines)
    # Predictions are shifted by the drift.
    assert ours.measured_ms == pytest.approx(ours.predicted_ms, rel=0.02)
    assert uniform.measured_ms == pytest.approx(uniform.predicted_ms, rel=0.02)

    (folder / "report.json").unlink()
    again = run(tmp_path, config)
    assert phases(folder) == before + before[-3:]
    assert replace(again, seconds=whole.seconds) == whole


@pytest.mark.usefixtures("measuring")
def test_a_device_that_has_changed_is_refused_for_milliseconds_alone(
    tmp_path: Path, small: SearchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_device(monkeypatch, small, 2.0)
    smaller = replace(small, speedup=None, target_params=100_000, baselines="uniform")
    assert run(tmp_path, smaller, name="params").met
    assert "original" not in phases(tmp_path / "params")


@pytest.mark.usefixtures("quick")
def test_a_target_that_the_device_never_meets_is_a_failed_job(
    tmp_path: Path, small: SearchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_device(monkeypatch, small, 1.12, growth=1.25)
    # More than the best of a few policies may lie under the target by chance.
    near = replace(small, warm_start=True, warmup=None, episodes=9)
    absolute = replace(near, speedup=None, target_ms=half_of_uncut_ms(small))
    report = run(tmp_path, absolute)
    assert not report.met
    assert Path(report.tflite).exists()
    with pytest.raises(JobError, match="not met after 4 attempts"):
        check_met(report)
    assert run(tmp_path, absolute) == report


@pytest.mark.usefixtures("quick")
def test_a_broken_search_goes_on_though_its_table_has_grown_since(tmp_path: Path, small: SearchConfig) -> None:
    lut = tmp_path / "table.tsv"
    lut.write_bytes(Path(small.lut).read_bytes())
    whole = run(tmp_path, replace(small, lut=str(lut)))
    # Broken off after five episodes; then somebody times a network that shifts the calibration.
    folder = tmp_path / "run"
    (folder / "report.json").unlink()
    log = (folder / "events.jsonl").read_text().splitlines(keepends=True)
    (folder / "events.jsonl").write_text("".join(log[:5]))
    architecture = load_network(small.network).graph.architecture
    key = network_text(architecture.shapes((8, *architecture.group_channels[1:])))
    slow = Summary(9000.0, 9000.0, 9000.0, 0.0)
    with LatencyTable.open(lut) as table:
        table.append(Timing(key, 0, 10, slow, slow))
    again = run(tmp_path, replace(small, lut=str(lut)))
    # The replayed device is another one now; the search is not.
    assert [(row.counts, row.predicted_ms, row.accuracy) for row in again.rows] == [
        (row.counts, row.predicted_ms, row.accuracy) for row in whole.rows
    ]


def test_killed_searches_end_in_the_policy_of_an_unbroken_one(tmp_path: Path, small: SearchConfig, cli: Cli) -> None:
    config = replace(small, warmup=6, episodes=40, finetune_epochs=1)
    options = (
        f"search --speedup 2 --device replay --model {small.model} --lut {small.lut} --data {small.data} --warmup 6 "
        "--episodes 40 --agent ddpg --cold-start --baselines uniform,random --correction-episodes 2 --images 100 "
        f"--calibration-images 64 --finetune-epochs 1 --timing-rounds 1 --out {tmp_path / 'killed'}"
    )
    unbroken = run(tmp_path, config, name="unbroken")
    rng = random.Random(5)
    killed = 0
    for _ in range(40):
        with cli.start(*options.split()) as process:
            if killed < 6:
                # Five times among the episodes, once when the uniform width is fine-tuned and ours is not.
                wait_for_progress(tmp_path / "killed" / ("events.jsonl" if killed < 5 else "uniform.tflite"), process)
                time.sleep(rng.uniform(0, 0.03))
                process.kill()
                killed += process.wait() == -signal.SIGKILL
            elif process.wait() == 0:
                break
    assert killed == 6
    assert events(tmp_path / "killed") == events(tmp_path / "unbroken")
    for name in ("policy.json", "ours.tflite", "uniform.tflite"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes()
    report = json.loads((tmp_path / "killed" / "report.json").read_text())
    assert (report["accuracy"], report["measured_ms"]) == (unbroken.accuracy, unbroken.measured_ms)


def wait_for_progress(file: Path, process: Forked) -> None:
    """Wait until the search has made the file, or added to it."""
    before = file.stat().st_size if file.exists() else 0
    while process.poll() is None and (file.stat().st_size if file.exists() else 0) <= before:
        time.sleep(0.005)
