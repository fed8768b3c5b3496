"""Building a table: what is timed, in which order, and that a killed build continues."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from amc_latency.device.base import DeviceIdentity, Summary, Timing
from amc_latency.lut.building.build import NetworkWorkload, Plan, build_table
from amc_latency.lut.building.plan import reachable_shapes, sweep_shapes
from amc_latency.lut.prediction.predict import missing_shapes
from amc_latency.lut.shapes.shape import network_text
from amc_latency.lut.table.table import LatencyTable, TableError

from tests.lut.scripted_device import (
    IDENTITY,
    PROTOCOL,
    ScriptedDevice,
    all_choices,
    built,
    key_of,
    latency_us,
    small_architecture,
    uniform_networks,
)

ROOT = Path(__file__).resolve().parents[3]


def as_rows(path: Path) -> dict[tuple[str, int], object]:
    return {(row.workload, row.round): row for row in LatencyTable.open(path).rows}


def test_all_rounds_of_all_planned_shapes_and_networks_are_in_the_table(tmp_path: Path) -> None:
    device = ScriptedDevice()
    table, report = built(tmp_path / "t.tsv", device)
    architecture = small_architecture()
    planned = {shape.text for shape in sweep_shapes(architecture, all_choices(architecture))}
    planned |= {network_text(shapes) for shapes in uniform_networks(architecture)}
    assert planned <= set(table.keys)
    assert table.missing(table.keys) == []
    assert report.errors == {}
    networks = len(uniform_networks(architecture))
    # The smallest sample counts, so networks get 9 times the rounds of layers.
    rows = 3 * (len(table.keys) - networks) + 9 * 3 * networks
    assert report.timed == report.planned == len(table.rows) == rows == len(device.asked)
    for key in table.keys:
        assert table.latency_us(key) == pytest.approx(latency_us(key), abs=0.005)


def test_the_second_stage_follows_the_steps_of_the_first(tmp_path: Path) -> None:
    table, _ = built(tmp_path / "t.tsv")
    narrow = [key for key in table.keys if key.startswith("conv 16x8x8>") and "+" not in key]
    # The scripted device has steps of 16: of 32, 40 .. 128 only their ends.
    assert len(narrow) == 7


def test_rows_of_another_network_change_no_plan(tmp_path: Path) -> None:
    architecture = small_architecture((16, 24, 128))
    choices = all_choices(architecture)

    def build(path: Path, others: list[Timing]) -> tuple[LatencyTable, int]:
        table = LatencyTable.create(path, IDENTITY, PROTOCOL)
        for timing in others:
            table.append(timing)
        return table, build_table(ScriptedDevice(), table, architecture, choices, plan=Plan("grid")).planned

    # Without steps of 16, where this network's pointwise layers have them.
    others = []
    for c_in in (8, 64):
        for c_out in range(8, 129, 8):
            us = Summary(*[float(c_in * c_out)] * 3, 0.0)
            others += [Timing(key_of("conv", c_in, c_out, 4, activation="relu6"), i, 5, us, us) for i in range(3)]
    _, alone = build(tmp_path / "alone.tsv", [])
    table, beside = build(tmp_path / "beside.tsv", others)
    assert beside == alone
    assert missing_shapes(table, reachable_shapes(architecture, choices)) == []


def test_each_round_is_shuffled_differently(tmp_path: Path) -> None:
    device = ScriptedDevice()
    built(tmp_path / "t.tsv", device)
    orders = [[name for name, index in device.asked if index == round_index] for round_index in range(3)]
    assert sorted(orders[0]) == sorted(orders[1])
    assert orders[0] != orders[1] != orders[2]


def test_a_second_build_times_nothing(tmp_path: Path) -> None:
    built(tmp_path / "t.tsv")
    before = (tmp_path / "t.tsv").read_bytes()
    device = ScriptedDevice()
    _, report = built(tmp_path / "t.tsv", device)
    assert device.asked == []
    assert report.timed == 0
    assert (tmp_path / "t.tsv").read_bytes() == before


@pytest.mark.parametrize("kept", [0, 1, 40, 150, 199])
def test_a_build_broken_off_anywhere_ends_as_the_same_file(tmp_path: Path, kept: int) -> None:
    built(tmp_path / "unbroken.tsv")
    whole = (tmp_path / "unbroken.tsv").read_bytes()
    lines = whole.splitlines(keepends=True)
    torn = b"".join(lines[: 7 + kept]) + lines[7 + kept][: 1 + kept // 4]
    (tmp_path / "t.tsv").write_bytes(torn)
    built(tmp_path / "t.tsv")
    assert (tmp_path / "t.tsv").read_bytes() == whole


def test_sigkill_at_five_random_moments_loses_and_changes_nothing(tmp_path: Path) -> None:
    built(tmp_path / "unbroken.tsv")
    path = tmp_path / "t.tsv"
    script = Path(__file__).parents[1] / "scripted_device.py"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    rng = random.Random(0)
    sizes = []
    for i in range(5):
        child = subprocess.Popen([sys.executable, str(script), str(path), "0.003"], env=environment)
        # Killed by progress, not by time: somewhere in the next sixth of the rows.
        wanted = (i + rng.random()) / 6 * (tmp_path / "unbroken.tsv").stat().st_size
        while child.poll() is None and (not path.exists() or path.stat().st_size < wanted):
            time.sleep(0.001)
        child.kill()
        assert child.wait() == -9
        sizes.append(path.stat().st_size)
    assert sizes == sorted(sizes)
    assert 0 < sizes[-1] < (tmp_path / "unbroken.tsv").stat().st_size
    subprocess.run([sys.executable, str(script), str(path), "0"], env=environment, check=True)
    assert as_rows(path) == as_rows(tmp_path / "unbroken.tsv")
    assert path.read_bytes() == (tmp_path / "unbroken.tsv").read_bytes()


def test_a_timing_that_fails_once_is_tried_again(tmp_path: Path) -> None:
    device = ScriptedDevice(fails=lambda name, attempt: attempt == 0 and "depthwise 24x" in name)
    table, report = built(tmp_path / "t.tsv", device)
    assert report.errors == {}
    assert table.missing(table.keys) == []
    assert as_rows(table.path) == {(row.workload, row.round): row for row in table.rows}


def test_what_always_fails_is_tried_twice_a_round_and_listed(tmp_path: Path) -> None:
    bad = "depthwise 24x16x16>24 k3 s1 p1 relu6 float32"
    device = ScriptedDevice(fails=lambda name, attempt: name == bad)
    _, report = built(tmp_path / "t.tsv", device)
    assert report.errors == {bad: "scripted\tfailure\nof this"}
    assert report.timed == report.planned - 3
    assert [device.asked.count((bad, index)) for index in range(3)] == [2, 2, 2]
    again, report = built(tmp_path / "t.tsv")
    assert report.timed == 3
    assert report.errors == again.errors == {}


class BusyAtFirst(ScriptedDevice):
    """In all rounds before the tenth a neighbour is there, beside whom networks take 20 % less than they should."""

    def time_round(self, workloads, protocol, round_index):  # type: ignore[no-untyped-def]
        for timing in super().time_round(workloads, protocol, round_index):
            if round_index >= 8 or " + " not in timing.workload:
                yield timing
                continue
            us = 0.8 * latency_us(timing.workload)
            yield replace(timing, cpu=Summary(us, us, us, 0.0), conditions='{"busy": true}')


def test_networks_that_a_neighbour_spoilt_get_more_rounds(tmp_path: Path) -> None:
    table, report = built(tmp_path / "t.tsv", BusyAtFirst())
    networks = [key for key in table.keys if " + " in key]
    for key in networks:
        # 27 rounds of which 19 are calm: enough.
        assert len(list(table.lines(key))) == 27
    protocol = replace(PROTOCOL, rounds=1, statistic="median")
    architecture = small_architecture()
    table = LatencyTable.create(tmp_path / "u.tsv", IDENTITY, protocol)
    networks = [NetworkWorkload(shapes, bytes) for shapes in uniform_networks(architecture)]
    report = build_table(BusyAtFirst(), table, architecture, all_choices(architecture), networks)
    # Three rounds and three more, all of them busy: that is where it ends.
    assert protocol.network_rounds == 3
    for network in networks:
        assert len(list(table.lines(network_text(network.shapes)))) == 6
    assert report.incomplete == 0
    table = LatencyTable.create(tmp_path / "v.tsv", IDENTITY, replace(protocol, rounds=3))
    build_table(BusyAtFirst(), table, architecture, all_choices(architecture), networks)
    for network in networks:
        # Nine rounds, one of them calm, and two more until three of eleven are; these alone count.
        key = network_text(network.shapes)
        assert [row.is_busy for row in table.lines(key)] == [True] * 8 + [False] * 4
        assert table.latency_us(key) == pytest.approx(1.5 * latency_us(key), rel=0.06)
    before = (tmp_path / "v.tsv").read_bytes()
    device = BusyAtFirst()
    with LatencyTable.open(tmp_path / "v.tsv", writing=True) as again:
        build_table(device, again, architecture, all_choices(architecture), networks)
    assert device.asked == []
    assert (tmp_path / "v.tsv").read_bytes() == before


@pytest.mark.parametrize("plan", [Plan("grid"), Plan("learn")], ids=lambda plan: plan.kind)
def test_progress_ends_at_the_total(tmp_path: Path, plan: Plan) -> None:
    architecture = small_architecture()
    seen: list[tuple[int, int, float, str]] = []
    table = LatencyTable.create(tmp_path / "t.tsv", IDENTITY, PROTOCOL)
    report = build_table(
        ScriptedDevice(),
        table,
        architecture,
        all_choices(architecture),
        progress=lambda *values: seen.append(values),
        plan=plan,
    )
    assert [done for done, *_ in seen] == list(range(1, report.planned + 1))
    assert seen[-1][:2] == (report.planned, report.planned)
    assert seen[-1][2] == 0
    assert all(to_go_s >= 0 and math.isfinite(to_go_s) for _, _, to_go_s, _ in seen)
    assert {name for *_, name in seen} == set(table.keys)


def test_a_table_of_another_device_is_refused_before_anything_is_timed(tmp_path: Path) -> None:
    other = DeviceIdentity("scripted", "other", "runtime 1")
    table = LatencyTable.create(tmp_path / "t.tsv", other, PROTOCOL)
    device = ScriptedDevice()
    architecture = small_architecture()
    with pytest.raises(TableError, match="device model 'other', this is 'a model of arithmetic'"):
        build_table(device, table, architecture, all_choices(architecture))
    assert device.asked == []
