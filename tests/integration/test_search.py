"""Whole searches of the bundled network on a cached table: the device is replayed, everything else is real."""

from __future__ import annotations

import json
import math
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from amc_latency.device.base import Protocol, Summary, Timing, Workload
from amc_latency.lut.prediction.replay import ReplayDevice
from amc_latency.lut.shapes.shape import network_text
from amc_latency.lut.table.table import LatencyTable
from amc_latency.lut.tflite.run import run_tflite

from amc_latency.console import Console
from amc_latency.data import load_data
from amc_latency.errors import JobError, UserError
from amc_latency.models.files.checkpoint import bundled_checkpoint, load_checkpoint
from amc_latency.models.load import NetworkOptions, load_network
from amc_latency.pixels import NORMALISATIONS, parse_normalisation
from amc_latency.search import run as search_run
from amc_latency.search.config import SearchConfig
from amc_latency.search.judge import judge as judge_module
from amc_latency.search.judge.judge import Judge
from amc_latency.search.judge.score import Tested
from amc_latency.search.results.folder import RunFolder
from amc_latency.search.results.result import SearchReport
from amc_latency.search.run import check_met, search
from amc_latency.training.outcome import Outcome

TABLE = Path(__file__).parents[2] / "lut" / "tables" / "host-epyc-zen4.tsv"
FEW_IMAGES = f"{Path(__file__).with_name('few_images.py')}:few_images"
SMALL = SearchConfig(
    speedup=2,
    device="replay",
    lut=str(TABLE),
    data=FEW_IMAGES,
    warmup=4,
    episodes=4,
    correction_episodes=2,
    agent="ddpg",
    warm_start=False,
    baselines="uniform,random",
    images=100,
    calibration_images=64,
    finetune_epochs=0,
    timing_rounds=1,
)

NINE_OF_TEN = Tested(90.0, 10, None, Outcome(torch.zeros(10, dtype=torch.int64), torch.arange(10) < 9, None, 0.0))

pytestmark = pytest.mark.slow


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of the time of a short search, and nothing that such a test looks at."""
    monkeypatch.setattr(Judge, "tested", lambda *_: NINE_OF_TEN)
    monkeypatch.setattr(judge_module, "FINALISTS", 2)


class SlowDevice(ReplayDevice):
    """Whole networks take `factor` times what the table says; each measurement multiplies it by `growth`."""

    factor = 1.0
    growth = 1.0

    def time_round(self, workloads: Sequence[Workload], protocol: Protocol, round_index: int):
        for timing in super().time_round(workloads, protocol, round_index):
            assert timing.cpu is not None
            us = timing.cpu.min_us * self.factor
            yield Timing(timing.workload, round_index, timing.n, Summary(us, us, us, 0), Summary(us, us, us, 0))
        self.factor *= self.growth


UNCUT = network_text(load_network(NetworkOptions()).graph.architecture.shapes())


def slow_device(monkeypatch: pytest.MonkeyPatch, factor: float, growth: float = 1.0) -> None:
    device = SlowDevice(LatencyTable.open(TABLE))
    device.factor, device.growth = factor, growth
    monkeypatch.setattr(search_run, "open_device", lambda *_: device)


def run(tmp_path: Path, config: SearchConfig = SMALL, name: str = "run") -> SearchReport:
    return search(config, tmp_path / name, Console(quiet=True))


def test_a_search_ends_in_a_file_under_its_target(tmp_path: Path) -> None:
    report = run(tmp_path, replace(SMALL, finetune_epochs=1))
    assert report.met
    assert report.target_ms == report.original_ms / 2
    assert report.measured_ms <= report.target_ms
    assert report.episodes == 8
    original, uniform, ours = report.rows
    assert uniform.predicted_ms <= report.target_ms
    assert ours.macs < original.macs
    assert Path(ours.tflite).stat().st_size == ours.bytes < original.bytes

    # The shipped file is the fine-tuned checkpoint, and as accurate as the report says.
    model, spec, extra = load_checkpoint(tmp_path / "run" / "model.safetensors")
    assert spec.channels == ours.counts
    test = load_data(FEW_IMAGES, size=(64, 64)).test
    # Not the few images' own figures, but those that the bundled weights were trained with.
    assert parse_normalisation(extra["normalisation"]) == NORMALISATIONS["fashion_mnist"]
    images = test.inputs((64, 64))
    with torch.inference_mode():
        expected = model(images)
    shipped = torch.from_numpy(run_tflite(Path(ours.tflite), images.numpy()))
    assert torch.allclose(shipped, expected, atol=1e-4)
    right = int((shipped.argmax(1) == test.labels).sum())
    # Of two classes that are alike to the last digit either may be told.
    assert abs(right - len(test) * ours.accuracy / 100) <= 1

    assert f"{ours.measured_ms:.4f}" in (tmp_path / "run" / "report.html").read_text()
    policy = json.loads((tmp_path / "run" / "policy.json").read_text())
    assert tuple(policy["counts"]) == ours.counts
    assert run(tmp_path, replace(SMALL, finetune_epochs=1)) == report


@pytest.mark.usefixtures("quick")
def test_a_warm_started_search_is_shown_beside_every_baseline(tmp_path: Path) -> None:
    every = replace(SMALL, speedup=1.1, warm_start=True, warmup=None, episodes=10, baselines=SearchConfig.baselines)
    report = run(tmp_path, every)
    assert report.met
    assert [row.name for row in report.baselines] == every.baseline_names
    evaluations = {row.name: row.evaluations for row in report.baselines}
    assert evaluations["uniform"] == evaluations["dp"] == 0
    assert evaluations["random"] == evaluations["hill"] == 10
    # An iteration of NetAdapt asks about each group whose cut alone is enough.
    assert evaluations["netadapt"] > 5
    assert all(row.predicted_ms <= report.target_ms for row in report.baselines)
    records = events(tmp_path / "run")
    assert [row["source"] for row in records].count("start") > 1
    # Judged by the same images, ours is at least as good as the start policies it was chosen among.
    uniform = next(row for row in report.baselines if row.name == "uniform")
    assert report.rows[-1].held_back >= uniform.held_back


@pytest.mark.usefixtures("quick")
def test_budgets_beside_milliseconds_are_held_by_what_is_exported(tmp_path: Path) -> None:
    budgeted = replace(SMALL, speedup=1.2, target_macs=9e6, target_bytes=2.2e6, agent="hill")
    report = run(tmp_path, budgeted)
    assert report.met
    assert [(row.name, row.limit) for row in report.budgets] == [("MACs", 9_000_000), ("bytes", 2_200_000)]
    assert report.budgets[0].actual == report.macs <= 9_000_000
    assert report.budgets[1].actual == Path(report.tflite).stat().st_size <= 2_200_000
    check_met(report)
    with pytest.raises(UserError, match=r"target_macs = 9000000\.0, this one has not given"):
        run(tmp_path, replace(budgeted, target_macs=None))


@pytest.mark.usefixtures("quick")
def test_parameters_alone_are_a_budget_and_a_reward_that_trades_needs_none(tmp_path: Path) -> None:
    smaller = run(tmp_path, replace(SMALL, speedup=None, target_params=300_000, agent="dp"), name="params")
    assert smaller.met
    assert smaller.target_ms is None
    assert smaller.budgets[0].actual <= 300_000
    traded = run(tmp_path, replace(SMALL, speedup=None, reward="latency"), name="traded")
    assert traded.met
    scores = [json.loads(line) for line in (tmp_path / "traded" / "scores.jsonl").read_text().splitlines()]
    error = {tuple(row["counts"]): 1 - row["accuracy"] for row in scores if row["final"]}
    predicted_ms = {tuple(row["counts"]): row["predicted_ms"] for row in events(tmp_path / "traded")}
    finalists = [counts for counts in error if counts in predicted_ms]
    assert len(finalists) > 1
    assert traded.rows[-1].counts == max(finalists, key=lambda c: -error[c] * math.log(1e6 * predicted_ms[c]))


def test_budgets_out_of_reach_say_which_binds(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="10 parameters is out of reach: the least that this network can be cut to is"):
        run(tmp_path, replace(SMALL, speedup=None, target_params=10))
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("quick")
def test_the_same_seed_gives_the_same_policy_and_another_seed_another_search(tmp_path: Path) -> None:
    first, second = run(tmp_path, name="a"), run(tmp_path, name="b")
    assert first.rows[-1].counts == second.rows[-1].counts
    assert events(tmp_path / "a") == events(tmp_path / "b")
    run(tmp_path, replace(SMALL, seed=1), name="c")
    assert events(tmp_path / "a")[1:] != events(tmp_path / "c")[1:]


@pytest.mark.usefixtures("quick")
def test_a_device_slower_than_its_table_is_corrected_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # More than the best of a few policies may lie under the target by chance.
    slow_device(monkeypatch, 1.12)
    target_ms = LatencyTable.open(TABLE).latency_us(UNCUT) / 2000
    absolute = replace(SMALL, speedup=None, target_ms=target_ms, warm_start=True, warmup=None, episodes=9)
    report = run(tmp_path, absolute)
    assert report.met
    assert report.attempts == 2
    assert report.episodes == 11
    # Predictions are shifted by what was measured, so they agree with the device now.
    assert report.predicted_ms == pytest.approx(report.measured_ms, rel=1e-6)
    assert report.predicted_ms <= report.target_ms


@pytest.mark.usefixtures("quick")
def test_a_speed_up_is_judged_beside_the_original_in_the_same_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Twice as slow as when the table was made, and slower each round: ours and the original alike.
    slow_device(monkeypatch, 2.0, growth=1.12)
    report = run(tmp_path, replace(SMALL, timing_rounds=3))
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


def phases(folder: Path) -> list[str]:
    return [json.loads(line)["phase"] for line in (folder / "measurements.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("measuring")
def test_a_search_that_is_killed_at_its_end_times_nothing_of_before_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 5 % slower than its table says; the uncut network is not among what may be kept.
    slow_device(monkeypatch, 1.05)
    target_ms = LatencyTable.open(TABLE).latency_us(UNCUT) / 2000
    config = replace(SMALL, speedup=None, target_ms=target_ms, max_keep=0.9, timing_rounds=3, baselines="uniform")
    whole = run(tmp_path, config)
    folder = tmp_path / "run"
    assert (whole.met, whole.attempts) == (True, 1)
    before = phases(folder)
    assert before[:2] == ["original", "cut"]
    assert {"width", "baseline"} < set(before)
    assert before[-3:] == ["final original", "final uniform", "final ours"]
    _, uniform, ours = whole.rows
    assert uniform.measured_ms == pytest.approx(ours.measured_ms, rel=0.05)
    assert all(row.measured_ms is not None for row in whole.baselines)
    # Predictions are shifted by the drift.
    assert ours.measured_ms == pytest.approx(ours.predicted_ms, rel=0.02)

    (folder / "report.json").unlink()
    again = run(tmp_path, config)
    assert phases(folder) == before + before[-3:]
    assert replace(again, seconds=whole.seconds) == whole


@pytest.mark.usefixtures("measuring")
def test_a_device_that_has_changed_is_refused_for_milliseconds_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_device(monkeypatch, 2.0)
    smaller = replace(SMALL, speedup=None, target_params=300_000, baselines="uniform")
    assert run(tmp_path, smaller, name="params").met
    assert "original" not in phases(tmp_path / "params")


@pytest.mark.usefixtures("quick")
def test_a_target_that_the_device_never_meets_is_a_failed_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_device(monkeypatch, 1.12, growth=1.12)
    absolute = replace(SMALL, speedup=None, target_ms=LatencyTable.open(TABLE).latency_us(UNCUT) / 2000)
    report = run(tmp_path, absolute)
    assert not report.met
    assert Path(report.tflite).exists()
    with pytest.raises(JobError, match="not met after 4 attempts"):
        check_met(report)
    assert run(tmp_path, absolute) == report


@pytest.mark.usefixtures("quick")
def test_an_unreachable_target_says_what_is_reachable(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fastest network that can be cut") as refused:
        run(tmp_path, replace(SMALL, speedup=None, target_ms=0.001))
    reachable_ms = float(str(refused.value).split("predicted at ")[1].split(" ms")[0])
    # That network is among those that were timed, and its rounds agree with the prediction to half a percent.
    all_rounds = replace(SMALL, speedup=None, target_ms=1.01 * reachable_ms, timing_rounds=27)
    assert run(tmp_path, all_rounds, name="second").met


@pytest.mark.usefixtures("quick")
def test_a_broken_search_goes_on_though_its_table_has_grown_since(tmp_path: Path) -> None:
    lut = tmp_path / "table.tsv"
    lut.write_bytes(TABLE.read_bytes())
    whole = run(tmp_path, replace(SMALL, lut=str(lut)))
    # Broken off after five episodes; then somebody times a network that shifts the calibration.
    folder = tmp_path / "run"
    (folder / "report.json").unlink()
    log = (folder / "events.jsonl").read_text().splitlines(keepends=True)
    (folder / "events.jsonl").write_text("".join(log[:5]))
    architecture = load_network(NetworkOptions()).graph.architecture
    key = network_text(architecture.shapes((8, *architecture.group_channels[1:])))
    slow = Summary(9000.0, 9000.0, 9000.0, 0.0)
    with LatencyTable.open(lut) as table:
        table.append(Timing(key, 0, 10, slow, slow))
    again = run(tmp_path, replace(SMALL, lut=str(lut)))
    # The replayed device is another one now; the search is not.
    assert [(row.counts, row.predicted_ms, row.accuracy) for row in again.rows] == [
        (row.counts, row.predicted_ms, row.accuracy) for row in whole.rows
    ]


def test_other_weights_are_another_search(tmp_path: Path) -> None:
    model = tmp_path / "net.safetensors"
    model.write_bytes(bundled_checkpoint().read_bytes())
    config = replace(SMALL, model=str(model))
    same = {"data": FEW_IMAGES, "data_sha256": load_data(FEW_IMAGES, size=(64, 64)).digest()}
    folder = RunFolder(tmp_path / "run", {**asdict(config), **same, "weights_sha256": "of others"})
    folder.start()
    del folder
    with pytest.raises(UserError, match="weights_sha256 = of others"):
        run(tmp_path, config)


def test_a_damaged_table_is_refused(tmp_path: Path) -> None:
    lines = TABLE.read_text().splitlines()
    lines[50] = lines[50][:-30]
    (tmp_path / "table.tsv").write_text("\n".join(lines) + "\n")
    with pytest.raises(Exception, match="line 51: damaged row"):
        run(tmp_path, replace(SMALL, lut=str(tmp_path / "table.tsv")))


@pytest.mark.timeout(900)
def test_killed_searches_end_in_the_policy_of_an_unbroken_one(tmp_path: Path) -> None:
    config = replace(SMALL, warmup=6, episodes=16, finetune_epochs=1)
    unbroken = run(tmp_path, config, name="unbroken")
    rng = random.Random(5)
    killed = 0
    for _ in range(40):
        process = subprocess.Popen(command(tmp_path / "killed"), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        if killed < 6:
            # Five times among the episodes, once when the uniform width is fine-tuned and ours is not.
            wait_for_progress(tmp_path / "killed" / ("events.jsonl" if killed < 5 else "uniform.tflite"), process)
            time.sleep(rng.uniform(0, 0.15))
            process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
        elif process.wait() == 0:
            break
    assert killed == 6
    assert events(tmp_path / "killed") == events(tmp_path / "unbroken")
    for name in ("policy.json", "ours.tflite", "uniform.tflite"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes()
    report = json.loads((tmp_path / "killed" / "report.json").read_text())
    assert (report["accuracy"], report["measured_ms"]) == (unbroken.accuracy, unbroken.measured_ms)


def command(out: Path) -> list[str]:
    options = (
        f"search --speedup 2 --device replay --lut {TABLE} --data {FEW_IMAGES} --warmup 6 --episodes 16 "
        "--agent ddpg --cold-start --baselines uniform,random --correction-episodes 2 --images 100 "
        "--calibration-images 64 --finetune-epochs 1 --timing-rounds 1"
    )
    script = "from amc_latency.cli.main import main; main()"
    return [sys.executable, "-c", script, *options.split(), "--out", str(out)]


def wait_for_progress(file: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until the search has made the file, or added to it."""
    before = file.stat().st_size if file.exists() else 0
    while process.poll() is None and (file.stat().st_size if file.exists() else 0) <= before:
        time.sleep(0.01)


def events(folder: Path) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]
