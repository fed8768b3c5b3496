"""Decisive layers are those whose errors weigh most; timing them again adds rounds and loses none."""

from __future__ import annotations

from pathlib import Path

import pytest
from amc_latency.device.base import Device, Protocol, Summary, Timing
from amc_latency.lut.building.retime import decisive_layers, retime
from amc_latency.lut.prediction.predict import Predictor
from amc_latency.lut.shapes.shape import NOOP, LayerShape
from amc_latency.lut.table.table import LatencyTable

from tests.lut.scripted_device import IDENTITY

PROTOCOL = Protocol(statistic="median")
SURE, UNSURE, SMALL = (LayerShape("conv", 8, channels, 8, 8) for channels in (16, 24, 32))
ROUNDS_US = {NOOP: (1, 1, 1), SURE: (101, 101, 101), UNSURE: (91, 101, 111), SMALL: (4, 5, 6)}


def summary(us: float) -> Summary:
    return Summary(us, us, us, 0.0)


class Truth(Device):
    """A device on which every layer takes 51 us, and the no-op 1."""

    identity = IDENTITY

    def __init__(self) -> None:
        self.asked: list[int] = []

    def time_round(self, workloads, protocol, round_index):  # type: ignore[no-untyped-def]
        self.asked.append(round_index)
        for workload in workloads:
            us = summary(1.0 if workload.name == NOOP.text else 51.0)
            yield Timing(workload.name, round_index, 1, us, us)


@pytest.fixture
def table(tmp_path: Path) -> LatencyTable:
    table = LatencyTable.create(tmp_path / "t.tsv", IDENTITY, PROTOCOL)
    for shape, rounds in ROUNDS_US.items():
        for index, us in enumerate(rounds):
            table.append(Timing(shape.text, index, 1, summary(us), summary(us)))
    return table


def test_the_unsure_layer_that_is_long_comes_first_and_the_no_op_never(table: LatencyTable) -> None:
    shapes = (NOOP, SURE, UNSURE, SMALL)
    found = decisive_layers(Predictor(table), shapes, 2)
    assert found[0] == UNSURE
    assert NOOP not in decisive_layers(Predictor(table), shapes)
    # Twenty of the small one are off by more than one of the long one, as each is off the same way.
    assert decisive_layers(Predictor(table), (SURE, UNSURE, *[SMALL] * 20), 1) == [SMALL]


def test_rounds_are_added_and_the_median_moves(table: LatencyTable) -> None:
    device = Truth()
    before_ms, after_ms = retime(device, table, [UNSURE])
    # None that a killed session may have left on a phone for the table.
    assert device.asked == [3, 4, 5]
    assert before_ms == pytest.approx(0.100)
    # The median of 91, 101, 111 and three of 51, less that of six no-ops.
    assert after_ms == pytest.approx((51 + 91) / 2 / 1000 - 0.001)
    again = LatencyTable.open(table.path)
    assert len(again.rounds_us(UNSURE.text)) == 6
    assert again.rounds_us(SURE.text) == [101.0, 101.0, 101.0]
