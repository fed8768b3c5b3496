"""What a device says of policies: shares of the original or its own milliseconds, with more rounds until clear."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from amc_latency.device.base import Device, DeviceIdentity, Protocol, Summary, Timing
from amc_latency.lut.table.table import TableError

from amc_latency.errors import JobError
from amc_latency.search.delivery import evidence as evidence_module
from amc_latency.search.delivery.deliver import EQUAL_PCT, Delivery
from amc_latency.search.delivery.evidence import Evidence
from amc_latency.search.delivery.timing import MOST_ROUNDS, PolicyTimer
from amc_latency.search.results.folder import TimedFile
from amc_latency.search.results.verdict import Verdict

ROUNDS = 9
PROTOCOL = Protocol(rounds=ROUNDS, statistic="median")


class Wandering(Device):
    """Takes what each file's content says, at a speed of each round and with noise of each timing."""

    identity = DeviceIdentity("fake", "", "")

    def __init__(self, drift: float = 0.0, noise: float = 0.0, slower: float = 1.0) -> None:
        self.drift, self.noise, self.slower = drift, noise, slower
        self.rng = random.Random(0)
        self.rounds = 0

    def time_round(self, workloads, protocol, round_index):  # type: ignore[no-untyped-def]
        self.rounds += 1
        speed = self.slower * math.exp(self.rng.gauss(0, self.drift))
        for workload in workloads:
            us = float(workload.build()[8:]) * speed * math.exp(self.rng.gauss(0, self.noise))
            summary = Summary(us, us, us, 0.0)
            yield Timing(workload.name, round_index, 1, summary, summary)


def files(folder: Path, **us: float) -> dict[str, Path]:
    for name, value in us.items():
        (folder / name).write_bytes(b"\0\0\0\0TFL3" + str(value).encode())
    return {name: folder / name for name in us}


def test_a_share_of_the_original_holds_on_a_device_that_wanders(tmp_path: Path) -> None:
    device = Wandering(drift=0.3, noise=0.001, slower=1.4)
    timer = PolicyTimer(device, PROTOCOL, "original", original_ms=0.3)
    timed = timer.time(files(tmp_path, original=300, ours=150), "ours", target_ms=0.151)
    assert timed["ours"].ms == pytest.approx(0.15, rel=0.003)
    assert timed["original"].ms == pytest.approx(0.3)
    assert timed["ours"].verdict(0.151).is_met
    assert timed["ours"].share_95[0] == pytest.approx(0.5, rel=0.003)
    assert device.rounds == ROUNDS


def test_milliseconds_are_the_devices_own(tmp_path: Path) -> None:
    timer = PolicyTimer(Wandering(slower=1.4), PROTOCOL, "original", original_ms=None)
    timed = timer.time(files(tmp_path, original=300, ours=150), "ours", target_ms=0.2)
    assert timed["ours"].ms == pytest.approx(1.4 * 0.15)
    assert timed["ours"].verdict(0.2) == Verdict(is_under=False, is_decided=True, half_pct=pytest.approx(0.0))


def test_rounds_are_added_while_the_target_lies_in_the_interval(tmp_path: Path) -> None:
    device = Wandering(noise=0.03)
    timer = PolicyTimer(device, PROTOCOL, "original", original_ms=0.3)
    timed = timer.time(files(tmp_path, original=300, ours=150), "ours", target_ms=0.15)
    assert device.rounds == MOST_ROUNDS * ROUNDS
    assert not timed["ours"].verdict(0.15).is_decided
    assert timed["ours"].low_ms < 0.15 < timed["ours"].high_ms


class Folder:
    """A run folder's log, in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[TimedFile] = []

    def measurements(self) -> list[TimedFile]:
        return self.rows

    def append_measurement(self, row: TimedFile) -> None:
        self.rows.append(row)


class Files(Delivery):
    """A delivery whose networks are files that say how long they take: `off` times what is predicted."""

    off: Any

    def export(self, model: Any, path: Path, counts: Any = None) -> Any:
        path.write_bytes(b"\0\0\0\0TFL3" + str(model).encode())

    def _key(self, counts: Any) -> str:
        return ",".join(map(str, counts))


def delivery(folder: Path, off: Any, device: Device) -> Files:
    costs = SimpleNamespace(full=(100,), ms=lambda counts: counts[0] / 100)
    judge = SimpleNamespace(
        network=lambda counts: off(counts) * counts[0] * 10, original=SimpleNamespace(model=off((100,)) * 1000.0)
    )
    timer = PolicyTimer(device, PROTOCOL, "original", original_ms=1.0)
    found = Files(None, Folder(folder), judge, costs, 1.0, timer, None)  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize("seed", range(20))
def test_the_uniform_width_takes_as_long_as_ours_by_measurement(tmp_path: Path, seed: int) -> None:
    # Predictions are off by up to 20 %, by another figure for each width but smoothly, as a cache's size does it.
    rng = random.Random(seed)
    size, tilt = rng.uniform(0.8, 1.2), rng.uniform(-0.2, 0.2)

    def off(counts: tuple[int, ...]) -> float:
        return 1.0 if len(counts) > 1 else size * (1 + tilt * counts[0] / 100)

    made = delivery(tmp_path, off, Wandering(drift=0.2, noise=0.001))
    ours = TimedFile(0, "cut", (50, 1), 0.5, 0.5 / off((100,)), None, 0.0, None)
    widths = [(count,) for count in range(100, 9, -1)]
    chosen = made.equal_width(0, ours, widths)
    assert off(chosen) * chosen[0] / 50 == pytest.approx(1, abs=EQUAL_PCT / 100 + 0.005)
    timings = len(made.folder.measurements())
    assert made.equal_width(0, ours, widths) == chosen
    assert len(made.folder.measurements()) == timings, "a resumed search times nothing again"


def test_baselines_are_timed_in_the_milliseconds_of_ours(tmp_path: Path) -> None:
    from amc_latency.search.results.result import BaselineRow

    made = delivery(tmp_path, lambda counts: 1.3, Wandering(drift=0.2))
    ours = TimedFile(0, "cut", (50,), 0.5, 0.45, None, 0.0, None)
    rows = [BaselineRow(name, counts, 0.4, 90.0, 3) for name, counts in (("a", (40,)), ("b", (80,)), ("c", (40,)))]
    found = made.timed_baselines(0, rows, ours)
    assert [row.measured_ms for row in found] == pytest.approx([0.36, 0.72, 0.36])
    assert [row.predicted_ms for row in found] == [0.4] * 3


def evidence(said: list[str]) -> Evidence:
    costs = SimpleNamespace(architecture=SimpleNamespace(shapes=lambda counts: counts))
    table = SimpleNamespace(path="t.tsv")
    predictor = SimpleNamespace(standard_error_ms=lambda shapes: 0.02, ms=lambda shapes: 1.0, table=table)
    return Evidence(predictor, costs, said.append)  # type: ignore[arg-type]


def timed(ms: float) -> TimedFile:
    return TimedFile(0, "original", (1,), 1.0, ms, None, ms, ms)


@pytest.mark.parametrize(("is_relative", "factor"), [(True, 1.0), (False, 1.08)])
def test_drift_shifts_milliseconds_and_no_speed_up(is_relative: bool, factor: float) -> None:
    said: list[str] = []
    found = evidence(said)
    found.add_drift(1.0, timed(1.08), is_relative)
    assert found.factor((1,)) == pytest.approx(factor)
    assert "+8.0 % off the table's now" in said[0]


def test_a_device_that_is_another_one_now_is_refused() -> None:
    # 30 % either way, as a ratio; by a single round nothing is sure.
    evidence([]).add_drift(1.0, replace(timed(2.0), high_ms=None), True)
    evidence([]).add_drift(1.0, replace(timed(1.5), low_ms=1.2, high_ms=1.9), True)
    for ms in (1.31, 0.6):
        with pytest.raises(JobError, match="not as it was: name another `table`"):
            evidence([]).add_drift(1.0, timed(ms), True)


def test_no_drift_is_not_told() -> None:
    said: list[str] = []
    found = evidence(said)
    found.add_drift(1.0, timed(1.005), False)
    assert (said, found.factor((1,))) == ([], 1.0)


def test_a_faster_device_shifts_nothing_and_says_so() -> None:
    said: list[str] = []
    evidence(said).add_drift(1.0, timed(0.92), False)
    assert said == ["the uncut network's milliseconds are -8.0 % off the table's now: predictions stay as they are"]


def test_a_table_that_cannot_be_written_ends_no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise TableError("cannot write to t.tsv")

    monkeypatch.setattr(evidence_module, "decisive_layers", lambda *_: [])
    monkeypatch.setattr(evidence_module, "retime", refused)
    said: list[str] = []
    found = evidence(said)
    found.add((1,), 1.0, timed(1.08), Wandering())
    assert "1.0800 ms is +8.0 % off the prediction of 1.0000 ms, which should be off by 3.9 % at most" in said[0]
    assert said[1] == "what they take is not kept: cannot write to t.tsv"
    assert found.factor((1,)) == pytest.approx(1.08)


def test_of_two_timings_of_one_result_the_last_one_counts(tmp_path: Path) -> None:
    made = delivery(tmp_path, lambda counts: 1.0, Wandering())
    for ms in (0.49, 0.51):
        made.folder.append_measurement(TimedFile(0, "final ours", (50,), 0.5, ms, 0.5, ms, ms))
    best = SimpleNamespace(counts=(50,))
    over = made.known_over(0, best, 0.5)  # type: ignore[arg-type]
    assert over is not None
    assert over.measured_ms == 0.51
    assert made.known_over(0, best, 0.52) is None  # type: ignore[arg-type]
