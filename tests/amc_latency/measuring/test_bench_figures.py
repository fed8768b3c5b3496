"""`bench` in both cache states and beside other files: figures, ratios and verdicts of devices that are known."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from amc_latency.device.base import Device, DeviceError, DeviceIdentity, Protocol, Summary, Timing, Workload
from amc_latency.lut.tflite.writer import TfliteGraph

from amc_latency.cli.bench_text import bench_text
from amc_latency.console import Console
from amc_latency.errors import JobError, UserError
from amc_latency.measuring.bench import BenchConfig, BenchReport, bench, check_speedup

# `amc_latency.measuring.bench` is the function of that name.
bench_module = import_module("amc_latency.measuring.bench")

DRIFT = (1.0, 2.0, 3.0, 1.5, 7.0)
"""A round's speed; its median is 2, its mean 2.9, its standard deviation sqrt(5.8)."""


def write_model(path: Path, channels: int, size: int = 8) -> Path:
    graph = TfliteGraph()
    image = graph.input(size, size, 3)
    weight = np.ones((channels, 3, 3, 3), np.float32)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(graph.finish([graph.conv(image, weight, np.zeros(channels, np.float32), padding=1)]))
    return path


class Known(Device):
    """A file takes what `us` says of its name in a round; twice that in state `frame`, on a device that drifts."""

    identity = DeviceIdentity("known", "a test", "nothing")
    protocol = Protocol(rounds=1, state="frame", statistic="median")
    states = ("frame", "hot")

    def __init__(self, us: Callable[[str, int], float]) -> None:
        self._us = us
        self.order: list[tuple[str, int]] = []

    def time_round(self, workloads: Sequence[Workload], protocol: Protocol, round_index: int) -> Iterator[Timing]:
        self.order.append((protocol.state, round_index))
        drift = DRIFT[round_index % len(DRIFT)]
        conditions = json.dumps({"sentinel_us": 100 * drift, "reference_us": 100})
        for workload in workloads:
            cpu_us = self._us(workload.name, round_index) * drift * (2 if protocol.state == "frame" else 1)
            cpu, wall = (
                Summary(0.5 * us, us, 2 * us, 0.0, 0.8 * us, 1.2 * us, 1.5 * us) for us in (cpu_us, 10 * cpu_us)
            )
            yield Timing(workload.name, round_index, 20, cpu, wall, conditions=conditions)


class Phone(Device):
    """Prints a mean by the wall clock and nothing else."""

    identity = DeviceIdentity("phone", "a test", "nothing")
    protocol = Protocol(rounds=1, clock="wall", statistic="mean")

    def time_round(self, workloads: Sequence[Workload], protocol: Protocol, round_index: int) -> Iterator[Timing]:
        for workload in workloads:
            us = {"small.tflite": 1000.0, "large.tflite": 3000.0}[workload.name] * DRIFT[round_index]
            wall = Summary(None, None, us, None)
            yield Timing(workload.name, round_index, 5, wall=wall, conditions='{"sentinel_us": [100.0, 200.0]}')


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return write_model(tmp_path / "small.tflite", 8), write_model(tmp_path / "large.tflite", 32)


def ran(
    monkeypatch: pytest.MonkeyPatch, device: Device, config: BenchConfig, console: Console | None = None
) -> BenchReport:
    monkeypatch.setattr(bench_module, "open_device", lambda *_: device)
    return bench(config, console or Console(quiet=True))


def of_shares(shares: Sequence[float]) -> Known:
    """The small file takes that share of the large one's 10 us, round by round; the last share stays."""
    return Known(lambda name, index: 10 * shares[min(index, len(shares) - 1)] if name == "small.tflite" else 10.0)


def test_the_ratio_is_right_where_the_milliseconds_drift(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small, large = files
    device = of_shares([0.4])
    report = ran(monkeypatch, device, BenchConfig(small, rounds=5, against=(large,)))
    assert device.order == [(state, index) for index in range(5) for state in ("frame", "hot")]
    assert report.latency_ms == pytest.approx(2 * 4 * 2 / 1e3)
    assert report.interval_ms is not None
    assert report.interval_ms[0] < 0.016 < report.interval_ms[1]
    assert list(report.states) == ["frame", "hot"]
    (other,) = report.against
    for state, factor in (("frame", 2), ("hot", 1)):
        assert report.states[state].latency_ms == pytest.approx(factor * 4 * 2 / 1e3)
        assert other.states[state].latency_ms == pytest.approx(factor * 10 * 2 / 1e3)
        both = other.compared[state]
        assert (both.ratio.value, both.ratio.low, both.ratio.high) == pytest.approx((0.4, 0.4, 0.4))
        assert (both.speedup.value, both.speedup.low, both.speedup.high) == pytest.approx((2.5, 2.5, 2.5))
        assert both.rounds == 5
    bench_text(report)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("0.0160 ms (median over 5 rounds of the median thread CPU time, state frame, 95 % ")
    assert lines[0].endswith(", 100 runs) on known: a test, nothing")
    assert any("0.0160 and 0.0400 ms, ratio 0.4000 (95 % 0.4000 to 0.4000): 2.5x as fast" in line for line in lines)


def test_each_state_has_the_figures_of_both_clocks(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    report = ran(monkeypatch, of_shares([0.4]), BenchConfig(files[0], rounds=5))
    hot = report.states["hot"]
    for clock, factor in ((hot.cpu, 1), (hot.wall, 10)):
        assert clock is not None
        found = (clock.median_ms, clock.p90_ms, clock.p99_ms, clock.min_ms, clock.mean_ms)
        # Each round's figure at the median drift of 2; the minimum is that of the fastest round.
        assert found == pytest.approx([factor * ms for ms in (0.008, 0.0096, 0.012, 0.002, 0.016)])
        assert clock.processes_sd_pct == pytest.approx(100 * math.sqrt(5.8) / 2.9)
    assert hot.speed_pct == pytest.approx(50)
    assert hot.n == 100


def test_one_state_may_be_picked(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    report = ran(monkeypatch, of_shares([0.4]), BenchConfig(files[0], rounds=5, state="hot"))
    assert (report.state, list(report.states)) == ("hot", ["hot"])
    assert report.latency_ms == pytest.approx(0.008)


def test_several_threads_have_wall_time_alone(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    report = ran(monkeypatch, of_shares([0.4]), BenchConfig(files[0], rounds=5, threads=2))
    assert report.latency_ms == pytest.approx(0.16)
    assert all(figures.cpu is None and figures.wall is not None for figures in report.states.values())


@pytest.mark.parametrize(
    ("shares", "least", "verdict", "rounds"),
    [
        ([0.4], 3, "met", 3),
        ([0.8], 3, "not met", 3),
        # Student's interval of two rounds reaches from 0.24 to 0.93, that of four, the next look, from 0.43 to 0.52.
        ([0.45, 0.5], 2, "met", 4),
        ([0.4, 0.9] * 10, 3, "within the noise", 12),
    ],
)
def test_rounds_are_added_until_a_speed_up_is_decided(
    files: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    shares: list[float],
    least: int,
    verdict: str,
    rounds: int,
) -> None:
    small, large = files
    config = BenchConfig(small, rounds=least, against=(large,), speedup=1 / 0.6)
    report = ran(monkeypatch, of_shares(shares), config)
    assert report.speedup is not None
    assert (report.speedup.verdict, report.speedup.state) == (verdict, "frame")
    assert (report.states["frame"].rounds, report.states["hot"].rounds) == (rounds, least)
    bench_text(report)
    said = f"speed-up of 1.66667 over large.tflite, state frame, {rounds} rounds: {verdict}"
    assert said + (": +-" if verdict == "within the noise" else "\n") in capsys.readouterr().out
    if verdict == "not met":
        with pytest.raises(JobError, match=r"small.tflite is 1.25 times as fast as large.tflite, not 1.66667"):
            check_speedup(report)
    else:
        check_speedup(report)


def test_one_round_has_a_ratio_and_no_interval(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    report = ran(monkeypatch, of_shares([0.4]), BenchConfig(files[0], rounds=1, against=(files[1],)))
    assert report.interval_ms is None
    speedup = report.against[0].compared["hot"].speedup
    assert (speedup.value, speedup.low, speedup.high) == (pytest.approx(2.5), None, None)
    json.dumps(asdict(report), allow_nan=False)
    bench_text(report)


def test_what_takes_no_time_by_the_clock_is_not_compared(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = files
    report = ran(monkeypatch, of_shares([0.0]), BenchConfig(small, rounds=3))
    assert (report.latency_ms, report.interval_ms, report.spread) == (0.0, None, None)
    bench_text(report)
    with pytest.raises(DeviceError, match="a model took 0 us"):
        ran(monkeypatch, of_shares([0.0]), BenchConfig(small, rounds=3, against=(large,)))


def test_a_phone_has_one_state_and_what_it_prints(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small, large = files
    report = ran(monkeypatch, Phone(), BenchConfig(small, rounds=5, against=(large,)))
    assert list(report.states) == ["hot"]
    hot = report.states["hot"]
    assert hot.cpu is None
    assert hot.speed_pct is None
    assert hot.wall is not None
    assert (hot.wall.median_ms, hot.wall.mean_ms) == (None, pytest.approx(2.0))
    assert report.against[0].compared["hot"].ratio.value == pytest.approx(1 / 3)
    bench_text(report)
    assert "mean 2.0000" in capsys.readouterr().out
    with pytest.raises(UserError, match="phone is timed in state hot only: leave out `state`"):
        ran(monkeypatch, Phone(), BenchConfig(small, state="frame"))


def test_files_of_one_name_are_told_apart_and_different_inputs_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = write_model(tmp_path / "a" / "net.tflite", 8), write_model(tmp_path / "b" / "net.tflite", 8, size=9)
    copy = tmp_path / "copy.tflite"
    copy.write_bytes(one.read_bytes())
    device = Known(lambda name, index: 10.0 if name == str(one) else 20.0)
    report = ran(monkeypatch, device, BenchConfig(one, rounds=2, against=(other, copy)), Console())
    assert (report.file, [each.file for each in report.against]) == (str(one), [str(other), "copy.tflite"])
    assert report.against[0].compared["hot"].ratio.value == pytest.approx(0.5)
    different, same = capsys.readouterr().err.splitlines()
    assert different.startswith(f"{one} and {other} have different inputs, x 1x8x8x3 and x 1x9x9x3")
    assert same.startswith(f"{one} and copy.tflite are the same byte for byte")


def test_what_makes_no_sense_is_refused_before_anything_is_timed(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = files
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"\0\0\0\0TFL3" + b"\xff" * 40)
    link = tmp_path / "link.tflite"
    link.symlink_to(small)
    refused = {
        r"`speedup` is over another file: name it with `against`": BenchConfig(small, speedup=2),
        r"`speedup` is a positive number such as 1.5, not -1": BenchConfig(small, against=(large,), speedup=-1),
        r"`speedup` is a positive number such as 1.5, not nan": BenchConfig(small, against=(large,), speedup=math.nan),
        r"`op_profile` is of one file": BenchConfig(small, against=(large,), op_profile=True),
        r"small.tflite is named twice": BenchConfig(small, against=(large, small)),
        r"link.tflite is named twice": BenchConfig(small, against=(link,)),
        r"cannot read .*missing.tflite": BenchConfig(small, against=(tmp_path / "missing.tflite",)),
        r"broken.tflite: the file is damaged": BenchConfig(small, against=(large, broken)),
        r"replay device has no hardware": BenchConfig(small, "replay", against=(large,)),
    }
    device = of_shares([0.4])
    for message, config in refused.items():
        with pytest.raises(UserError, match=message):
            ran(monkeypatch, device, config)
    assert device.order == []


def test_this_computer_times_two_files_in_both_states(
    files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    large = write_model(tmp_path / "huge.tflite", 256, size=64)
    report = bench(BenchConfig(files[0], rounds=2, runs=3, against=(large,)), Console(quiet=True))
    assert list(report.states) == ["frame", "hot"]
    for state, figures in report.states.items():
        assert figures.speed_pct is not None
        assert figures.cpu is not None
        assert figures.cpu.median_ms is not None
        assert figures.cpu.p99_ms is not None
        assert 0 < figures.cpu.median_ms <= figures.cpu.p99_ms
        # 2,000 times as many multiplications.
        assert report.against[0].compared[state].ratio.value < 0.5
