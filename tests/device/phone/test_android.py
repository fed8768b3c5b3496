"""A phone as a device: real connections to a fake phone, whose stand-in program makes every latency known."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from amc_latency.device.base import DeviceError, Protocol, Timing, Workload
from amc_latency.device.conditions import suspicions
from amc_latency.lut.building.build import layer_workloads
from amc_latency.lut.shapes.shape import LayerShape
from fake_phone.adbd import FakeAdbd
from fake_phone.faults import Fault
from fake_phone.opened import HELP, QUICK, OpenedPhone, open_device, opened, quick_profile
from fake_phone.programs import make_phone
from fake_phone.stand_in import install_stand_in, stand_in_us

SHAPES = [LayerShape("conv", 8, 8 * width, 4, 4) for width in range(1, 8)]
WORKLOADS = layer_workloads(SHAPES)
EXPECTED_US = {workload.name: float(stand_in_us(workload.build())) for workload in WORKLOADS}


def medians_us(timings: list[Timing]) -> dict[str, float | None]:
    assert len({timing.workload for timing in timings}) == len(timings), "a row is doubled"
    return {timing.workload: timing.wall.median_us if timing.wall else None for timing in timings}


def time_all(phone: OpenedPhone, workloads: list[Workload] = WORKLOADS, protocol: Protocol = QUICK) -> list[Timing]:
    return list(phone.device.time_round(workloads, protocol, 0))


def test_a_round_of_layers_and_what_they_were_measured_under(tmp_path: Path) -> None:
    with opened(tmp_path) as phone:
        timings = time_all(phone)
        assert medians_us(timings) == EXPECTED_US
        assert [timing.workload for timing in timings] == [workload.name for workload in WORKLOADS]
        values = json.loads(timings[0].conditions)
        assert values["serial"] == phone.daemon.address
        assert values["cores"] == list(phone.device.phone.cores) == [max(os.sched_getaffinity(0))]
        assert values["khz_before"] == values["khz_after"] == [2_150_400]
        assert (values["battery_pct"], values["battery_c"], values["thermal_status"]) == (85, 28.5, 0)
        assert values["temperature_c"] == [32.6, 32.6]
        assert values["build"] == "google/sailfish/sailfish:10/TEST.1/1:user/release-keys"
        assert "--use_xnnpack=true" in values["flags"]
        assert (values["delegated"], values["tries"]) == (True, 1)
        sentinel = Path(__file__).resolve().parents[3] / "android_bench/program/sentinel.tflite"
        assert values["sentinel_us"] == [stand_in_us(sentinel.read_bytes())] * 2
        assert not any(path.name.startswith("run-") for path in (tmp_path / "data/local/tmp/amc-latency").iterdir())
        assert phone.state.setting("stay_on_while_plugged_in") is None
    assert phone.left_behind() == []


def test_the_sentinel_file_is_the_layer_that_it_is_said_to_be() -> None:
    from amc_latency.lut.building.layer_model import layer_model

    sentinel = Path(__file__).resolve().parents[3] / "android_bench/program/sentinel.tflite"
    assert sentinel.read_bytes() == layer_model(LayerShape("conv", 32, 32, 28, 28, 3, 1, 1, "relu6"))


def test_a_sentinel_stands_between_every_so_many_layers(tmp_path: Path) -> None:
    with opened(tmp_path, quick_profile(sentinel_every=3)) as phone:
        before = len(phone.asked)
        time_all(phone)
        asked = phone.asked[before:]
        sentinel = asked[0]
        # First looks, then 7 layers in blocks of 3, 3 and 1.
        assert [name == sentinel for name in asked] == [1] * 5 + [1, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 1]
        before = len(phone.asked)
        time_all(phone)
        assert len(phone.asked) - before == 13, "the speed is known by then"


class Heat:
    """Makes a phone hot and slow, until the device says that it waits."""

    def __init__(self, phone: OpenedPhone) -> None:
        self.phone = phone
        phone.device.say = self.cool

    def heat(self) -> None:
        (self.phone.daemon_root / "state/slow").write_text("40\n")
        self.phone.state.throttle(1_000_000, status=2)
        self.phone.state.set_temperature(70.0)

    def cool(self, text: str) -> None:
        self.phone.said.append(text)
        (self.phone.daemon_root / "state/slow").write_text("0\n")
        self.phone.state.unthrottle()
        self.phone.state.set_temperature(40.0)


def test_a_hot_phone_is_waited_for_before_anything_is_timed(tmp_path: Path) -> None:
    with opened(tmp_path) as phone:
        Heat(phone).heat()
        timings = time_all(phone)
        assert medians_us(timings) == EXPECTED_US
        assert phone.said == ["waiting for the phone, 30 s at most: thermal status 2, 70 °C, over 45 °C"]
        assert {json.loads(timing.conditions)["tries"] for timing in timings} == {1}


def test_a_phone_that_becomes_hot_is_waited_for_and_the_block_repeated(tmp_path: Path) -> None:
    with opened(tmp_path, quick_profile(sentinel_every=3)) as phone:
        (tmp_path / "state/sleep").write_text("0.1")
        heat = Heat(phone)
        rounds = phone.device.time_round(WORKLOADS, QUICK, 0)
        timings = [next(rounds)]
        heat.heat()
        timings += rounds
        assert medians_us(timings) == EXPECTED_US
        assert phone.said == ["waiting for the phone, 30 s at most: thermal status 2, 70 °C, over 45 °C"]
        tries = {timing.workload: json.loads(timing.conditions)["tries"] for timing in timings}
        assert sorted(tries.values()) == [1, 1, 1, 1, 2, 2, 2]
        assert not any(suspicions(timing.conditions) for timing in timings)


def test_what_a_phone_timed_while_it_was_slow_is_timed_again(tmp_path: Path) -> None:
    with opened(tmp_path, quick_profile(sentinel_every=3)) as phone:
        # Slow for no reason that it tells, and so from the start.
        (tmp_path / "state/slow").write_text("30\n")
        (tmp_path / "state/sleep").write_text("0.1")
        rounds = phone.device.time_round(WORKLOADS, QUICK, 0)
        timings = [next(rounds)]
        (tmp_path / "state/slow").write_text("0\n")
        timings += rounds
        assert phone.said == ["the phone has become faster: 3 timings of this round are repeated"]
        # The last of a workload counts.
        assert medians_us(list({timing.workload: timing for timing in timings}.values())) == EXPECTED_US
        assert len(timings) == len(WORKLOADS) + 3


def test_the_sentinel_may_be_among_the_layers(tmp_path: Path) -> None:
    sentinel = layer_workloads([LayerShape("conv", 32, 32, 28, 28, 3, 1, 1, "relu6")])
    with opened(tmp_path, quick_profile(sentinel_every=3)) as phone:
        assert len(medians_us(time_all(phone, [*WORKLOADS[:4], *sentinel, *WORKLOADS[4:]]))) == len(WORKLOADS) + 1


def test_a_program_that_fails_at_once_each_time_is_said_so(tmp_path: Path) -> None:
    with opened(tmp_path) as phone:
        (tmp_path / "data/local/tmp/benchmark_model").write_text("#!/bin/sh\necho no such core >&2\nexit 4\n")
        with pytest.raises(DeviceError, match=r"benchmark_model fails on 127.*no such core"):
            time_all(phone)


def test_one_session_at_a_time_whatever_it_calls_the_phone(tmp_path: Path) -> None:
    with opened(tmp_path) as phone:
        (tmp_path / "state/sleep").write_text("0.1")
        timings = phone.device.time_round(WORKLOADS[:3], QUICK, 0)
        rest = [next(timings)]
        with pytest.raises(DeviceError, match="another amc-latency is timing on 127"):
            open_device(phone.daemon.address)
        timings.close()
        timings = phone.device.time_round([*WORKLOADS], QUICK, 0)
        busy = threading.Thread(target=lambda: rest.extend(timings))
        busy.start()
        while not list(tmp_path.glob("data/local/tmp/amc-latency/run-*/pid-*")):
            time.sleep(0.01)
        with pytest.raises(DeviceError, match="another amc-latency is timing on localhost"):
            open_device(f"localhost:{phone.daemon.port}")
        busy.join()
        assert medians_us(rest[1:]) == EXPECTED_US


def test_files_that_somebody_removed_are_missed_in_words(tmp_path: Path) -> None:
    with opened(tmp_path) as phone:
        (tmp_path / "state/sleep").write_text("0.1")
        timings = phone.device.time_round(WORKLOADS, QUICK, 0)
        shutil.rmtree(tmp_path / "data/local/tmp/amc-latency")
        (tmp_path / "data/local/tmp/amc-latency").mkdir()
        threading.Timer(0.5, shutil.rmtree, [tmp_path / "data/local/tmp/amc-latency", True]).start()
        with pytest.raises(DeviceError, match=r"files are gone from the phone .* run again"):
            list(timings)


def test_drift_of_the_sentinel_repeats_the_block(tmp_path: Path) -> None:
    with opened(tmp_path) as phone:
        time_all(phone)  # the phone's speed is known from here on
        (tmp_path / "state/slow").write_text("6\n")
        timings = time_all(phone)
        # Nothing is hot, so nothing is waited for: three tries, and then as it is.
        drift = {tuple(suspicions(timing.conditions)) for timing in timings}
        assert len(drift) == 1
        (doubts,) = drift
        assert len(doubts) == 1
        assert doubts[0].startswith("sentinel drift ")
        assert 5.5 < float(doubts[0].split()[2]) < 6.1
        assert {json.loads(timing.conditions)["tries"] for timing in timings} == {3}


@pytest.mark.parametrize(
    ("spoil", "doubt"),
    [
        (lambda phone: phone.state.set_battery(level_pct=19), "battery at 19 %, under 20 %"),
        (lambda phone: phone.state.set_thermal_status(1), "thermal status 1"),
        (
            lambda phone: phone.state.set_frequency(phone.device.phone.cores[0], 1_000_000),
            "a core at 1000 of 2150 MHz",
        ),
        (
            lambda phone: (phone.daemon_root / "state/partial").touch(),
            "XNNPACK did not take every operator",
        ),
    ],
    ids=["battery", "thermal", "frequency", "delegation"],
)
def test_what_cannot_be_trusted_in_the_end_is_kept_as_suspect(tmp_path: Path, spoil, doubt: str) -> None:
    profile = quick_profile(tries=2)
    profile = replace(profile, cool_down=replace(profile.cool_down, timeout_s=0.05))
    with opened(tmp_path, profile) as phone:
        spoil(phone)
        timings = time_all(phone)
        assert medians_us(timings) == EXPECTED_US
        assert {tuple(suspicions(timing.conditions)) for timing in timings} == {(doubt,)}
        assert {json.loads(timing.conditions)["tries"] for timing in timings} <= {1, 2}


def test_a_layer_that_cannot_be_built_or_loaded_is_an_error_and_the_others_are_timed(tmp_path: Path) -> None:
    def unbuildable() -> bytes:
        raise ValueError("no such\nlayer")

    with opened(tmp_path, stand_in=False) as phone:
        workloads = [*WORKLOADS[:3], Workload("odd", unbuildable), Workload("broken", lambda: b"\0\0\0\0TFL3broken")]
        timings = {timing.workload: timing for timing in time_all(phone, workloads)}
        assert timings["odd"].error == "not built: ValueError: no such layer"
        assert "not readable as a .tflite" in (timings["broken"].error or "")
        assert all(timings[workload.name].wall for workload in WORKLOADS[:3])
        assert len(timings) == 5


def test_a_model_that_kills_the_program_takes_no_other_with_it(tmp_path: Path) -> None:
    whole = WORKLOADS[6].build()
    with opened(tmp_path, stand_in=False) as phone:
        workloads = [WORKLOADS[0], Workload("cut off", lambda: whole[: len(whole) // 2]), *WORKLOADS[1:4]]
        timings = {timing.workload: timing for timing in time_all(phone, workloads)}
        assert timings["cut off"].error is not None
        assert [timings[workload.name].error for workload in WORKLOADS[:4]] == [None] * 4
        assert len(timings) == 5


def test_two_names_for_one_file_are_both_timed(tmp_path: Path) -> None:
    with opened(tmp_path) as phone:
        twice = [WORKLOADS[0], Workload("the same", WORKLOADS[0].build)]
        before = len(phone.asked)
        found = medians_us(time_all(phone, twice))
        us = EXPECTED_US[WORKLOADS[0].name]
        assert found == {WORKLOADS[0].name: us, "the same": us}
        assert len(phone.asked) - before == 5 + 3


def test_models_that_do_not_fit_at_once_go_in_batches(tmp_path: Path) -> None:
    with opened(tmp_path) as phone:
        sizes = [len(workload.build()) for workload in WORKLOADS]
        phone.device.batch_bytes = max(sizes) + min(sizes)
        assert medians_us(time_all(phone)) == EXPECTED_US


def test_a_full_disk_makes_the_batches_smaller(tmp_path: Path) -> None:
    with opened(tmp_path) as phone:
        phone.daemon.faults.add(Fault("full", "push", nth=4, matching=".tflite"))
        assert medians_us(time_all(phone)) == EXPECTED_US
        assert [fault.kind for fault in phone.daemon.faults.fired] == ["full"]


def test_a_disk_that_stays_full_is_said_so(tmp_path: Path) -> None:
    with opened(tmp_path) as phone:
        phone.daemon.faults.add(*[Fault("full", "push", matching=".tflite")] * 40)
        with pytest.raises(DeviceError, match=r"[Nn]o space left"):
            time_all(phone)


def test_a_phone_that_is_gone_and_back_goes_on(tmp_path: Path) -> None:
    with opened(tmp_path) as phone:
        (tmp_path / "state/sleep").write_text("0.05")
        rounds = phone.device.time_round(WORKLOADS, QUICK, 0)
        phone.daemon.faults.add(Fault("cut", "run", nth=8, seconds=1.0))
        assert medians_us(list(rounds)) == EXPECTED_US
        assert len(phone.daemon.faults.fired) == 1
        # The script went on meanwhile: nothing was timed twice.
        assert len(phone.asked) == 1 + 5 + len(WORKLOADS) + 2


def test_a_phone_that_stays_away_is_said_so(tmp_path: Path) -> None:
    with opened(tmp_path, reconnect_s=0.5) as phone:
        rounds = phone.device.time_round(WORKLOADS, QUICK, 0)
        phone.daemon.faults.add(Fault("cut", "run", nth=8, seconds=30.0))
        with pytest.raises(DeviceError, match=r"the phone 127.* is gone .*What was timed is kept"):
            list(rounds)


def test_threads_that_do_not_fit_and_another_clock_are_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as phone:
        with pytest.raises(DeviceError, match="3 threads need 3 cores"):
            time_all(phone, protocol=replace(QUICK, threads=3))
        with pytest.raises(DeviceError, match="wall clock"):
            time_all(phone, protocol=replace(QUICK, clock="cpu"))


def test_what_a_killed_session_had_timed_is_taken_up_by_the_next(tmp_path: Path) -> None:
    make_phone(tmp_path)
    install_stand_in(tmp_path, HELP.read_text())
    (tmp_path / "state/sleep").write_text("0.1")
    source = (
        "import sys; sys.path[:0] = sys.argv[2:]\n"
        "from fake_phone.opened import QUICK, open_device, quick_profile\n"
        "from amc_latency.lut.building.build import layer_workloads\n"
        "from amc_latency.lut.shapes.shape import LayerShape\n"
        "device = open_device(sys.argv[1], quick_profile(sentinel_every=2))\n"
        "shapes = [LayerShape('conv', 8, 8 * width, 4, 4) for width in range(1, 8)]\n"
        "timings = device.time_round(layer_workloads(shapes), QUICK, 0)\n"
        "next(timings)\n"
        "sys.stdin.read()\n"
    )
    root = Path(__file__).resolve().parents[3]
    asked = tmp_path / "state/asked"
    with FakeAdbd(tmp_path) as daemon:
        client = subprocess.Popen(
            [sys.executable, "-c", source, daemon.address, str(root), str(root / "tests")], stdin=subprocess.PIPE
        )
        runs = tmp_path / "data/local/tmp/amc-latency"
        # The first block was collected and is gone.
        while len(list(runs.glob("run-*/blocks/*.sum"))) < 2:
            assert client.poll() is None
            time.sleep(0.02)
        client.send_signal(signal.SIGKILL)
        client.wait()
        with open_device(daemon.address, quick_profile(sentinel_every=2)) as device:
            before = len(asked.read_text().split())
            (tmp_path / "state/sleep").unlink()
            timings = list(device.time_round(WORKLOADS, QUICK, 0))
            assert medians_us(timings) == EXPECTED_US
            # Of 4 blocks, with 2 layers each and 1 in the last, the second and the third were finished.
            assert len(asked.read_text().split()) - before <= 5 + 4 + 3
        assert [path.name for path in (tmp_path / "data/local/tmp").iterdir()] == ["benchmark_model"]


def test_what_another_kind_of_session_left_running_is_stopped(tmp_path: Path) -> None:
    make_phone(tmp_path)
    install_stand_in(tmp_path, HELP.read_text())
    run = tmp_path / "data/local/tmp/amc-latency/run-other-0"
    run.mkdir(parents=True)
    (run / "run-x1.sh").write_text("echo $$ > pid-x1; sleep 27.1828; sleep 27.1828\n")
    (run / "started-x1").mkdir()
    with FakeAdbd(tmp_path) as daemon:
        orphan = subprocess.Popen(["setsid", "sh", "run-x1.sh"], cwd=run)
        while not (run / "pid-x1").exists():
            time.sleep(0.01)
        with open_device(daemon.address):
            assert orphan.wait(timeout=40) == -signal.SIGKILL
            assert subprocess.run(["pgrep", "-f", "^sleep 27.1828"]).returncode == 1
