"""When a phone's timing is believed; figures are arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from amc_latency.android_bench.phone.state import PhoneState
from amc_latency.android_bench.runner import Sample
from amc_latency.device.kinds import CoolDown, Trust
from amc_latency.device.phone.trust import (
    Reference,
    hottest_c,
    sample_doubts,
    sentinel_doubts,
    state_doubts,
    wait_until_cool,
)

TRUST = Trust()
COOL = PhoneState(battery_pct=80, battery_c=30.0, thermal_status=0, zones_c={"cpu-0": 40.0, "skin": 90.0})


@pytest.mark.parametrize(
    ("state", "doubt"),
    [
        (COOL, None),
        (PhoneState(), None),  # a phone that says nothing is not suspected of anything
        (replace(COOL, thermal_status=1), "thermal status 1"),
        (replace(COOL, battery_pct=20), None),
        (replace(COOL, battery_pct=19), "battery at 19 %, under 20 %"),
    ],
)
def test_states(state: PhoneState, doubt: str | None) -> None:
    assert state_doubts(TRUST, state) == ([] if doubt is None else [doubt])


@pytest.mark.parametrize(
    ("sentinel_us", "reference_us", "doubts"),
    [
        ((1000.0, 1000.0), None, []),
        ((1000.0, 1049.0), None, []),
        ((1000.0, 1051.0), None, ["sentinel drift 5.1 %"]),
        ((1051.0, 1000.0), None, ["sentinel drift 5.1 %"]),
        ((1000.0, 1000.0), 900.0, ["sentinel drift 11.1 %"]),  # 1000/900
        ((900.0, 900.0), 1000.0, ["sentinel drift 11.1 %"]),
        ((1000.0, None), 1000.0, ["the sentinel layer was not timed"]),
        ((None, None), None, ["the sentinel layer was not timed"]),
    ],
)
def test_the_sentinel(sentinel_us: tuple[float | None, ...], reference_us: float | None, doubts: list[str]) -> None:
    assert sentinel_doubts(TRUST, sentinel_us, reference_us) == doubts


@pytest.mark.parametrize(
    ("sample", "doubts"),
    [
        (Sample("m", delegated=True, after=("2000000", "2000000")), []),
        (Sample("m", delegated=None, after=("2000000", "?")), []),
        (Sample("m", delegated=True, after=("2000000", "1960000")), []),  # 2 % is within a kernel's arithmetic
        (Sample("m", delegated=True, after=("2000000", "1950000")), ["a core at 1950 of 2000 MHz"]),
        (Sample("m", delegated=False, after=("2000000", "2000000")), ["XNNPACK did not take every operator"]),
        (
            Sample("m", delegated=True, before=("1", "1"), after=("2000000", "2000000")),
            [],
        ),  # idle before is as it should be
    ],
)
def test_one_model(sample: Sample, doubts: list[str]) -> None:
    assert sample_doubts(TRUST, sample, (2_000_000, 2_000_000)) == doubts


def test_a_profile_may_let_frequencies_be() -> None:
    assert sample_doubts(replace(TRUST, full_frequency=False), Sample("m", after=("1",)), (2,)) == []


def test_the_hottest_zone_that_counts_and_else_the_battery() -> None:
    assert hottest_c(COOL, CoolDown()) == 40.0
    assert hottest_c(COOL, CoolDown(zones="skin|cpu")) == 90.0
    assert hottest_c(COOL, CoolDown(zones="gpu")) == 30.0
    assert hottest_c(PhoneState(), CoolDown()) is None


def states(*zones_c: float) -> Iterator[PhoneState]:
    for celsius in zones_c:
        yield replace(COOL, zones_c={"cpu-0": celsius})


def test_the_wait_ends_with_the_heat() -> None:
    readings, said = states(70.0, 50.0, 45.0, 99.0), []
    assert wait_until_cool(lambda: next(readings), TRUST, CoolDown(poll_s=0.001), said.append)
    assert next(readings).zones_c == {"cpu-0": 99.0}  # three readings were enough
    assert said == ["waiting for the phone, 600 s at most: 70 °C, over 45 °C"]


def test_the_wait_gives_up_in_the_end() -> None:
    hot = replace(COOL, zones_c={"cpu-0": 70.0})
    assert not wait_until_cool(lambda: hot, TRUST, CoolDown(timeout_s=0.0, poll_s=0.001), lambda text: None)


def test_the_reference_is_what_the_last_believed_blocks_say() -> None:
    reference = Reference()
    assert reference.us is None
    assert not reference.outrun_by((1.0, 1.0), 5.0)
    reference.learn((100.0, 104.0, None))
    assert reference.us == 102.0
    assert not reference.outrun_by((98.0, 97.0), 5.0)  # 102 / 98 = 1.041
    assert not reference.outrun_by((98.0, 90.0), 5.0)  # only one of the two
    assert reference.outrun_by((97.0, 96.0), 5.0)  # 102 / 97 = 1.052
    for _ in range(9):
        reference.learn((110.0, 110.0))
    assert reference.us == 110.0
    reference.restart()
    assert reference.us is None


def test_a_phone_without_thermometers_is_not_waited_for() -> None:
    assert wait_until_cool(PhoneState, TRUST, CoolDown(), lambda text: None)
