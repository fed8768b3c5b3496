"""The worker's runs: in which order, how many, which are believed, and both states with the real LiteRT."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from amc_latency.device.base import Workload
from amc_latency.device.host import host_worker
from amc_latency.device.host.host import HostDevice
from amc_latency.device.host.reference import ReferenceSpeeds
from amc_latency.device.kinds import HOST_PROTOCOL
from amc_latency.lut.building.layer_model import layer_model
from amc_latency.lut.shapes.shape import LayerShape

SENTINEL = Path(host_worker.__file__).parents[1] / "workers" / "sentinel.tflite"
POINTWISE = LayerShape("conv", 32, 32, 14, 14)


class Clocked:
    """Stands in for a loaded model: each run takes a millisecond on the worker's clock."""

    def __init__(self, name: str, log: list[str], clock: list[int]) -> None:
        self.name = name
        self.log = log
        self.clock = clock

    def set_inputs(self) -> None:
        self.log.append(f"{self.name} inputs")

    def touch_outputs(self) -> None:
        self.log.append(f"{self.name} outputs")

    def invoke(self) -> None:
        self.log.append(f"{self.name} warm")

    def sample(self) -> tuple[int, int]:
        self.log.append(self.name)
        self.clock[0] += 1_000_000
        return 1_000_000, 1_000_000


def run_worker(
    monkeypatch: pytest.MonkeyPatch,
    touch_bytes: int,
    runs: int,
    min_time_ms: float = 0.0,
    max_runs: int = 1000,
    kind: type[Clocked] = Clocked,
) -> tuple[dict[str, Any], list[str]]:
    clock, log = [0], []
    monkeypatch.setattr(host_worker, "perf_counter_ns", lambda: clock[0])
    model, sentinel = kind("model", log, clock), kind("sentinel", log, clock)
    job = {"warmup": 2, "warmup_ms": 0.0, "runs": runs, "min_time_ms": min_time_ms, "max_runs": max_runs}
    found = host_worker.timed(model, sentinel, {**job, "touch_bytes": touch_bytes})  # type: ignore[arg-type]
    assert log[:2] == ["model warm"] * 2
    return found, log[2:]


def test_in_a_frame_each_run_follows_one_of_the_sentinel(monkeypatch: pytest.MonkeyPatch) -> None:
    found, log = run_worker(monkeypatch, touch_bytes=64, runs=3)
    frame = [f"{name}{what}" for name in ("sentinel", "model") for what in (" outputs", " inputs", "", "")]
    assert log == frame * 3
    assert found["chunk"] == [0, 1, 2]
    assert len(found["sentinel_cpu_ns"]) == len(found["sentinel_wall_ns"]) == 3


@pytest.mark.parametrize(("takes_ms", "settling"), [(0.2, 0), (1.0, 0), (1.6, 2), (2.0, 4), (50.0, 12)])
def test_after_a_large_model_the_sentinel_settles(
    monkeypatch: pytest.MonkeyPatch, takes_ms: float, settling: int
) -> None:
    class Large(Clocked):
        def invoke(self) -> None:
            super().invoke()
            self.clock[0] += round(takes_ms * 1e6)

    _, log = run_worker(monkeypatch, touch_bytes=64, runs=2, kind=Large)
    frame = [f"{name}{what}" for name in ("sentinel", "model") for what in (" outputs", " inputs", "", "")]
    assert log == [*["sentinel warm"] * settling, *frame] * 2


def test_in_a_frame_either_runs_a_second_time_back_to_back(monkeypatch: pytest.MonkeyPatch) -> None:
    took_us = {"sentinel": (200, 120), "model": (100, 40)}

    class Quicker(Clocked):
        def sample(self) -> tuple[int, int]:
            second = self.log[-1] == self.name
            super().sample()
            cpu_ns = 1000 * took_us[self.name][second]
            return cpu_ns, cpu_ns + 7

    found, _ = run_worker(monkeypatch, touch_bytes=64, runs=3, kind=Quicker)
    for prefix, us in (("", 100), ("hot_", 40), ("sentinel_", 200), ("sentinel_hot_", 120)):
        assert found[f"{prefix}cpu_ns"] == [1000 * us] * 3
        assert found[f"{prefix}wall_ns"] == [1000 * us + 7] * 3


def test_hot_runs_go_on_for_two_milliseconds_after_the_sentinels(monkeypatch: pytest.MonkeyPatch) -> None:
    found, log = run_worker(monkeypatch, touch_bytes=0, runs=5)
    chunk = ["sentinel warm", "sentinel", "model warm", "model", "model"]
    assert log == [*chunk, *chunk, *chunk[:-1]]
    assert found["chunk"] == [0, 0, 1, 1, 2]
    assert len(found["sentinel_cpu_ns"]) == 3
    assert not any("hot" in name for name in found)


@pytest.mark.parametrize("touch_bytes", [0, 64])
def test_runs_go_on_until_the_least_time_or_the_most_runs(monkeypatch: pytest.MonkeyPatch, touch_bytes: int) -> None:
    found, _ = run_worker(monkeypatch, touch_bytes, runs=2, min_time_ms=1000.0, max_runs=7)
    assert len(found["cpu_ns"]) == len(found["wall_ns"]) == len(found["chunk"]) == 7
    found, _ = run_worker(monkeypatch, touch_bytes, runs=1, min_time_ms=9.5)
    # A frame takes four milliseconds. Hot, the first chunk is asked for one run and takes two, others three for two.
    assert len(found["cpu_ns"]) == (3 if touch_bytes else 1 + 2 + 2 + 2)


def test_a_run_that_was_read_short_takes_its_chunk_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Short(Clocked):
        def sample(self) -> tuple[int, int]:
            cpu_ns, wall_ns = super().sample()
            # Two runs a frame: the third is the second frame's first.
            run = self.log.count("model")
            return (400_000 if run == 3 else cpu_ns + run), wall_ns

    log, clock = [], [0]
    monkeypatch.setattr(host_worker, "perf_counter_ns", lambda: clock[0])
    job = {"warmup": 0, "warmup_ms": 0.0, "runs": 4, "min_time_ms": 0.0, "max_runs": 4, "touch_bytes": 64}
    found = host_worker.timed(Short("model", log, clock), Clocked("sentinel", log, clock), job)  # type: ignore[arg-type]
    assert (found["chunk"], found["cpu_ns"]) == ([0, 2, 3], [1_000_001, 1_000_005, 1_000_007])
    assert found["hot_cpu_ns"] == [1_000_002, 1_000_006, 1_000_008]
    assert len(found["sentinel_cpu_ns"]) == len(found["sentinel_hot_cpu_ns"]) == 4


@pytest.mark.parametrize("state", ["hot", "frame"])
def test_both_states_run_with_the_real_litert(tmp_path: Path, state: Literal["hot", "frame"]) -> None:
    device = HostDevice(references=ReferenceSpeeds(tmp_path / "speeds.json"))
    protocol = replace(HOST_PROTOCOL, state=state, runs=6, rounds=1)
    models = {"layer": layer_model(POINTWISE), "sentinel": SENTINEL.read_bytes()}
    found = list(device.time([Workload(name, lambda m=m: m) for name, m in models.items()], protocol))
    reference_us = device.reference_us(protocol)
    speed = device.speed(protocol)
    assert speed.us == reference_us
    kept = sorted(json.loads((tmp_path / "speeds.json").read_text()).values())
    assert kept == (sorted(speed) if state == "frame" else [reference_us])
    for timing in found:
        # A neighbour may take one of the six away.
        assert timing.error is None
        assert 5 <= timing.n <= 6
        conditions = json.loads(timing.conditions)
        assert conditions["reference_us"] == pytest.approx(reference_us, abs=0.006)
        assert conditions["sentinel_us"] > 0
        if state == "frame":
            assert conditions["reference_hot_us"] == pytest.approx(speed.hot_us, abs=0.006)
            assert conditions["sentinel_hot_us"] > 0
        for summary in (timing.cpu, timing.wall):
            assert summary is not None
            figures = [summary.min_us, summary.p10_us, summary.median_us, summary.p90_us, summary.p99_us]
            assert all(figure is not None and 0 < figure < math.inf for figure in figures)
            assert figures == sorted(figures)  # type: ignore[type-var]
