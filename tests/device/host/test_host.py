"""The host device with the real LiteRT in real worker processes, some of which die."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from amc_latency.device.base import DeviceError, Protocol, Timing, Workload
from amc_latency.device.host.host import HostDevice, cpu_model
from amc_latency.device.host.host_cores import timing_order
from amc_latency.device.host.host_speed import summary_of
from amc_latency.device.host.host_state import HostConditions, HostState
from amc_latency.device.host.host_worker import input_values
from amc_latency.device.rounds.measure import measure_many
from amc_latency.lut.building.layer_model import layer_model
from amc_latency.lut.shapes.shape import NOOP, LayerShape

ROOT = Path(__file__).resolve().parents[3]
POINTWISE = LayerShape("conv", 32, 32, 14, 14)
ADD = LayerShape("add", 16, 16, 7, 7)
SLOW = LayerShape("conv", 64, 64, 112, 112, kernel=3, padding=1)
LONG = Protocol(warmup=0, runs=1000, timeout_s=2)
"""Milliseconds for a no-op, and many seconds for `SLOW`."""

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


def work(name: str, shape: LayerShape = NOOP, before: Callable[[], object] = lambda: None) -> Workload:
    def build() -> bytes:
        before()
        return layer_model(shape)

    return Workload(name, build)


def raising(error: BaseException) -> Callable[[], object]:
    def build() -> object:
        raise error

    return build


def children() -> set[int]:
    """This process's children, zombies included."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == os.getpid():
            found.add(int(entry.name))
    return found


@pytest.fixture
def workers() -> Iterator[Callable[[], set[int]]]:
    before = children()
    yield lambda: children() - before
    assert children() <= before, "a worker was left behind"


def timed(device: HostDevice, workloads: list[Workload], protocol: Protocol) -> dict[str, Timing]:
    found = list(device.time_round(workloads, protocol, 0))
    assert [timing.workload for timing in found] == [workload.name for workload in workloads]
    return {timing.workload: timing for timing in found}


def test_layers_are_timed_on_both_clocks() -> None:
    protocol = Protocol(runs=7, rounds=2, min_time_ms=0)
    found = list(HostDevice().time([work("noop"), work("add", ADD), work("pw", POINTWISE)], protocol))
    assert sorted((timing.workload, timing.round) for timing in found) == [
        (name, round_index) for name in ("add", "noop", "pw") for round_index in (0, 1)
    ]
    for timing in found:
        assert timing.error is None
        assert timing.n == 7
        for summary in (timing.cpu, timing.wall):
            assert summary is not None
            assert 0 < summary.min_us <= min(summary.median_us, summary.mean_us)


def test_short_layers_are_run_until_the_least_time_is_over() -> None:
    few, many = (
        next(iter(HostDevice().time([work("noop")], Protocol(runs=2, rounds=1, min_time_ms=ms)))) for ms in (0, 2)
    )
    assert few.n == 2
    assert 2 < many.n <= 1000


def test_a_summary_is_arithmetic() -> None:
    found = summary_of([1000, 2000, 6000, 3000])
    assert (found.min_us, found.median_us, found.mean_us) == (1.0, 2.5, 3.0)
    assert found.std_us == pytest.approx(((4 + 1 + 9 + 0) / 4) ** 0.5)


def test_no_workloads_start_nothing() -> None:
    assert list(HostDevice().time_round([], Protocol(), 0)) == []


def test_what_is_no_model_gets_an_error_row() -> None:
    torn = layer_model(POINTWISE)[:1000]
    bad = [Workload(name, lambda b=b: b) for name, b in (("text", b"garbage"), ("empty", b""), ("torn", torn))]
    found = timed(HostDevice(), [work("a"), *bad, work("b")], Protocol())
    assert {name for name, timing in found.items() if timing.error} == {"text", "empty", "torn"}
    assert "not a valid Flatbuffer" in (found["torn"].error or "")
    assert found["torn"].cpu is None
    assert found["torn"].n == 0


def test_a_model_with_damaged_bytes_never_ends_the_round() -> None:
    def damaged(seed: int) -> bytes:
        draw, model = random.Random(seed), bytearray(layer_model(POINTWISE))
        for _ in range(3):
            model[draw.randrange(8, 500)] = draw.randrange(256)
        return bytes(model)

    bad = [Workload(f"damaged {seed}", lambda seed=seed: damaged(seed)) for seed in range(40)]
    found = timed(HostDevice(), [*bad, work("sound")], Protocol(timeout_s=3))
    assert found["sound"].error is None
    assert any(timing.error for timing in found.values())
    assert all((timing.n == 0) == bool(timing.error) for timing in found.values())


def test_a_build_that_raises_gets_an_error_row() -> None:
    broken = [work(name, NOOP, raising(KeyError("weights"))) for name in ("first", "last")]
    found = timed(HostDevice(), [broken[0], work("between"), broken[1]], Protocol())
    assert found["first"].error == found["last"].error == "not built: KeyError: 'weights'"
    assert found["between"].error is None


@needs_proc
@pytest.mark.parametrize("deadly", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_workload_that_kills_the_worker_gets_an_error_row(
    deadly: signal.Signals, workers: Callable[[], set[int]]
) -> None:
    seen: list[int] = []

    def kill_worker() -> None:
        (pid,) = workers()
        seen.append(pid)
        os.kill(pid, deadly)

    # Long after it was built, and long before its runs are over.
    later = threading.Timer(0.5, kill_worker)
    plan = [work("a"), work("victim", SLOW, later.start), work("b"), work("c")]
    found = timed(HostDevice(), plan, LONG)
    assert found["victim"].error == f"the process ended by {deadly.name}"
    assert [found[name].error for name in "abc"] == [None] * 3
    assert len(seen) == 1


@needs_proc
def test_a_workload_that_takes_too_long_gets_an_error_row(workers: Callable[[], set[int]]) -> None:
    found = timed(HostDevice(), [work("a"), work("slow", SLOW), work("b")], LONG)
    assert found["slow"].error == "no answer within 2 s"
    assert found["a"].error is None
    assert found["b"].error is None


@needs_proc
def test_each_round_has_a_new_worker_on_one_core(workers: Callable[[], set[int]]) -> None:
    seen: list[tuple[int, set[int]]] = []

    def look() -> None:
        (pid,) = workers()
        seen.append((pid, os.sched_getaffinity(pid)))

    device = HostDevice()
    for round_index in range(3):
        list(device.time_round([work("a"), work("b", NOOP, look)], Protocol(), round_index))
    pids, cores = zip(*seen, strict=True)
    assert len(set(pids)) == 3
    assert list(cores) == [{timing_order(os.sched_getaffinity(0))[-1]}] * 3


@needs_proc
def test_a_worker_of_several_threads_gets_as_many_cores(workers: Callable[[], set[int]]) -> None:
    allowed = sorted(os.sched_getaffinity(0))
    protocol = Protocol(threads=2, clock="wall")
    seen: list[set[int]] = []
    plan = [work("a"), work("b", NOOP, lambda: seen.append(os.sched_getaffinity(workers().pop())))]
    found = timed(HostDevice(allowed[0]), plan, protocol)
    assert [timing.error for timing in found.values()] == [None] * 2
    assert seen == [set(timing_order(allowed, named=allowed[0])[-2:])]
    assert allowed[0] in seen[0]
    assert len(seen[0]) == min(2, len(allowed))
    assert HostDevice().worker_cores(len(allowed) + 1) == []


def test_what_the_user_should_know_is_said_once_before_the_first_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []

    def look(*asks: object) -> HostState:
        asked.append(asks)
        return HostState(HostConditions(), ("on battery", "busy"))

    monkeypatch.setattr(import_module("amc_latency.device.host.host"), "host_state", look)
    device = HostDevice()
    said: list[str] = []
    device.say = said.append
    first, *rest = device.time([work("a", NOOP, lambda: said.append("built"))], Protocol(rounds=2))
    assert (first.error, len(rest)) == (None, 1)
    # How fast this computer is just now is not this test's.
    said = [line for line in said if "of its reference speed" not in line]
    assert said == ["on battery", "busy", "built", "built"]
    ((cores, threads, workers),) = asked
    assert cores == timing_order(os.sched_getaffinity(0))
    assert (threads, workers) == (1, ())


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs affinity")
def test_a_core_that_is_not_there_is_refused() -> None:
    with pytest.raises(DeviceError, match="core 100000 is not one"):
        HostDevice(100_000)


@needs_proc
def test_a_round_that_is_broken_off_leaves_no_process(workers: Callable[[], set[int]]) -> None:
    timings = HostDevice().time([work(str(index)) for index in range(5)], Protocol())
    next(timings)
    assert len(workers()) == 1
    timings.close()  # type: ignore[attr-defined]
    assert workers() == set()


@needs_proc
def test_ctrl_c_leaves_no_process(workers: Callable[[], set[int]]) -> None:
    plan = [work("a"), work("b", NOOP, raising(KeyboardInterrupt()))]
    with pytest.raises(KeyboardInterrupt):
        list(HostDevice().time_round(plan, Protocol(), 0))
    assert workers() == set()


@needs_proc
def test_a_measurement_that_fails_leaves_no_process(workers: Callable[[], set[int]]) -> None:
    models = {"bad": b"garbage", "good": layer_model(NOOP)}
    with pytest.raises(DeviceError, match="bad was not timed") as caught:
        measure_many(HostDevice(), models, Protocol())
    assert caught.tb is not None
    assert workers() == set()


PARENT = """
import sys
from pathlib import Path
from amc_latency.device.host import host
from amc_latency.device.base import Protocol, Workload

class Announced(host.WorkerProcess):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        print(self.pid, flush=True)

host.WorkerProcess = Announced
model = Path(sys.argv[1]).read_bytes()
plan = [Workload("noop", lambda: model)] * 10**6
for _ in host.HostDevice().time_round(plan, Protocol(runs=100), 0):
    pass
"""


@needs_proc
def test_a_killed_parent_leaves_no_worker(tmp_path: Path) -> None:
    model = tmp_path / "noop.tflite"
    model.write_bytes(layer_model(NOOP))
    # From another folder, so that nothing hangs on the current one.
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(model)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as parent:
        assert parent.stdout is not None
        worker = parent.stdout.readline().strip()
        parent.kill()
    for _ in range(200):
        stat = Path("/proc", worker, "stat")
        if not stat.exists() or ") Z " in stat.read_text():
            return
        time.sleep(0.1)
    pytest.fail(f"worker {worker} outlived its parent by 20 s")


def test_a_runtime_that_does_not_import_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ai_edge_litert").mkdir()
    (tmp_path / "ai_edge_litert" / "__init__.py").write_text("raise ImportError('no such CPU')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(DeviceError, match=r"did not start.*no such CPU.*Is ai-edge-litert installed"):
        list(HostDevice().time_round([work("a")], Protocol(), 0))


def test_a_python_that_is_gone_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(DeviceError, match=r"cannot start /nowhere/python: .*No such file"):
        list(HostDevice().time_round([work("a")], Protocol(), 0))


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8", "int32", "int64", "bool"])
def test_inputs_of_any_type_have_values_that_exist(dtype: str) -> None:
    values = input_values(np.random.default_rng(0), np.array([1, 20, 20, 3]), np.dtype(dtype))
    assert values.shape == (1, 20, 20, 3)
    assert values.dtype == dtype
    if values.dtype.kind == "f":
        assert -1 <= values.min() < -0.9 < 0.9 < values.max() <= 1
    elif values.itemsize == 1 and dtype != "bool":
        assert (values.min(), values.max()) == (np.iinfo(dtype).min, np.iinfo(dtype).max)
    else:
        assert not values.any()


X86 = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n\n"
ARM = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n\nModel\t\t: Raspberry Pi 5 Model B\n"


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        (X86 + X86.replace("17", "18"), "AMD EPYC (cpu family 25, model 17)"),
        (ARM, "Raspberry Pi 5 Model B (CPU implementer 0x41, CPU part 0xd0b)"),
    ],
)
def test_a_cpu_is_known_by_name_and_numbers(tmp_path: Path, cpuinfo: str, name: str) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert cpu_model(tmp_path / "cpuinfo") == name


def test_the_identity_says_which_runtime() -> None:
    from ai_edge_litert import __version__

    assert HostDevice().identity.runtime == f"ai-edge-litert {__version__} xnnpack"
    assert HostDevice().identity == HostDevice().identity
