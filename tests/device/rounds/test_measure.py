"""From timings to one figure, with a device that reads its timings from a script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from amc_latency.device.base import Device, DeviceError, DeviceIdentity, Protocol, Summary, Timing, Workload
from amc_latency.device.host.host import HostDevice
from amc_latency.device.rounds.measure import BadModelError, measure_file, measure_many, summarise

FILE = b"\x1c\x00\x00\x00TFL3 and so on"


def timing(name: str, round_index: int, min_us: float) -> Timing:
    cpu = Summary(min_us, min_us + 50, min_us + 60, 1.0)
    wall = Summary(min_us + 100, min_us + 200, min_us + 300, 2.0)
    return Timing(name, round_index, 10, cpu, wall)


class ScriptedDevice(Device):
    """Answers with the given minimum CPU microseconds, one a round; a text is an error."""

    def __init__(self, script: Mapping[str, Sequence[float | str]]) -> None:
        self.identity = DeviceIdentity("scripted", "none", "none")
        self.script = script
        self.asked: list[tuple[int, str, bytes]] = []

    def time_round(self, workloads: Sequence[Workload], protocol: Protocol, round_index: int) -> Iterator[Timing]:
        for workload in workloads:
            self.asked.append((round_index, workload.name, workload.build()))
            figure = self.script[workload.name][round_index]
            if isinstance(figure, str):
                yield Timing(workload.name, round_index, error=figure)
            else:
                yield timing(workload.name, round_index, figure)


def test_the_latency_is_the_smallest_of_all_samples() -> None:
    rounds = [timing("w", index, min_us) for index, min_us in enumerate([1000.0, 1300.0, 1100.0])]
    found = summarise(rounds, Protocol())
    assert found.latency_ms == pytest.approx(1.0)
    assert found.spread_pct == pytest.approx(100 * (1300 - 1000) / 2 / 1000)
    assert (found.rounds, found.n) == (3, 3 * 10)
    assert found.statistic == "minimum over 3 rounds of thread CPU time"


def test_spread_is_told_within_rounds_and_between_them() -> None:
    def median_of(index: int, us: float, p10_us: float, p90_us: float) -> Timing:
        summary = Summary(us - 50, us, us, 1.0, p10_us=p10_us, p90_us=p90_us)
        return Timing("w", index, 10, summary, summary)

    protocol = Protocol(statistic="median")
    # Half of 40, 20 and 60 us in 1000, 1100 and 1200: 2.0, 0.9 and 2.5 %; deviations of -100, 0 and 100 us of 1100.
    rounds = [median_of(0, 1000, 980, 1020), median_of(1, 1100, 1090, 1110), median_of(2, 1200, 1180, 1240)]
    found = summarise(rounds, protocol)
    assert found.within_pct == pytest.approx(2.0)
    assert found.rounds_sd_pct == pytest.approx(100 * 100 / 1100)
    single = summarise(rounds[:1], protocol)
    assert (single.within_pct, single.rounds_sd_pct) == (pytest.approx(2.0), None)
    # A program that prints no percentiles.
    assert summarise([timing("w", 0, 1000.0)], Protocol()).within_pct is None


def test_clock_and_statistic_come_from_the_protocol() -> None:
    protocol = Protocol(clock="wall", statistic="median")
    found = summarise([timing("w", 0, 1000.0)], protocol)
    assert found.latency_ms == pytest.approx((1000 + 200) / 1000)
    assert found.statistic == "median over 1 round of the median wall time"
    assert found.spread_pct is None


def test_nothing_timed_is_an_error() -> None:
    with pytest.raises(DeviceError, match="nothing was timed"):
        summarise([], Protocol())


def test_many_models_share_their_rounds() -> None:
    device = ScriptedDevice({"before": [400.0, 200.0, 600.0], "after": [90.0, 100.0, 110.0]})
    found = measure_many(device, {"before": FILE, "after": FILE + b"2"}, Protocol())
    assert {name: one.latency_ms for name, one in found.items()} == pytest.approx({"before": 0.2, "after": 0.09})
    assert [asked[0] for asked in device.asked] == [0, 0, 1, 1, 2, 2]
    assert {asked[1:] for asked in device.asked} == {("before", FILE), ("after", FILE + b"2")}


def test_the_first_failure_ends_the_measurement() -> None:
    device = ScriptedDevice({"good": [1.0, 1.0, 1.0], "bad": ["no such op"] * 3})
    with pytest.raises(DeviceError, match="bad was not timed: no such op"):
        measure_many(device, {"good": FILE, "bad": FILE}, Protocol())
    assert {asked[0] for asked in device.asked} == {0}


def test_a_file_is_timed_under_its_name(tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(FILE)
    assert measure_file(ScriptedDevice({"net.tflite": [70.0]}), path, Protocol(rounds=1)).latency_ms == 0.07


@pytest.mark.parametrize("content", [b"", b"TFL3", b"PK\x03\x04 a zip", b"<html>404</html>"])
def test_a_file_that_is_no_tflite_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(content)
    with pytest.raises(BadModelError, match=r"net\.tflite is not a \.tflite file"):
        measure_file(ScriptedDevice({}), path, Protocol())


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadModelError, match=r"nothing\.tflite: No such file"):
        measure_file(ScriptedDevice({}), tmp_path / "nothing.tflite", Protocol())
    with pytest.raises(BadModelError, match="is a folder"):
        measure_file(ScriptedDevice({}), tmp_path, Protocol())


def test_litert_refuses_what_only_starts_like_a_tflite(tmp_path: Path) -> None:
    path = tmp_path / "torn.tflite"
    path.write_bytes(FILE)
    with pytest.raises(DeviceError, match=r"torn\.tflite was not timed: .*not a valid Flatbuffer") as caught:
        measure_file(HostDevice(), path, Protocol())
    assert "\n" not in str(caught.value)
