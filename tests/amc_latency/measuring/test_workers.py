"""Workers beside each other: how far they are apart, and what becomes of those that don't agree."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from amc_latency.device.base import Device, DeviceError, DeviceIdentity, Protocol, Summary, Timing, Workload
from amc_latency.device.host.host import allowed_cores
from amc_latency.device.rounds.fleet import Fleet
from amc_latency.lut.shapes.shape import LayerShape, network_text

from amc_latency.cli.main import main
from amc_latency.console import Console
from amc_latency.errors import UserError
from amc_latency.measuring.opening import open_device
from amc_latency.measuring.workers import AgreementLimits, check_agreement, reference_shapes, settle_workers
from tests.lut.scripted_device import latency_us, mobilenet_v1

SHAPES = mobilenet_v1().shapes()
PROTOCOL = Protocol(rounds=1, clock="wall", statistic="median")
LIMITS = AgreementLimits()


class Worker(Device):
    """The scripted device's latencies, `factor` times as long, and `together` times that when all work at once."""

    def __init__(self, factor: float = 1.0, together: float = 1.0, odd: str = "", name: str = "pixel1") -> None:
        self.identity = DeviceIdentity(name, "Pixel (msm8996)", "runtime 1")
        self.is_this_computer = name == "host"
        self.factor = factor
        self.together = together
        self.odd = odd
        self.conditions = ""
        self.fails = ""
        self.lucky_round = -1
        self.waits = False
        self.rounds: list[int] = []

    def time_round(self, workloads: Sequence[Workload], protocol: Protocol, round_index: int) -> Iterator[Timing]:
        self.rounds.append(round_index)
        if self.fails == "the phone":
            raise DeviceError("the phone is gone")
        # A fleet has all time one layer alone before they begin together.
        all_at_once, self.waits = self.waits, len(workloads) == 1
        for workload in workloads:
            us = latency_us(workload.name) * self.factor * (self.together if all_at_once else 1)
            us *= 1.5 if workload.name == self.odd else 1
            us *= 0.85 if round_index == self.lucky_round else 1
            wall = Summary(us, us, us, 0.0)
            if self.fails and self.fails in workload.name:
                yield Timing(workload.name, round_index, error="no such\tlayer")
            else:
                yield Timing(workload.name, round_index, 1, wall=wall, conditions=self.conditions)


class Said(Console):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    warn = say


def test_reference_layers_are_of_all_kinds_and_sizes() -> None:
    chosen = reference_shapes(SHAPES, 12)
    assert len(chosen) == len(set(chosen)) == 12
    assert set(chosen) <= set(SHAPES)
    assert {(shape.kind, shape.kernel) for shape in chosen} >= {("conv", 1), ("conv", 3), ("depthwise", 3)}
    pointwise = [shape.macs for shape in chosen if (shape.kind, shape.kernel) == ("conv", 1)]
    # 112x112, 32 to 64 and 7x7, 512 to 1024 are the smallest; all 512 to 512 and 1024 to 1024 have 51 million.
    assert min(pointwise) == 112 * 112 * 32 * 64
    assert max(pointwise) == 7 * 7 * 1024 * 1024
    assert reference_shapes(SHAPES[:3] * 5, 12) == sorted(SHAPES[:3], key=lambda shape: (shape.kind, shape.kernel > 1))


def test_two_workers_are_measured_against_their_median() -> None:
    fleet = Fleet({"A": Worker(), "B": Worker(1.05, together=1.02)})
    agreement = check_agreement(fleet, SHAPES, PROTOCOL)
    a, b = agreement.workers
    assert agreement.layers == 12
    assert (a.name, b.name) == ("A", "B")
    # The median of 1 and 1.05 is 1.025.
    assert (a.mean_pct, b.mean_pct) == (pytest.approx(100 * (1 / 1.025 - 1)), pytest.approx(100 * (1.05 / 1.025 - 1)))
    assert (a.together_pct, b.together_pct) == (pytest.approx(0, abs=1e-9), pytest.approx(2.0))
    assert agreement.problem(LIMITS) == "B takes 5.0 % longer than A for the same 12 layers, and 2 % is the most"
    assert agreement.problem(replace(LIMITS, apart_pct=5.1)) is None


def test_the_worst_layer_is_named() -> None:
    odd = reference_shapes(SHAPES, 12)[3].text
    workers = {"A": Worker(), "B": Worker(odd=odd), "C": Worker()}
    agreement = check_agreement(Fleet(workers), SHAPES, PROTOCOL)
    b = agreement.workers[1]
    assert (b.worst_layer, b.worst_pct, b.mean_pct) == (odd, pytest.approx(50.0), pytest.approx(50.0 / 12))
    assert f"B: +4.2 % from the median (+50.0 % for {odd}), +0.0 % while all work" in b.text
    # No round of a table, so nothing that a killed session left on a phone is taken away.
    assert min(round_index for worker in workers.values() for round_index in worker.rounds) >= 1000


@pytest.mark.parametrize("statistic", ["min", "median", "mean"])
def test_one_lucky_round_tells_no_workers_apart(statistic: str) -> None:
    lucky = Worker()
    lucky.lucky_round = 1001
    agreement = check_agreement(Fleet({"A": Worker(), "B": lucky}), SHAPES, replace(PROTOCOL, statistic=statistic))
    # Alone, one layer before all begin, and together.
    assert lucky.rounds == [number for number in (1000, 1001, 1002) for _ in range(3)]
    assert [worker.mean_pct for worker in agreement.workers] == [0.0, 0.0]


@pytest.mark.parametrize(("together", "mixed"), [(1.029, True), (1.031, False), (1.3, False)])
def test_working_together_may_cost_little(together: float, mixed: bool) -> None:
    workers = {"A": Worker(), "B": Worker(together=together)}
    problem = check_agreement(Fleet(workers), SHAPES, PROTOCOL).problem(LIMITS)
    pct = 100 * (together - 1)
    assert problem == (None if mixed else f"B takes {pct:.1f} % longer while the others work too, and 3 % is the most")


def test_layers_that_one_cannot_time_are_left_out() -> None:
    failing = Worker()
    failing.fails = "depthwise"
    agreement = check_agreement(Fleet({"A": Worker(), "B": failing}), SHAPES, PROTOCOL)
    depthwise = sum(shape.kind == "depthwise" for shape in reference_shapes(SHAPES, 12))
    assert agreement.layers == 12 - depthwise < 12
    failing.fails = "float32"
    with pytest.raises(DeviceError, match="cannot be compared: no such"):
        check_agreement(Fleet({"A": Worker(), "B": failing}), SHAPES, PROTOCOL)


def test_a_worker_that_dies_meanwhile_is_left_out() -> None:
    dying = Worker()
    dying.fails = "the phone"
    fleet = Fleet({"A": Worker(), "B": dying, "C": Worker(1.01)})
    agreement = check_agreement(fleet, SHAPES, PROTOCOL)
    assert [worker.name for worker in agreement.workers] == fleet.working == ["A", "C"]
    alone = Worker()
    alone.fails = "the phone"
    with pytest.raises(DeviceError, match="the phone is gone"):
        check_agreement(Fleet({"A": alone, "B": dying}), SHAPES, PROTOCOL)


def settled(*workers: Worker, protocol: Protocol = PROTOCOL, force: bool = False) -> tuple[list[str], list[str]]:
    """Who works on, and what was said."""
    fleet, said = Fleet(dict(zip("ABC", workers, strict=False))), Said()
    settle_workers(fleet, SHAPES, protocol, force, said)
    return fleet.working, said.lines


def test_workers_that_agree_work_together() -> None:
    suspect = Worker(1.01)
    suspect.conditions = json.dumps({"suspect": ["thermal status 1"]})
    working, said = settled(Worker(), suspect)
    assert working == ["A", "B"]
    assert said[0] == "comparing A, B on layers of the network, alone and all at once"
    assert [line[:10] for line in said[1:]] == ["A: -0.5 % ", "B: +0.5 % "]
    assert said[2].endswith("; not to be trusted: thermal status 1")


def test_phones_that_differ_are_not_mixed_unless_forced() -> None:
    words = r"do not agree: C takes 2\.5 % longer than A .*Choose one, as `device=pixel1@A`, or insist with `force`"
    with pytest.raises(DeviceError, match=words):
        settled(Worker(), Worker(1.001), Worker(1.025))
    working, said = settled(Worker(), Worker(1.001), Worker(1.025), force=True)
    assert working == ["A", "B", "C"]
    assert said[-1].startswith("the phones' rows are mixed all the same: C takes 2.5 % longer than A")


def test_cores_that_disturb_each_other_leave_the_work_to_one() -> None:
    working, said = settled(Worker(name="host"), Worker(name="host", together=1.3))
    assert working == ["B"]
    assert said[-1] == "timing on B alone: B takes 30.0 % longer while the others work too, and 3 % is the most"


def test_threads_need_the_cores_for_themselves() -> None:
    wall = replace(PROTOCOL, threads=2)
    working, said = settled(Worker(name="host"), Worker(name="host"), protocol=wall)
    assert working == ["B"]
    assert said == ["timing with one worker: the table's protocol has 2 threads, which take the cores"]
    assert settled(Worker(), Worker(), protocol=wall)[0] == ["A", "B"]


def test_one_device_is_nothing_to_compare() -> None:
    said = Said()
    settle_workers(Worker(), SHAPES, PROTOCOL, False, said)
    assert said.lines == []


@pytest.mark.parametrize(
    ("name", "workers", "says"),
    [
        ("host", 0, "`workers` is at least 1, not 0"),
        ("replay", -3, "`workers` is at least 1, not -3"),
        ("replay", 2, "`workers` is for phones and for cores of this computer, not for replay"),
        ("cuda", 2, "not for cuda"),
    ],
)
def test_numbers_of_workers_that_make_no_sense(name: str, workers: int, says: str) -> None:
    with pytest.raises(UserError, match=says):
        open_device(name, workers=workers)


def test_no_worker_is_one_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["amc-latency", "profile", "--workers", "0"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: --workers is at least 1, not 0\n"


def test_two_cores_are_compared() -> None:
    if len(allowed_cores()) < 2:
        pytest.skip("needs two cores")
    shapes = [LayerShape("conv", 8, 8 * width, 8, 8) for width in range(1, 5)]
    quick = Protocol(runs=3, min_time_ms=1.0)
    with open_device("host", workers=2) as fleet:
        assert isinstance(fleet, Fleet)
        agreement = check_agreement(fleet, shapes, quick, AgreementLimits(rounds=1))
    assert [worker.name for worker in agreement.workers] == fleet.working
    assert agreement.layers == 4
    assert {worker.worst_layer for worker in agreement.workers} <= {network_text([shape]) for shape in shapes}
