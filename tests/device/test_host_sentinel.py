"""The sentinel network beside each run: how speeds cancel, what a restless timing becomes, and the file itself."""

from __future__ import annotations

import itertools
import json
import math
import statistics
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from device import host_worker
from device.base import DeviceError, Protocol, Timing, Workload
from device.fleet import Fleet
from device.host import HostDevice, _wandering, at_reference, smoothed, summary_of
from device.host_cores import CoreKind
from device.host_state import HostConditions, HostState
from device.process import WorkerDied
from device.profiles import HOST_PROTOCOL
from device.reference import ReferenceSpeeds
from lut.layer_model import layer_model
from lut.shape import LayerShape

ROOT = Path(__file__).resolve().parents[2]
SENTINEL = ROOT / "device" / "sentinel.tflite"
POINTWISE = LayerShape("conv", 32, 32, 14, 14)
HOT, FRAME = replace(HOST_PROTOCOL, state="hot"), HOST_PROTOCOL


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([5], [5]),
        ([1, 9, 1, 1, 1], [1, 1, 1, 1, 1]),
        ([1, 1, 1, 3, 3, 3], [1, 1, 1, 3, 3, 3]),
        ([1, 2, 3, 4, 5, 6, 7], [2, 2.5, 3, 4, 5, 5.5, 6]),
    ],
)
def test_a_speed_is_the_median_of_five_sentinels(values: list[float], expected: list[float]) -> None:
    assert smoothed(values) == expected


@pytest.mark.parametrize(
    ("sentinel_ns", "share"),
    [
        ([200] * 20, 0.0),
        # Two in twenty alone, however long they took, are luck; half of them are another speed.
        ([200] * 6 + [900] + [200] * 6 + [900] + [200] * 6, 0.0),
        ([200] * 10 + [300] * 10, 0.5),
        ([300] * 10 + [200] * 10, 0.5),
        # The middle 80 %: two in twenty are left out on each side.
        ([200] * 18 + [300] * 2, 0.0),
        ([200, 200, 200, 260, 260, 260], 0.3),
        ([200], 0.0),
    ],
)
def test_how_far_the_speed_wandered(sentinel_ns: list[int], share: float) -> None:
    assert _wandering(sentinel_ns) == pytest.approx(share)


def answer(
    samples_ns: Sequence[int], sentinel_ns: Sequence[int], chunk: Sequence[int] | None = None, wall: float = 1.5
) -> dict[str, Any]:
    """A worker's, whose wall times are longer by one factor."""
    return {
        "cpu_ns": list(samples_ns),
        "wall_ns": [round(wall * ns) for ns in samples_ns],
        "chunk": list(range(len(samples_ns)) if chunk is None else chunk),
        "sentinel_cpu_ns": list(sentinel_ns),
        "sentinel_wall_ns": [round(2 * ns) for ns in sentinel_ns],
    }


def test_samples_twice_as_long_beside_sentinels_twice_as_long_come_out_the_same() -> None:
    quick, slow = answer([50_000] * 8, [200_000] * 8), answer([100_000] * 8, [400_000] * 8)
    for found in (quick, slow):
        assert at_reference(found, "cpu", "cpu", 200.0) == pytest.approx([50_000] * 8)
        assert at_reference(found, "cpu", "cpu", 300.0) == pytest.approx([75_000] * 8)


def test_minimum_and_median_hold_where_the_speed_changes_midway() -> None:
    samples = [52_000, 50_000, 51_000, 54_000, 53_000]
    changing = answer([*samples, *(3 * ns for ns in samples)], [200_000] * 5 + [600_000] * 5)
    found = summary_of(at_reference(changing, "cpu", "cpu", 200.0))
    assert (found.min_us, found.median_us, found.mean_us) == pytest.approx((50.0, 52.0, 52.0))
    # The speed is the counted clock's, for both clocks: wall time waits for other things too.
    wall = summary_of(at_reference(changing, "wall", "cpu", 200.0))
    assert (wall.min_us, wall.median_us) == pytest.approx((75.0, 78.0))
    other = summary_of(at_reference(changing, "wall", "wall", 200.0))
    assert other.min_us == pytest.approx(75.0 / 2)


def test_each_sample_goes_by_the_sentinel_of_its_own_chunk() -> None:
    # Chunks of four, one and three runs; a run that was read wrongly is missing from the first.
    sentinels = [200_000] * 3 + [400_000] * 3
    found = answer([10_000, 10_000, 10_000, 20_000, 20_000, 20_000, 20_000], sentinels, [0, 0, 2, 3, 3, 3, 5])
    assert at_reference(found, "cpu", "cpu", 100.0) == pytest.approx([5_000] * 7)


class Scripted:
    """A worker that gives prepared answers, and keeps the jobs that it was sent."""

    def __init__(self, *answers: dict[str, Any] | Exception) -> None:
        self.answers = list(answers)
        self.jobs: list[Mapping[str, Any]] = []
        self.payloads: list[bytes] = []
        self.alive = True
        self.started = 0

    def __call__(self, *arguments: object) -> Scripted:
        self.started += 1
        return self

    def send(self, job: Mapping[str, Any], payload: bytes, timeout_s: float) -> None:
        self.jobs.append(job)
        self.payloads.append(payload)

    def answer(self) -> dict[str, Any]:
        found = self.answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    def stop(self) -> None:
        pass


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HostDevice:
    """Nothing is wrong with its computer, and its reference lies in a folder of the test's."""
    monkeypatch.setattr("device.host.host_state", lambda *asked: HostState(HostConditions(), ()))
    return HostDevice(references=ReferenceSpeeds(tmp_path / "speeds.json"))


def one_timing(
    device: HostDevice, worker: Scripted, monkeypatch: pytest.MonkeyPatch, protocol: Protocol = FRAME
) -> Timing:
    monkeypatch.setattr("device.host.WorkerProcess", worker)
    (timing,) = device.time_round([Workload("a", lambda: b"model")], protocol, 0)
    return timing


CALM = answer([50_000] * 20, [250_000] * 20)


def restless(share: float) -> dict[str, Any]:
    """The speed changes by that share midway, and the samples say which answer it was."""
    return answer([round(100_000 * share)] * 20, [200_000] * 10 + [round(200_000 * (1 + share))] * 10)


def test_a_row_says_at_which_speed_it_is_given(device: HostDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    device.use_reference(FRAME, 200.0)
    samples = [61_000, 50_000, 57_000, 55_000, 52_000]
    timing = one_timing(device, Scripted(answer(samples, [250_000] * 5)), monkeypatch)
    assert json.loads(timing.conditions) == {"sentinel_us": 250.0, "reference_us": 200.0}
    assert timing.cpu is not None
    assert timing.wall is not None
    for summary, factor in ((timing.cpu, 1.0), (timing.wall, 1.5)):
        assert summary.median_us is not None
        # What the clock showed is the row's latency x sentinel_us / reference_us.
        assert summary.median_us * 250 / 200 == pytest.approx(factor * 55.0)
    assert timing.cpu.median_us == pytest.approx(44.0)


@pytest.mark.parametrize(("answers", "tries"), [([CALM], 1), ([restless(0.5), CALM], 2), ([restless(0.29)], 1)])
def test_a_restless_timing_is_made_again(
    device: HostDevice, monkeypatch: pytest.MonkeyPatch, answers: list[dict[str, Any]], tries: int
) -> None:
    device.use_reference(FRAME, 200.0)
    worker = Scripted(*answers)
    timing = one_timing(device, worker, monkeypatch)
    assert len(worker.jobs) == tries
    assert set(json.loads(timing.conditions)) == {"sentinel_us", "reference_us"}
    if answers[-1] is CALM:
        assert timing.latency_us(FRAME) == pytest.approx(50.0 * 200 / 250)


def test_one_that_stays_restless_is_the_calmest_and_suspect(
    device: HostDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.use_reference(FRAME, 200.0)
    worker = Scripted(restless(0.5), restless(0.4), restless(0.6))
    timing = one_timing(device, worker, monkeypatch)
    assert worker.answers == []
    assert set(worker.payloads) == {b"model"}
    conditions = json.loads(timing.conditions)
    assert (conditions["tries"], conditions["suspect"]) == (3, ["speed wandered by 40 %"])
    # Samples of 40 us, half of them beside sentinels of 200 us, half beside 280.
    assert timing.cpu is not None
    assert (timing.cpu.min_us, timing.cpu.p90_us) == pytest.approx((40 * 200 / 280, 40.0))


def test_a_worker_that_fails_gives_an_error_row(device: HostDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    device.use_reference(FRAME, 200.0)
    for failure, error in ((WorkerDied("the process ended"), "the process ended"), ({"error": "no op"}, "no op")):
        timing = one_timing(device, Scripted(failure), monkeypatch)
        assert (timing.error, timing.cpu, timing.n) == (error, None, 0)


@pytest.mark.parametrize("failure", [WorkerDied("no answer within 60 s"), {"error": "no op"}])
def test_a_failure_of_another_try_loses_nothing_of_the_first(
    device: HostDevice, monkeypatch: pytest.MonkeyPatch, failure: dict[str, Any] | Exception
) -> None:
    device.use_reference(FRAME, 200.0)
    timing = one_timing(device, Scripted(restless(0.5), failure), monkeypatch)
    assert timing.error is None
    # Samples of 50 us, half of them beside sentinels of 200 us, half beside 300.
    assert timing.cpu is not None
    assert (timing.cpu.min_us, timing.cpu.p90_us) == pytest.approx((50 * 200 / 300, 50.0))
    conditions = json.loads(timing.conditions)
    assert (conditions["tries"], conditions["suspect"]) == (2, ["speed wandered by 50 %"])


def test_a_speed_far_off_the_reference_is_said_once(device: HostDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    device.say = said.append
    device.use_reference(FRAME, 200.0)
    for sentinel_ns in (220_000, 400_000, 410_000):
        one_timing(device, Scripted(answer([50_000] * 5, [sentinel_ns] * 5)), monkeypatch)
    (line,) = said
    assert line.startswith("this computer runs at 50 % of its reference speed now")


@pytest.mark.parametrize(("protocol", "touched"), [(HOT, 0), (FRAME, 8 << 20), (replace(FRAME, frame_mb=3), 3 << 20)])
def test_the_worker_is_told_how_much_memory_a_frame_touches(
    device: HostDevice, monkeypatch: pytest.MonkeyPatch, protocol: Protocol, touched: int
) -> None:
    device.use_reference(protocol, 200.0)
    worker = Scripted(CALM)
    one_timing(device, worker, monkeypatch, protocol)
    (job,) = worker.jobs
    assert (job["touch_bytes"], job["runs"]) == (touched, 20)


def test_the_reference_is_timed_once_for_each_state(
    device: HostDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = answer([1_000] * 5, [240_000, 260_000, 250_000, 900_000, 230_000])
    worker = Scripted(first, CALM, CALM)
    timing = one_timing(device, worker, monkeypatch)
    assert worker.payloads == [SENTINEL.read_bytes(), b"model"]
    assert worker.jobs[0]["runs"] == 100
    assert json.loads(timing.conditions)["reference_us"] == 250.0
    again = HostDevice(references=ReferenceSpeeds(tmp_path / "speeds.json"))
    assert again.reference_us(FRAME) == device.reference_us(FRAME) == 250.0
    one_timing(device, worker, monkeypatch)
    assert worker.answers == []
    # Another state, clock, number of threads or amount of memory is another speed.
    for other in (HOT, replace(FRAME, frame_mb=16), replace(FRAME, clock="wall")):
        worker.answers = [answer([1_000] * 5, [180_000] * 5)]
        assert device.reference_us(other) == (360.0 if other.clock == "wall" else 180.0)
    assert len(json.loads((tmp_path / "speeds.json").read_text())) == 4


def test_a_reference_is_not_taken_in_a_restless_moment(device: HostDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device.host.WorkerProcess", Scripted(restless(0.5), CALM))
    assert device.reference_us(FRAME) == 250.0


def test_a_core_of_another_kind_has_a_reference_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device.host.allowed_cores", lambda: [0, 1])
    kinds = [CoreKind("P-core", (1,)), CoreKind("E-core", (0,))]
    found = []
    for kinds_seen, core in ((kinds, 1), (kinds, 0), ([], 0)):
        monkeypatch.setattr("device.host.core_kinds", lambda seen=kinds_seen: seen)
        device = HostDevice(core, references=ReferenceSpeeds(tmp_path / "speeds.json"))
        monkeypatch.setattr("device.host.WorkerProcess", Scripted(answer([1_000], [100_000 * (len(found) + 1)])))
        found.append(device.reference_us(FRAME))
    assert found == [100.0, 200.0, 300.0]


@pytest.mark.parametrize("failure", [{"error": "LiteRT failed: no op"}, WorkerDied("no answer within 60 s")])
def test_a_sentinel_that_cannot_be_timed_is_a_device_error(
    device: HostDevice, monkeypatch: pytest.MonkeyPatch, failure: dict[str, Any] | Exception
) -> None:
    with pytest.raises(DeviceError, match=r"sentinel network cannot be timed: .*no "):
        one_timing(device, Scripted(failure), monkeypatch)


def test_a_reference_that_cannot_be_kept_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device.host.host_state", lambda *asked: HostState(HostConditions(), ()))
    (tmp_path / "file").write_text("")
    device = HostDevice(references=ReferenceSpeeds(tmp_path / "file" / "speeds.json"))
    said: list[str] = []
    device.say = said.append
    for answers in ((CALM, CALM), (CALM,)):
        one_timing(device, Scripted(*answers), monkeypatch)
    (line,) = said
    assert line.startswith("cannot keep this computer's reference speed")


@pytest.mark.parametrize(("own_us", "says"), [(None, False), (200.0, False), (201.9, False), (202.1, True)])
def test_a_tables_reference_is_gone_on_at_and_the_users_own_stays(
    tmp_path: Path, own_us: float | None, says: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    references = ReferenceSpeeds(tmp_path / "speeds.json")
    device = HostDevice(references=references)
    if own_us is not None:
        monkeypatch.setattr("device.host.WorkerProcess", Scripted(answer([1_000], [round(1000 * own_us)])))
        assert device.reference_us(FRAME) == own_us
    before = (tmp_path / "speeds.json").read_bytes() if own_us else None
    line = device.use_reference(FRAME, 200.0)
    assert (line is not None) == says
    if line:
        assert "200.0 us" in line
        assert "own reference is 202.1 us" in line
    assert device.reference_us(FRAME) == 200.0
    assert ((tmp_path / "speeds.json").read_bytes() if own_us else None) == before
    assert (tmp_path / "speeds.json").exists() == (own_us is not None)


def test_the_cores_of_a_fleet_go_on_at_it_too_and_say_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    references = ReferenceSpeeds(tmp_path / "speeds.json")
    members = {name: HostDevice(references=references) for name in ("core 0", "core 1")}
    monkeypatch.setattr("device.host.WorkerProcess", Scripted(answer([1_000], [300_000])))
    assert members["core 0"].reference_us(FRAME) == 300.0
    said = Fleet(members).use_reference(FRAME, 200.0)
    assert [member.reference_us(FRAME) for member in members.values()] == [200.0, 200.0]
    assert said is not None
    assert said.count("200.0 us") == 1


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
    monkeypatch: pytest.MonkeyPatch, touch_bytes: int, runs: int, min_time_ms: float = 0.0, max_runs: int = 1000
) -> tuple[dict[str, Any], list[str]]:
    clock, log = [0], []
    monkeypatch.setattr(host_worker, "perf_counter_ns", lambda: clock[0])
    model, sentinel = Clocked("model", log, clock), Clocked("sentinel", log, clock)
    job = {"warmup": 2, "warmup_ms": 0.0, "runs": runs, "min_time_ms": min_time_ms, "max_runs": max_runs}
    found = host_worker.timed(model, sentinel, {**job, "touch_bytes": touch_bytes})  # type: ignore[arg-type]
    assert log[:2] == ["model warm"] * 2
    return found, log[2:]


def test_in_a_frame_each_run_follows_one_of_the_sentinel(monkeypatch: pytest.MonkeyPatch) -> None:
    found, log = run_worker(monkeypatch, touch_bytes=64, runs=3)
    assert log == ["sentinel outputs", "sentinel inputs", "sentinel", "model outputs", "model inputs", "model"] * 3
    assert found["chunk"] == [0, 1, 2]
    assert len(found["sentinel_cpu_ns"]) == len(found["sentinel_wall_ns"]) == 3


def test_hot_runs_go_on_for_two_milliseconds_after_the_sentinels(monkeypatch: pytest.MonkeyPatch) -> None:
    found, log = run_worker(monkeypatch, touch_bytes=0, runs=5)
    chunk = ["sentinel warm", "sentinel", "model warm", "model", "model"]
    assert log == [*chunk, *chunk, *chunk[:-1]]
    assert found["chunk"] == [0, 0, 1, 1, 2]
    assert len(found["sentinel_cpu_ns"]) == 3


@pytest.mark.parametrize("touch_bytes", [0, 64])
def test_runs_go_on_until_the_least_time_or_the_most_runs(monkeypatch: pytest.MonkeyPatch, touch_bytes: int) -> None:
    found, _ = run_worker(monkeypatch, touch_bytes, runs=2, min_time_ms=1000.0, max_runs=7)
    assert len(found["cpu_ns"]) == len(found["wall_ns"]) == len(found["chunk"]) == 7
    found, _ = run_worker(monkeypatch, touch_bytes, runs=1, min_time_ms=9.5)
    # A frame takes two milliseconds. Hot, the first chunk is asked for one run and takes two, the others three for two.
    assert len(found["cpu_ns"]) == (5 if touch_bytes else 1 + 2 + 2 + 2)


def test_a_run_that_was_read_short_takes_its_chunk_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Short(Clocked):
        def sample(self) -> tuple[int, int]:
            cpu_ns, wall_ns = super().sample()
            return (400_000 if self.log.count("model") == 2 else cpu_ns), wall_ns

    log, clock = [], [0]
    monkeypatch.setattr(host_worker, "perf_counter_ns", lambda: clock[0])
    job = {"warmup": 0, "warmup_ms": 0.0, "runs": 4, "min_time_ms": 0.0, "max_runs": 4, "touch_bytes": 64}
    found = host_worker.timed(Short("model", log, clock), Clocked("sentinel", log, clock), job)  # type: ignore[arg-type]
    assert (found["chunk"], found["cpu_ns"]) == ([0, 2, 3], [1_000_000] * 3)
    assert len(found["sentinel_cpu_ns"]) == 4


@pytest.mark.parametrize("state", ["hot", "frame"])
def test_both_states_run_with_the_real_litert(
    device: HostDevice, tmp_path: Path, state: Literal["hot", "frame"]
) -> None:
    protocol = replace(HOST_PROTOCOL, state=state, runs=6, rounds=1)
    models = {"layer": layer_model(POINTWISE), "sentinel": SENTINEL.read_bytes()}
    found = list(device.time([Workload(name, lambda m=m: m) for name, m in models.items()], protocol))
    reference_us = device.reference_us(protocol)
    assert list(json.loads((tmp_path / "speeds.json").read_text()).values()) == [reference_us]
    for timing in found:
        assert (timing.error, timing.n) == (None, 6)
        conditions = json.loads(timing.conditions)
        assert conditions["reference_us"] == pytest.approx(reference_us, abs=0.006)
        assert conditions["sentinel_us"] > 0
        for summary in (timing.cpu, timing.wall):
            assert summary is not None
            figures = [summary.min_us, summary.p10_us, summary.median_us, summary.p90_us, summary.p99_us]
            assert all(figure is not None and 0 < figure < math.inf for figure in figures)
            assert figures == sorted(figures)  # type: ignore[type-var]


def test_the_sentinel_is_the_bundled_network_at_half_its_channels() -> None:
    from ai_edge_litert.interpreter import Interpreter

    content = SENTINEL.read_bytes()
    assert len(content) == 860_976
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (list(source["shape"]), list(target["shape"])) == ([1, 64, 64, 1], [1, 10])
    # Howard et al., table 1, at width 0.25: the bundled network has 0.5.
    counts = [32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024]
    counts = [count // 4 for count in counts]
    expected = [(counts[0], 3, 3, 1)]
    for c_in, c_out in itertools.pairwise(counts):
        expected += [(1, 3, 3, c_in), (c_out, 1, 1, c_in)]
    # Activations are of batch 1 as depthwise weights are, but none of them is 3x3.
    shapes = [tuple(map(int, each["shape"])) for each in interpreter.get_tensor_details()]
    weights = [s for s in shapes if len(s) == 4 and (s[1:3] == (3, 3) or (s[0] > 1 and s[1:3] == (1, 1)))]
    assert weights == expected
    assert (10, 256) in shapes
    parameters = sum(math.prod(shape) + (shape[3] if shape[0] == 1 else shape[0]) for shape in expected) + 10 * 257
    assert 0 < len(content) - 4 * parameters < 20_000


def test_the_sentinel_ships_with_the_package() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        data = tomllib.load(file)["tool"]["setuptools"]["package-data"]
    assert SENTINEL.name in data["device"]


def test_what_counts_on_this_computer_is_the_median_in_a_frame() -> None:
    assert (HostDevice.protocol.state, HostDevice.protocol.statistic, HostDevice.protocol.clock) == (
        "frame",
        "median",
        "cpu",
    )
    rounds = [3.0, 1.0, 2.0]
    assert HostDevice.protocol.over_rounds(rounds) == statistics.median(rounds) == 2.0
