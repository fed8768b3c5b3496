"""To equal milliseconds by a knob: whatever the curve, and where nothing is reached."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amc_latency.errors import UserError
from benchmarks.rivals.equal import LEAST_STEP, MOST_TRIALS, equalised


@given(power=st.floats(0.4, 3.0), wanted=st.floats(0.2, 0.9))
def test_any_power_of_the_knob_is_brought_to_the_share(power: float, wanted: float) -> None:
    asked = []

    def make(knob: float) -> float:
        asked.append(knob)
        return knob

    trial = equalised(make, lambda knob: knob**power, wanted)
    assert abs(trial.share / wanted - 1) <= 0.02
    assert trial.share == trial.knob**power
    assert len(asked) <= MOST_TRIALS


def test_the_first_trial_is_at_the_share_itself() -> None:
    assert equalised(lambda knob: knob, lambda knob: knob, 0.35).knob == pytest.approx(0.35)


def test_of_a_staircase_the_nearest_step_is_taken() -> None:
    # Steps at .3 and .6: neither is within 2 % of .5, and .6 is 18 % off in logarithms, .3 is 51 %.
    trial = equalised(lambda knob: knob, lambda knob: 0.3 if knob < 0.4 else 0.6, 0.5)
    assert trial.share == 0.6


def test_what_is_out_of_reach_counts_as_too_small() -> None:
    def make(knob: float) -> float:
        if knob < 0.6:
            raise UserError("out of reach")
        return knob

    trial = equalised(make, lambda knob: knob / 1.5, 0.5)
    assert trial.knob == pytest.approx(0.75, rel=0.02)


def test_the_refusal_is_raised_where_nothing_is_reached() -> None:
    asked = []

    def make(knob: float) -> float:
        asked.append(knob)
        raise UserError("nothing there")

    with pytest.raises(UserError, match="nothing there"):
        equalised(make, lambda knob: knob, 0.5)
    assert asked == sorted(asked)
    assert asked[-1] < 1 - LEAST_STEP
