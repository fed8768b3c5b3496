"""A fleet: each workload timed once whoever is slow, dies, fails or is interrupted."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from amc_latency.device.base import (
    Device,
    DeviceError,
    DeviceIdentity,
    Interrupted,
    Protocol,
    Summary,
    Timing,
    Workload,
)
from amc_latency.device.conditions import measured_by
from amc_latency.device.host.host import HostDevice, allowed_cores
from amc_latency.device.rounds.fleet import Fleet, shares
from amc_latency.lut.building.build import layer_workloads
from amc_latency.lut.shapes.shape import LayerShape
from fake_phone.opened import QUICK, opened
from fake_phone.stand_in import stand_in_us
from hypothesis import given
from hypothesis import strategies as st

IDENTITY = DeviceIdentity("arithmetic", "a model", "runtime 1")
PROTOCOL = Protocol()


def plan(n: int) -> list[Workload]:
    return [Workload(f"w{i}", bytes) for i in range(n)]


class Member(Device):
    """Takes as many microseconds as a workload's name has as number. `before` is called with how many it has timed."""

    def __init__(self, before: Callable[[int], None] = lambda timed: None, model: str = "a model") -> None:
        self.identity = DeviceIdentity(IDENTITY.name, model, IDENTITY.runtime)
        self.before = before
        self.timed: list[str] = []
        self.rounds_begun = self.rounds_ended = self.closed = 0
        self.interrupted = threading.Event()

    def interrupt(self) -> None:
        self.interrupted.set()

    def close(self) -> None:
        self.closed += 1

    def time_round(self, workloads: Sequence[Workload], protocol: Protocol, round_index: int) -> Iterator[Timing]:
        self.rounds_begun += 1
        try:
            for workload in workloads:
                self.before(len(self.timed))
                self.timed.append(workload.name)
                yield timing_of(workload.name, round_index)
        finally:
            self.rounds_ended += 1


def timing_of(name: str, round_index: int = 0) -> Timing:
    us = float(name[1:])
    return Timing(name, round_index, 1, Summary(us, us, us, 0.0))


def dies_at(number: int, why: str = "it burns", after: threading.Event | None = None) -> Callable[[int], None]:
    def before(timed: int) -> None:
        if timed >= number:
            if after is not None:
                assert after.wait(20)
            raise DeviceError(why)

    return before


def all_of(fleet: Fleet, n: int, round_index: int = 0) -> list[Timing]:
    return list(fleet.time_round(plan(n), PROTOCOL, round_index))


def check_each_once(timings: Sequence[Timing], n: int) -> None:
    assert sorted(timings, key=lambda timing: int(timing.workload[1:])) == [timing_of(f"w{i}") for i in range(n)]


@given(st.integers(0, 500), st.integers(1, 9), st.integers(1, 30))
def test_shares_are_whole_blocks_and_end_evenly(n: int, members: int, block: int) -> None:
    workloads = plan(n)
    cut = shares(workloads, members, block)
    assert [workload for share in cut for workload in share] == workloads
    sizes = list(map(len, cut))
    assert 0 not in sizes
    last = sizes[-members:] if sum(sizes[-members:]) <= members * block else []
    assert max(last, default=0) - min(last, default=0) <= 1
    left = n
    for size in sizes[: len(sizes) - len(last)]:
        assert size % block == 0
        assert size <= max(block, left / (2 * members))
        left -= size


def test_shares_of_a_phone() -> None:
    # 200 left: 200 // 80 = 2 blocks; 160: 2; 120, 100, 80, 60: 1 each; the last 40 as 20 and 20.
    assert list(map(len, shares(plan(200), 2, 20))) == [40, 40, 20, 20, 20, 20, 20, 20]
    assert list(map(len, shares(plan(13), 2, 20))) == [7, 6]
    assert list(map(len, shares(plan(1), 2, 20))) == [1]


@pytest.mark.parametrize("n", [0, 1, 2, 57, 200])
def test_each_workload_is_timed_by_one_member(n: int) -> None:
    members = {name: Member() for name in "abc"}
    with Fleet(members, block=3) as fleet:
        check_each_once(all_of(fleet, n), n)
    assert sorted(name for member in members.values() for name in member.timed) == sorted(f"w{i}" for i in range(n))


def test_whoever_is_free_takes_the_next_share() -> None:
    done = threading.Event()
    slow = Member(lambda timed: done.wait(20) and None)
    # Of 100, the first share is 100 // (2 * 2 * 5) = 5 blocks of 5.
    fast = Member(lambda timed: done.set() if timed == 100 - 25 - 1 else None)
    with Fleet({"slow": slow, "fast": fast}, block=5) as fleet:
        check_each_once(all_of(fleet, 100), 100)
    assert len(slow.timed) <= 25


def test_the_others_time_what_a_dead_member_had_not() -> None:
    said: list[str] = []
    dying, other = Member(dies_at(4)), Member()
    with Fleet({"A": dying, "B": other}, block=5) as fleet:
        fleet.say = said.append
        check_each_once(all_of(fleet, 60), 60)
        assert len(other.timed) >= 60 - 4
        assert said == ["A is out: it burns. Going on with B"]
        # It is not asked again.
        check_each_once(all_of(fleet, 30), 30)
    assert dying.rounds_begun == dying.rounds_ended == 1
    assert dying.closed == other.closed == 1


def test_a_member_that_waits_takes_over_from_one_that_dies_last() -> None:
    over = threading.Event()
    other = Member(lambda timed: over.set() if timed == 9 else None)
    with Fleet({"A": Member(dies_at(3, after=over)), "B": other}) as fleet:
        check_each_once(all_of(fleet, 20), 20)
    assert len(other.timed) == 10 + 7


def test_what_a_member_leaves_out_is_not_asked_for_again() -> None:
    class Forgetful(Member):
        def time_round(self, workloads: Sequence[Workload], protocol: Protocol, round_index: int) -> Iterator[Timing]:
            return super().time_round([w for w in workloads if w.name != "w3"], protocol, round_index)

    with Fleet({name: Forgetful() for name in "ab"}) as fleet:
        assert {timing.workload for timing in all_of(fleet, 6)} == {"w0", "w1", "w2", "w4", "w5"}


def test_when_none_is_left_what_was_timed_has_been_given() -> None:
    fleet = Fleet({"A": Member(dies_at(4)), "B": Member(dies_at(6, "it drowns"))})
    found: list[Timing] = []
    with pytest.raises(DeviceError, match=r"it (burns|drowns); it (burns|drowns)"):
        found.extend(timing for timing in _kept(fleet, found))
    assert len(found) == 10
    assert len({timing.workload for timing in found}) == 10


def _kept(fleet: Fleet, found: list[Timing]) -> Iterator[Timing]:
    for timing in fleet.time_round(plan(60), PROTOCOL, 0):
        found.append(timing)
    yield from ()


def test_a_fault_of_the_program_is_no_dead_member() -> None:
    def broken(timed: int) -> None:
        raise ZeroDivisionError("a bug")

    other = Member()
    with Fleet({"A": Member(broken), "B": other}) as fleet, pytest.raises(ZeroDivisionError, match="a bug"):
        all_of(fleet, 60)
    assert other.rounds_begun == other.rounds_ended


def test_a_consumer_that_stops_stops_the_members() -> None:
    threads = set(threading.enumerate())
    hanging = Member()
    hanging.before = lambda timed: _wait_for(hanging.interrupted)
    quick = Member(lambda timed: time.sleep(0.01))
    with Fleet({"A": hanging, "B": quick}, block=5) as fleet:
        timings = fleet.time_round(plan(1000), PROTOCOL, 0)
        next(timings)
        timings.close()
        assert set(threading.enumerate()) <= threads
        for member in (hanging, quick):
            assert member.rounds_begun == member.rounds_ended
        assert hanging.rounds_begun == 1
        assert hanging.interrupted.is_set()
        assert len(quick.timed) < 500


def _wait_for(interrupted: threading.Event) -> None:
    assert interrupted.wait(20)
    raise Interrupted


def test_closing_a_fleet_ends_a_round_that_nobody_reads_any_more() -> None:
    members = {name: Member(lambda timed: time.sleep(0.01)) for name in "ab"}
    fleet = Fleet(members)
    timings = fleet.time_round(plan(1000), PROTOCOL, 0)
    next(timings)
    fleet.close()
    fleet.close()
    for member in members.values():
        assert member.rounds_begun == member.rounds_ended == 1
        assert member.closed == 2
        assert len(member.timed) < 500


def test_all_are_closed_though_one_fails_to_be() -> None:
    first, last = Member(), Member()
    first.close = last.close = lambda: pytest.fail("closed")  # type: ignore[method-assign]
    middle = Member()
    with pytest.raises(pytest.fail.Exception, match="closed"):
        Fleet({"a": first, "b": middle, "c": last}).close()
    assert middle.closed == 1


def test_members_of_two_kinds_are_refused_and_let_go() -> None:
    one, other = Member(), Member(model="another model")
    words = r"A and B are not alike \(model 'a model' and 'another model'\).*`device=arithmetic@A`"
    with pytest.raises(DeviceError, match=words):
        Fleet({"A": one, "B": other})
    assert one.closed == other.closed == 1


def test_what_a_member_says_has_its_name() -> None:
    said: list[str] = []
    members = {name: Member() for name in "ab"}
    fleet = Fleet(members)
    fleet.say = said.append
    members["b"].say("wait")
    assert said == ["b: wait"]


def test_workloads_are_built_by_one_thread_at_a_time() -> None:
    building = threading.Lock()

    def build() -> bytes:
        assert building.acquire(blocking=False), "two build at once"
        time.sleep(0.001)
        building.release()
        return b"built"

    class Building(Member):
        def time_round(self, workloads: Sequence[Workload], protocol: Protocol, round_index: int) -> Iterator[Timing]:
            assert {workload.build() for workload in workloads} == {b"built"}
            return super().time_round(workloads, protocol, round_index)

    workloads = [Workload(f"w{i}", build) for i in range(40)]
    with Fleet({name: Building() for name in "abc"}, block=2) as fleet:
        check_each_once(list(fleet.time_round(workloads, PROTOCOL, 0)), 40)
        assert len(fleet.time_on_each(workloads, PROTOCOL, 0)) == 3


def test_one_member_may_be_kept() -> None:
    members = {name: Member() for name in "ab"}
    with Fleet(members) as fleet:
        fleet.keep("b")
        check_each_once(all_of(fleet, 40), 40)
    assert (len(members["a"].timed), len(members["b"].timed)) == (0, 40)
    assert members["a"].closed == 1


def test_all_time_everything_at_once() -> None:
    at_once = threading.Barrier(3, timeout=20)
    # The first is timed twice, before all have begun and then with the others.
    members = {name: Member(lambda timed: timed and at_once.wait() and None) for name in "abc"}
    with Fleet(members) as fleet:
        found = fleet.time_on_each(plan(4), PROTOCOL, 7)
    expected = [timing_of(f"w{i}", 7) for i in (0, 0, 1, 2, 3)]
    assert found == dict.fromkeys("abc", expected)


def test_all_begin_before_any_goes_on() -> None:
    quick = Member()
    had_timed: list[int] = []

    def late(timed: int) -> None:
        if timed == 0:
            time.sleep(0.3)
            had_timed.append(len(quick.timed))

    with Fleet({"a": Member(late), "b": quick}) as fleet:
        fleet.time_on_each(plan(4), PROTOCOL, 0)
    assert had_timed == [1]
    assert len(quick.timed) == 5


class Blockwise(Device):
    """Yields nothing before all is timed, as a phone does within a block."""

    identity = Member().identity

    def __init__(self, seconds: float, began: list[float]) -> None:
        self.seconds = seconds
        self.began = began

    def time_round(self, workloads: Sequence[Workload], protocol: Protocol, round_index: int) -> Iterator[Timing]:
        self.began.append(time.monotonic())
        time.sleep(self.seconds * len(workloads))
        yield from [timing_of(workload.name, round_index) for workload in workloads]


def test_members_that_answer_in_blocks_begin_together_too() -> None:
    quick: list[float] = []
    slow: list[float] = []
    with Fleet({"a": Blockwise(0.3, slow), "b": Blockwise(0.0, quick)}) as fleet:
        fleet.time_on_each(plan(2), PROTOCOL, 0)
    assert quick[1] - slow[0] > 0.29
    assert abs(quick[1] - slow[1]) < 0.2


@pytest.mark.parametrize("number", [0, 2])
def test_none_waits_for_a_member_that_dies_while_all_time(number: int) -> None:
    members = {"a": Member(dies_at(number)), "b": Member()}
    with Fleet(members) as fleet:
        assert list(fleet.time_on_each(plan(4), PROTOCOL, 0)) == ["b"]
        assert fleet.working == ["b"]
        members["b"].before = dies_at(0, "it drowns")
        with pytest.raises(DeviceError, match="it burns; it drowns"):
            list(fleet.time_on("b", plan(1), PROTOCOL, 0))


SHAPES = [LayerShape("conv", 8, 8 * width, 4, 4) for width in range(1, 13)]


def test_two_cores_fill_one_round() -> None:
    cores = allowed_cores()
    if len(cores) < 2:
        pytest.skip("needs two cores")
    fleet = Fleet({f"core {core}": HostDevice(core) for core in cores[-2:]})
    with fleet:
        timings = list(fleet.time_round(layer_workloads(SHAPES), Protocol(runs=2, min_time_ms=0.0), 0))
    assert Counter(timing.workload for timing in timings) == Counter(shape.text for shape in SHAPES)
    assert all(timing.error is None and timing.cpu is not None for timing in timings)
    assert Counter(measured_by(timing.conditions) for timing in timings) == {f"core {core}": 6 for core in cores[-2:]}
    assert HostDevice().identity == fleet.identity


def test_a_phone_that_is_cut_off_leaves_its_layers_to_the_other(tmp_path: Path) -> None:
    expected = {workload.name: stand_in_us(workload.build()) for workload in layer_workloads(SHAPES)}
    with opened(tmp_path / "a", reconnect_s=0.2) as a, opened(tmp_path / "b") as b:
        said: list[str] = []
        fleet = Fleet({phone.daemon.address: phone.device for phone in (a, b)}, block=2)
        fleet.say = said.append
        (tmp_path / "a/state/sleep").write_text("0.1")
        timings = []
        for timing in fleet.time_round(layer_workloads(SHAPES), QUICK, 0):
            timings.append(timing)
            a.daemon.close()
        medians = {timing.workload: timing.wall.median_us for timing in timings if timing.wall}
        assert medians == expected
        assert len(timings) == len(SHAPES)
        assert {json.loads(timing.conditions)["serial"] for timing in timings} >= {b.daemon.address}
        assert fleet.working == [b.daemon.address]
        assert any(text.startswith(f"{a.daemon.address} is out: the phone") for text in said)


def test_phones_that_are_interrupted_are_left_clean(tmp_path: Path) -> None:
    with opened(tmp_path / "a") as a, opened(tmp_path / "b") as b:
        fleet = Fleet({phone.daemon.address: phone.device for phone in (a, b)})
        for phone in (a, b):
            # Longer than the test may take, if nothing stopped them.
            (phone.daemon_root / "state/sleep").write_text("40")
        began = threading.Thread(target=_drain, args=[fleet], daemon=True)
        began.start()
        for phone in (a, b):
            while not list(phone.daemon_root.glob("data/local/tmp/amc-latency/run-*/pid-*")):
                time.sleep(0.01)
        fleet.close()
        began.join(20)
        assert not began.is_alive()
        for phone in (a, b):
            assert phone.left_behind() == []


def _drain(fleet: Fleet) -> None:
    with suppress(DeviceError):
        list(fleet.time_round(layer_workloads(SHAPES), QUICK, 0))
