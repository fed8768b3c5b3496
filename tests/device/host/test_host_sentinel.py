"""The sentinel network beside each run: what a restless timing becomes, references, and the file itself."""

from __future__ import annotations

import itertools
import json
import math
import statistics
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from amc_latency.device.base import DeviceError, Protocol, Timing, Workload
from amc_latency.device.host.host import HostDevice
from amc_latency.device.host.host_state import HostConditions, HostState
from amc_latency.device.host.reference import ReferenceSpeeds
from amc_latency.device.kinds import HOST_PROTOCOL
from amc_latency.device.rounds.fleet import Fleet
from amc_latency.device.workers.process import WorkerDied
from amc_latency.lut.shapes.shape import LayerShape

from tests.device.worker_answers import answer, framed

ROOT = Path(__file__).resolve().parents[3]
SENTINEL = ROOT / "device" / "workers" / "sentinel.tflite"
POINTWISE = LayerShape("conv", 32, 32, 14, 14)
HOT, FRAME = replace(HOST_PROTOCOL, state="hot"), HOST_PROTOCOL


class Scripted:
    """A worker that gives prepared answers, and keeps the jobs that it was sent."""

    def __init__(self, *answers: dict[str, Any] | Exception) -> None:
        self.answers = list(answers)
        self.jobs: list[Mapping[str, Any]] = []
        self.payloads: list[bytes] = []
        self.alive = True
        self.started = 0
        self.ready = {"ready": True}

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
    monkeypatch.setattr(
        import_module("amc_latency.device.host.host"), "host_state", lambda *asked: HostState(HostConditions(), ())
    )
    return HostDevice(references=ReferenceSpeeds(tmp_path / "speeds.json"))


def one_timing(
    device: HostDevice, worker: Scripted, monkeypatch: pytest.MonkeyPatch, protocol: Protocol = FRAME
) -> Timing:
    monkeypatch.setattr(import_module("amc_latency.device.host.host"), "WorkerProcess", worker)
    (timing,) = device.time_round([Workload("a", lambda: b"model")], protocol, 0)
    return timing


SPEEDS = {"sentinel_us", "reference_us", "sentinel_hot_us", "reference_hot_us"}
CALM = framed([50_000] * 20, [220_000] * 20)


def restless(share: float) -> dict[str, Any]:
    """Slow, and the speed changes by that share midway; the samples say which answer it was."""
    return framed([round(100_000 * share)] * 20, [260_000] * 10 + [round(260_000 * (1 + share))] * 10)


@pytest.mark.parametrize("protocol", [FRAME, HOT])
def test_a_row_says_at_which_speed_it_is_given(
    device: HostDevice, monkeypatch: pytest.MonkeyPatch, protocol: Protocol
) -> None:
    device.use_reference(protocol, 200.0, 120.0)
    samples = [61_000, 50_000, 57_000, 55_000, 52_000]
    found = framed(samples, [220_000] * 5) if protocol is FRAME else answer(samples, [220_000] * 5)
    timing = one_timing(device, Scripted(found), monkeypatch, protocol)
    second = {"sentinel_hot_us": 132.0, "reference_hot_us": 120.0} if protocol is FRAME else {}
    assert json.loads(timing.conditions) == {"sentinel_us": 220.0, "reference_us": 200.0, **second}
    assert timing.cpu is not None
    assert timing.wall is not None
    for summary, factor in ((timing.cpu, 1.0), (timing.wall, 1.5)):
        assert summary.median_us is not None
        # What the clock showed is the row's latency x sentinel_us / reference_us.
        assert summary.median_us * 220 / 200 == pytest.approx(factor * 55.0)
    assert timing.cpu.median_us == pytest.approx(50.0)


@pytest.mark.parametrize(
    ("answers", "tries"),
    [([CALM], 1), ([restless(0.5), CALM], 2), ([restless(0.29), CALM], 2), ([restless(0.2)] * 4, 4)],
)
def test_a_timing_without_calm_runs_is_made_again(
    device: HostDevice, monkeypatch: pytest.MonkeyPatch, answers: list[dict[str, Any]], tries: int
) -> None:
    device.use_reference(FRAME, 200.0, 120.0)
    worker = Scripted(*answers)
    timing = one_timing(device, worker, monkeypatch)
    assert len(worker.jobs) == tries
    assert set(json.loads(timing.conditions)) == SPEEDS | ({"busy"} if tries == 4 else set())
    if answers[-1] is CALM:
        assert timing.latency_us(FRAME) == pytest.approx(50.0 * 200 / 220)


def test_calm_runs_alone_count_where_there_are_enough(device: HostDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    device.use_reference(FRAME, 200.0, 120.0)
    # A neighbour makes the sentinel slower than this network, which then comes out too fast.
    busy = framed([50_000] * 12 + [70_000] * 8, [200_000] * 12 + [340_000] * 8)
    timing = one_timing(device, Scripted(busy), monkeypatch)
    # The last two are within two of the change: which speed theirs is, its median with two on either side tells.
    assert timing.n == 12
    assert timing.cpu is not None
    assert (timing.cpu.min_us, timing.cpu.median_us) == pytest.approx((50.0, 50.0))
    assert json.loads(timing.conditions)["sentinel_us"] == 200.0
    few = framed([50_000] * 4 + [70_000] * 16, [200_000] * 4 + [340_000] * 16)
    assert one_timing(device, Scripted(few, busy), monkeypatch).n == 12


def test_of_few_runs_all_must_be_calm(device: HostDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    device.use_reference(FRAME, 200.0, 120.0)
    few = framed([50_000] * 3, [210_000] * 3)
    timing = one_timing(device, Scripted(few), monkeypatch)
    assert (timing.n, "busy" in json.loads(timing.conditions)) == (3, False)


def test_on_a_computer_that_is_busy_for_long_nothing_is_made_again(
    device: HostDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.use_reference(FRAME, 200.0, 120.0)
    for tries in (4, 4, 4, 4, 4, 1, 1):
        worker = Scripted(*[restless(0.2)] * 4)
        one_timing(device, worker, monkeypatch)
        assert len(worker.jobs) == tries
    one_timing(device, Scripted(CALM), monkeypatch)
    worker = Scripted(restless(0.2), CALM)
    one_timing(device, worker, monkeypatch)
    assert len(worker.jobs) == 2


def test_one_that_stays_restless_is_the_calmest_and_suspect(
    device: HostDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.use_reference(FRAME, 200.0, 120.0)
    worker = Scripted(restless(0.5), restless(0.4), restless(0.6), restless(0.7))
    timing = one_timing(device, worker, monkeypatch)
    assert worker.answers == []
    assert set(worker.payloads) == {b"model"}
    conditions = json.loads(timing.conditions)
    assert (conditions["tries"], conditions["suspect"]) == (4, ["speed wandered by 40 %"])
    # Samples of 40 us, half of them beside sentinels of 260 us, half beside 364.
    assert timing.cpu is not None
    assert (timing.cpu.min_us, timing.cpu.p90_us) == pytest.approx((40 * 200 / 364, 40 * 200 / 260))


@pytest.mark.parametrize("failure", [WorkerDied("the process ended"), {"error": "no op"}])
def test_a_worker_that_fails_in_a_second_try_leaves_the_first_and_suspect(
    device: HostDevice, monkeypatch: pytest.MonkeyPatch, failure: dict[str, Any] | Exception
) -> None:
    device.use_reference(FRAME, 200.0, 120.0)
    worker = Scripted(restless(0.5), failure, CALM)
    timing = one_timing(device, worker, monkeypatch)
    assert worker.answers == [CALM]
    assert (timing.error, timing.n) == (None, 20)
    conditions = json.loads(timing.conditions)
    assert (conditions["tries"], conditions["suspect"]) == (2, ["speed wandered by 50 %"])
    # Samples of 50 us, half of them beside sentinels of 260 us, half beside 390.
    assert timing.cpu is not None
    assert (timing.cpu.min_us, timing.cpu.p90_us) == pytest.approx((50 * 200 / 390, 50 * 200 / 260))


def test_a_worker_that_fails_gives_an_error_row(device: HostDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    device.use_reference(FRAME, 200.0, 120.0)
    for failure, error in ((WorkerDied("the process ended"), "the process ended"), ({"error": "no op"}, "no op")):
        timing = one_timing(device, Scripted(failure), monkeypatch)
        assert (timing.error, timing.cpu, timing.n) == (error, None, 0)


def test_a_speed_far_off_the_reference_is_said_once(device: HostDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    device.say = said.append
    device.use_reference(FRAME, 200.0, 120.0)
    for sentinel_ns in (220_000, 400_000, 410_000):
        one_timing(device, Scripted(*[framed([50_000] * 5, [sentinel_ns] * 5)] * 4), monkeypatch)
    (line,) = said
    assert line.startswith("this computer runs at 50 % of its reference speed now")


@pytest.mark.parametrize(("protocol", "touched"), [(HOT, 0), (FRAME, 8 << 20), (replace(FRAME, frame_mb=3), 3 << 20)])
def test_the_worker_is_told_how_much_memory_a_frame_touches(
    device: HostDevice, monkeypatch: pytest.MonkeyPatch, protocol: Protocol, touched: int
) -> None:
    device.use_reference(protocol, 200.0, 120.0)
    worker = Scripted(CALM if protocol.state == "frame" else answer([50_000] * 20, [220_000] * 20))
    one_timing(device, worker, monkeypatch, protocol)
    (job,) = worker.jobs
    assert (job["touch_bytes"], job["runs"]) == (touched, 20)


def test_the_reference_is_timed_once_for_each_state(
    device: HostDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = framed([1_000] * 5, [240_000, 260_000, 250_000, 900_000, 230_000])
    worker = Scripted(first, CALM, CALM)
    timing = one_timing(device, worker, monkeypatch)
    assert worker.payloads == [SENTINEL.read_bytes(), b"model"]
    assert worker.jobs[0]["runs"] == 3000
    # The fastest tenth of five: 230 and four tenths of the way to 240. The second runs take 60 %.
    conditions = json.loads(timing.conditions)
    assert (conditions["reference_us"], conditions["reference_hot_us"]) == (234.0, 140.4)
    again = HostDevice(references=ReferenceSpeeds(tmp_path / "speeds.json"))
    assert again.reference_us(FRAME) == device.reference_us(FRAME) == pytest.approx(234.0)
    assert again.speed(FRAME) == device.speed(FRAME) == pytest.approx((234.0, 140.4))
    one_timing(device, worker, monkeypatch)
    assert worker.answers == []
    # Another state, clock, number of threads or amount of memory is another speed.
    for other, made, speed in (
        (HOT, answer, (180.0, 180.0)),
        (replace(FRAME, frame_mb=16), framed, (180.0, 108.0)),
        (replace(FRAME, clock="wall"), framed, (360.0, 216.0)),
    ):
        worker.answers = [made([1_000] * 5, [180_000] * 5)]
        assert device.speed(other) == speed
    # In a frame there is another after each, back to back.
    kept = json.loads((tmp_path / "speeds.json").read_text())
    assert sorted(kept.values()) == pytest.approx([108.0, 140.4, 180.0, 180.0, 216.0, 234.0, 360.0])


def test_a_second_run_that_was_never_timed_is_set_to_the_speed_that_is_known(
    device: HostDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A file from before there were second runs, and this computer at two thirds of that speed.
    references = ReferenceSpeeds(tmp_path / "speeds.json")
    key = device._reference_key(FRAME)
    references.keep(key, 200.0)
    device = HostDevice(references=references)
    worker = Scripted(framed([1_000] * 5, [300_000] * 5))
    monkeypatch.setattr(import_module("amc_latency.device.host.host"), "WorkerProcess", worker)
    for _ in range(2):
        assert device.speed(FRAME) == pytest.approx((200.0, 120.0))
    kept = json.loads((tmp_path / "speeds.json").read_text())
    assert kept.pop(key) == 200.0
    assert list(kept.values()) == pytest.approx([120.0])
    assert HostDevice(references=ReferenceSpeeds(tmp_path / "speeds.json")).speed(FRAME) == device.speed(FRAME)
    assert worker.started == 1


@pytest.mark.parametrize("failure", [{"error": "LiteRT failed: no op"}, WorkerDied("no answer within 60 s")])
def test_a_sentinel_that_cannot_be_timed_is_a_device_error(
    device: HostDevice, monkeypatch: pytest.MonkeyPatch, failure: dict[str, Any] | Exception
) -> None:
    with pytest.raises(DeviceError, match=r"sentinel network cannot be timed: .*no "):
        one_timing(device, Scripted(failure), monkeypatch)


def test_a_reference_that_cannot_be_kept_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        import_module("amc_latency.device.host.host"), "host_state", lambda *asked: HostState(HostConditions(), ())
    )
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
        monkeypatch.setattr(
            import_module("amc_latency.device.host.host"),
            "WorkerProcess",
            Scripted(framed([1_000], [round(1000 * own_us)])),
        )
        assert device.reference_us(FRAME) == own_us
    before = (tmp_path / "speeds.json").read_bytes() if own_us else None
    line = device.use_reference(FRAME, 200.0, 125.0)
    assert (line is not None) == says
    if line:
        assert "200.0 us" in line
        assert "own reference is 202.1 us" in line
    assert device.reference_us(FRAME) == 200.0
    assert device.speed(FRAME) == (200.0, 125.0)
    assert ((tmp_path / "speeds.json").read_bytes() if own_us else None) == before
    assert (tmp_path / "speeds.json").exists() == (own_us is not None)


@pytest.mark.parametrize("own_us", [None, 240.0])
def test_a_table_without_second_runs_gets_one_at_its_own_speed(
    tmp_path: Path, own_us: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = HostDevice(references=ReferenceSpeeds(tmp_path / "speeds.json"))
    own = [] if own_us is None else [answer([1_000], [240_000], hot_ns=[1_000], sentinel_hot_ns=[200_000])]
    worker = Scripted(*own, framed([1_000], [300_000]))
    monkeypatch.setattr(import_module("amc_latency.device.host.host"), "WorkerProcess", worker)
    if own_us is not None:
        assert device.speed(FRAME) == (240.0, 200.0)
    # Not the one of another table before it either.
    device.use_reference(FRAME, 220.0, 190.0)
    device.use_reference(FRAME, 200.0)
    for _ in range(2):
        assert device.speed(FRAME) == pytest.approx((200.0, 120.0))
    assert worker.answers == []
    # The user's own stays as it is, and hot there is nothing to time.
    kept = json.loads((tmp_path / "speeds.json").read_text()) if own_us else {}
    assert sorted(kept.values()) == ([200.0, 240.0] if own_us else [])
    device.use_reference(HOT, 90.0)
    assert device.speed(HOT) == (90.0, 90.0)


def test_the_cores_of_a_fleet_go_on_at_it_too_and_say_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    references = ReferenceSpeeds(tmp_path / "speeds.json")
    members = {name: HostDevice(references=references) for name in ("core 0", "core 1")}
    monkeypatch.setattr(
        import_module("amc_latency.device.host.host"), "WorkerProcess", Scripted(framed([1_000], [300_000]))
    )
    assert members["core 0"].reference_us(FRAME) == 300.0
    said = Fleet(members).use_reference(FRAME, 200.0, 125.0)
    assert [member.reference_us(FRAME) for member in members.values()] == [200.0, 200.0]
    assert [member.speed(FRAME) for member in members.values()] == [(200.0, 125.0)] * 2
    assert said is not None
    assert said.count("200.0 us") == 1


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
    assert f"workers/{SENTINEL.name}" in data["amc_latency.device"]


def test_what_counts_on_this_computer_is_the_median_in_a_frame() -> None:
    assert (HostDevice.protocol.state, HostDevice.protocol.statistic, HostDevice.protocol.clock) == (
        "frame",
        "median",
        "cpu",
    )
    rounds = [3.0, 1.0, 2.0]
    assert HostDevice.protocol.over_rounds(rounds) == statistics.median(rounds) == 2.0
