"""A table in a device's place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from amc_latency.device.base import DeviceError, Timing, Workload
from amc_latency.lut.prediction.replay import ReplayDevice
from amc_latency.lut.shapes.shape import LayerShape, network_text
from amc_latency.lut.table.table import LatencyTable

from tests.lut.scripted_device import OFFSET_US, PROTOCOL, SCALE, built, net_us, small_architecture, uniform_networks

ARCHITECTURE = small_architecture()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> LatencyTable:
    return built(tmp_path_factory.mktemp("replay") / "table.tsv")[0]


def replayed(table: LatencyTable, name: str) -> list[Timing]:
    return list(ReplayDevice(table).time([Workload(name, bytes)], PROTOCOL))


def test_rows_come_back_as_they_are(table: LatencyTable) -> None:
    for key in (ARCHITECTURE.shapes()[2].text, network_text(uniform_networks(ARCHITECTURE)[1])):
        assert replayed(table, key) == [table.timing(key, index) for index in range(3)]


def test_a_layer_between_rows_is_predicted_with_the_no_op(table: LatencyTable) -> None:
    shape = LayerShape("conv", 24, 90, 8, 8, activation="relu6")
    assert table.latency_us(shape.text) is None
    for timing in replayed(table, shape.text):
        assert timing.latency_us(PROTOCOL) == pytest.approx(1 + net_us(shape), abs=0.03)


def test_a_network_that_was_not_timed_is_the_calibrated_prediction(table: LatencyTable) -> None:
    shapes = ARCHITECTURE.shapes((24, 40, 72))
    expected_us = SCALE * sum(map(net_us, shapes)) + OFFSET_US
    timings = replayed(table, network_text(shapes))
    assert len(timings) == 3
    assert all(t.latency_us(PROTOCOL) == pytest.approx(expected_us, rel=5e-4) for t in timings)


@pytest.mark.parametrize("name", ["model.tflite", "conv 8x8x8>8 k1 s1 p0 relu float32", ""])
def test_what_the_table_does_not_know_is_an_error_row(table: LatencyTable, name: str) -> None:
    good = ARCHITECTURE.shapes()[0].text
    timings = list(ReplayDevice(table).time_round([Workload(name, bytes), Workload(good, bytes)], PROTOCOL, 0))
    assert timings[0].error is not None
    assert timings[0].error.startswith("not in the replayed table")
    assert timings[1].error is None


def test_it_is_the_tables_device_and_statistic(table: LatencyTable) -> None:
    device = ReplayDevice(table)
    assert device.identity == table.identity
    shapes = ARCHITECTURE.shapes()
    more = list(device.time([Workload(shapes[0].text, bytes)], replace(PROTOCOL, rounds=5)))
    assert len({timing.round for timing in more}) == 5
    with pytest.raises(DeviceError, match="min of cpu time"):
        list(device.time([Workload(shapes[0].text, bytes)], replace(PROTOCOL, statistic="median")))


def test_predictions_are_never_stored_as_timings(table: LatencyTable) -> None:
    before = table.path.read_bytes()
    device = ReplayDevice(table)
    shapes = ARCHITECTURE.shapes((24, 40, 72))
    for timing in device.time([Workload(network_text(shapes), bytes)], PROTOCOL):
        device.table.append(timing)
    assert device.table.missing([network_text(shapes)]) == []
    assert table.missing([network_text(shapes)]) == [network_text(shapes)]
    assert table.path.read_bytes() == before


def test_a_table_can_be_built_again_from_a_replay(table: LatencyTable, tmp_path: Path) -> None:
    again, report = built(tmp_path / "again.tsv", ReplayDevice(table))
    assert report.errors == {}
    assert again.path.read_bytes() == table.path.read_bytes()
