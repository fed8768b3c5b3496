"""Rewards by hand, and the costs that they and the budgets count."""

from __future__ import annotations

import math

import pytest
from amc_latency.lut.shapes.architecture import Architecture, Layer
from amc_latency.lut.shapes.shape import LayerShape

from amc_latency.search.costs.costs import LatencyCosts
from amc_latency.search.costs.sizes import bytes_costs, macs_costs, params_costs
from amc_latency.search.judge.rewards import make_reward
from amc_latency.search.judge.score import Score
from amc_latency.search.records import REWARDS

ARCHITECTURE = Architecture(
    (
        Layer(LayerShape("conv", 3, 16, 8, 8, kernel=3, padding=1), None, 0),
        Layer(LayerShape("depthwise", 16, 16, 8, 8, kernel=3, padding=1), 0, 0),
        Layer(LayerShape("linear", 16, 10), 0, None),
    ),
    (16,),
)
CHOICES = ((4, 16),)
COSTS = LatencyCosts(ARCHITECTURE, CHOICES, lambda shape: shape.c_out / 100, offset_ms=0.1)
MACS = {4: 9 * 3 * 4 * 64 + 9 * 4 * 64 + 40, 16: 9 * 3 * 16 * 64 + 9 * 16 * 64 + 160}
PARAMS = {4: 9 * 3 * 4 + 4 + 9 * 4 + 4 + 40 + 10, 16: 9 * 3 * 16 + 16 + 9 * 16 + 16 + 160 + 10}


def test_costs_are_counted_by_hand() -> None:
    for count in (4, 16):
        assert macs_costs(ARCHITECTURE, CHOICES).of((count,)) == MACS[count]
        assert params_costs(ARCHITECTURE, CHOICES).of((count,)) == PARAMS[count]
        assert bytes_costs(ARCHITECTURE, CHOICES, 1000).of((count,)) == 1000 + 4 * PARAMS[count]


def test_rewards_are_those_of_the_paper() -> None:
    score, counts = Score(0.9, 0.35, 100), (4,)
    # 0.1 ms and layers of 4, 4 and 10 channels at 0.01 ms each.
    latency_ns = (0.1 + 0.18) * 1e6
    expected = {
        "error": -0.1,
        "loss": -0.35,
        "latency": -0.1 * math.log(latency_ns),
        "macs": -0.1 * math.log(MACS[4]),
        "params": -0.1 * math.log(PARAMS[4]),
        # The faster of the two that there are.
        "two-stage": 0.9 - 0.0,
    }
    assert set(expected) == set(REWARDS)
    for name, value in expected.items():
        assert make_reward(name, COSTS)(score, counts) == pytest.approx(value)


@pytest.mark.parametrize("name", REWARDS)
def test_more_errors_are_never_worth_more(name: str) -> None:
    """Also for networks that are faster than 1 ms, whose milliseconds have a negative logarithm."""
    reward = make_reward(name, COSTS)
    assert reward(Score(0.8, 0.6, 100), (4,)) < reward(Score(0.9, 0.3, 100), (4,))


def test_what_trades_prefers_the_cheaper_of_two_equally_accurate() -> None:
    score = Score(0.9, 0.3, 100)
    for name in ("latency", "macs", "params", "two-stage"):
        assert not REWARDS[name].needs_budget
        assert make_reward(name, COSTS)(score, (4,)) > make_reward(name, COSTS)(score, (16,))


def test_the_two_stage_reward_scales_the_cost_by_what_policies_can_take() -> None:
    score = Score(0.9, 0.3, 100)
    # Milliseconds: 0.1 + (16 + 16 + 10) / 100 = 0.52 with 16 channels, 0.36 with 8, 0.28 with 4.
    for choices, widest_ms in (((4, 8, 16), 0.52), ((4, 8), 0.36)):
        costs = LatencyCosts(ARCHITECTURE, (choices,), lambda shape: shape.c_out / 100, offset_ms=0.1)
        reward = make_reward("two-stage", costs)
        for _ in range(2):  # worth the same whenever it comes
            assert reward(score, (4,)) == pytest.approx(0.9)
            assert reward(score, (8,)) == pytest.approx(0.9 - (0.36 - 0.28) / (widest_ms - 0.28))
            assert reward(score, choices[-1:]) == pytest.approx(0.9 - 1.0)
