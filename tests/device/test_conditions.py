"""What a row says of how it was measured."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from amc_latency.device.conditions import Conditions, calm_of, is_busy, measured_by, suspicions

CONDITIONS = Conditions(
    serial="FA6A1\t\n",
    build=None,
    binary_sha256="ab",
    flags="--num_threads=1",
    cores=(2, 3),
    khz_before=(1, None),
    khz_after=(2, 2),
    temperature_c=(31.4, None),
    battery_pct=0,
    battery_c=None,
    charging=True,
    thermal_status=0,
    sentinel_us=(10.0, 10.5),
    delegated=False,
    tries=2,
)


def test_a_line_of_json_without_what_is_unknown() -> None:
    assert not set("\t\n") & set(CONDITIONS.text)
    values = json.loads(CONDITIONS.text)
    # Zero and no are answers, nothing is not.
    assert {"battery_pct": 0, "thermal_status": 0, "delegated": False}.items() <= values.items()
    assert not {"build", "battery_c", "suspect", "time_s"} & set(values)


def test_who_measured() -> None:
    assert measured_by("") is None
    assert measured_by(replace(CONDITIONS, serial="FA6A1").text) == "FA6A1"


def test_suspicions() -> None:
    assert suspicions("") == suspicions(CONDITIONS.text) == []
    assert suspicions('{"suspect": ["sentinel drift 7.0 %"]}') == ["sentinel drift 7.0 %"]


def test_a_core_measured_it() -> None:
    assert measured_by('{"core": 12}') == "core 12"
    assert measured_by('{"serial": "R5CX", "cores": [2, 3]}') == "R5CX"
    assert measured_by('{"cores": [2, 3]}') is None


def test_who_was_timed_beside_a_neighbour() -> None:
    assert is_busy('{"sentinel_us": 170.0, "busy": true}')
    assert not is_busy('{"sentinel_us": 100.0}')
    assert not is_busy("")


@pytest.mark.parametrize(
    ("busy", "counted"),
    [
        ("....", "abcd"),
        (".b.b", "ac"),
        (".bbb", "abcd"),
        ("bbbb", "abcd"),
        (".b", "ab"),
        ("..", "ab"),
        # Two of twelve are less than a quarter.
        ("..bbbbbbbbbb", "abcdefghijkl"),
        ("...bbbbbbbbb", "abc"),
        ("", ""),
    ],
)
def test_calm_rounds_count_alone_where_there_are_enough(busy: str, counted: str) -> None:
    items = "abcdefghijkl"[: len(busy)]
    assert calm_of(items, [mark == "b" for mark in busy]) == list(counted)
