"""At which speed a table's rows are given, and that a device goes on at it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from amc_latency.device.base import Device, Protocol, Summary, Timing
from amc_latency.device.conditions import reference_hot_us, reference_us
from amc_latency.lut.table.headers import Header, marked
from amc_latency.lut.table.reference_speed import go_on_at_reference, references
from amc_latency.lut.table.table import LatencyTable

from tests.lut.scripted_device import IDENTITY, PROTOCOL, key_of

SUMMARY = Summary(1.0, 1.0, 1.0, 0.0)
AT = {us: json.dumps({"core": 3, "sentinel_us": 260.0, "reference_us": us}) for us in (200.0, 251.37)}


class Recorder(Device):
    """Keeps what it is told to go on at, and answers with a line."""

    identity = IDENTITY
    gives_reference = True

    def __init__(self, answer: str | None = None) -> None:
        self.answer = answer
        self.asked: list[tuple[Protocol, float, float | None]] = []
        self.said: list[str] = []
        self.say = self.said.append

    def use_reference(self, protocol: Protocol, reference_us: float, hot_us: float | None = None) -> str | None:
        self.asked.append((protocol, reference_us, hot_us))
        return self.answer


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., LatencyTable]:
    def make(*conditions: str) -> LatencyTable:
        table = LatencyTable.create(tmp_path / "t.tsv", IDENTITY, PROTOCOL)
        for index, each in enumerate(conditions):
            table.append(Timing(key_of("conv", 8, 8), index, 5, SUMMARY, None, conditions=each))
        return table

    return make


@pytest.mark.parametrize(
    ("text", "us"),
    [
        (AT[251.37], 251.37),
        ('{"sentinel_us": 260.0, "reference_us": 200}', 200.0),
        ('{"sentinel_us": [10.0, 10.5], "serial": "X"}', None),
        ('{"reference_us": 0.0}', None),
        ("", None),
    ],
)
def test_a_rows_reference(text: str, us: float | None) -> None:
    assert reference_us(text) == us


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ('{"reference_us": 200.0, "sentinel_hot_us": 160.0, "reference_hot_us": 120.5}', 120.5),
        ('{"reference_hot_us": 0.0}', None),
        (AT[200.0], None),
    ],
)
def test_a_rows_reference_back_to_back(text: str, us: float | None) -> None:
    assert reference_hot_us(text) == us
    assert reference_us(text) == (200.0 if "reference_us" in text else None)


def test_rows_are_counted_by_reference(made: Callable[..., LatencyTable]) -> None:
    table = made(AT[200.0], AT[251.37], AT[200.0], "")
    assert references(table) == {200.0: 2, 251.37: 1, None: 1}
    # An error was timed at no speed, and a row of another header is not one of the table's own.
    table.append(Timing(key_of("conv", 8, 16), 0, error="gone"))
    foreign = Timing(key_of("conv", 8, 24), 0, 5, SUMMARY, None, conditions=AT[251.37])
    table.append(marked(foreign, Header(replace(IDENTITY, model="other"), PROTOCOL)))
    assert references(table) == {200.0: 2, 251.37: 1, None: 1}


def test_a_device_goes_on_at_the_reference_of_most_rows(made: Callable[..., LatencyTable]) -> None:
    table = made("", "", "", AT[200.0], AT[251.37], AT[251.37])
    for answer, said in (("another speed", ["another speed"]), (None, [])):
        device = Recorder(answer)
        go_on_at_reference(device, table)
        assert device.asked == [(PROTOCOL, 251.37, None)]
        assert device.said == said


def test_it_goes_on_at_what_most_of_these_rows_have_back_to_back(made: Callable[..., LatencyTable]) -> None:
    def at(us: float, hot_us: float) -> str:
        return json.dumps({"sentinel_us": 260.0, "reference_us": us, "reference_hot_us": hot_us})

    # The first of the rows at 200 are from before there were second runs; those at 251.37 are fewer.
    table = made(AT[200.0], AT[200.0], AT[200.0], at(200.0, 121.0), *[at(200.0, 120.0)] * 2, *[at(251.37, 150.0)] * 4)
    foreign = Timing(key_of("conv", 8, 24), 0, 5, SUMMARY, None, conditions=at(200.0, 130.0))
    for round_index in range(3):
        table.append(marked(replace(foreign, round=round_index), Header(replace(IDENTITY, model="other"), PROTOCOL)))
    device = Recorder()
    go_on_at_reference(device, table)
    assert device.asked == [(PROTOCOL, 200.0, 120.0)]


@pytest.mark.parametrize("conditions", [[], [""], ["", ""]])
def test_a_table_without_a_reference_leaves_the_device_its_own_and_that_is_said(
    made: Callable[..., LatencyTable], conditions: list[str]
) -> None:
    device = Recorder("another speed")
    go_on_at_reference(device, made(*conditions))
    assert device.asked == []
    assert len(device.said) == bool(conditions)
    assert all("t.tsv are as the clock showed them" in line for line in device.said)


def test_a_device_that_knows_no_speed_takes_no_notice(made: Callable[..., LatencyTable]) -> None:
    device = Recorder("another speed")
    device.gives_reference = False
    go_on_at_reference(device, made('{"serial": "X"}', AT[200.0]))
    assert (device.asked, device.said) == ([], [])
