"""Uniform width and random policies."""

from __future__ import annotations

import pytest

from amc_latency.errors import UserError
from amc_latency.search.baselines import random_policies, uniform_policies, uniform_policy
from amc_latency.search.clamp import Clamp
from amc_latency.search.costs import LatencyCosts
from lut.architecture import Architecture, Layer
from lut.shape import LayerShape

TWO_GROUPS = Architecture(
    (
        Layer(LayerShape("conv", 3, 16), None, 0),
        Layer(LayerShape("conv", 16, 40), 0, 1),
        Layer(LayerShape("linear", 40, 10), 1, None),
    ),
    (16, 40),
)
CHOICES = ((8, 16), (8, 16, 24, 32, 40))


def products(shape: LayerShape) -> float:
    return float(shape.c_in * shape.c_out)


def test_every_rounding_of_one_ratio_widest_first() -> None:
    costs = LatencyCosts(TWO_GROUPS, CHOICES, products)
    # 16 -> 8 below 12/16 = 0.75; 40 -> 32 below 0.9, -> 24 below 0.7, -> 16 below 0.5, -> 8 below 0.3.
    assert uniform_policies(costs) == [(16, 40), (16, 32), (8, 32), (8, 24), (8, 16), (8, 8)]


def test_widest_uniform_that_fits() -> None:
    costs = LatencyCosts(TWO_GROUPS, CHOICES, products)
    assert uniform_policy(costs, 16 * 3 + 16 * 32 + 32 * 10) == (16, 32)
    assert uniform_policy(costs, 16 * 3 + 16 * 32 + 32 * 10 - 1) == (8, 32)
    assert uniform_policy(costs, 1e6) == (16, 40)


def test_widest_uniform_where_a_narrower_one_is_slower() -> None:
    costs = LatencyCosts(TWO_GROUPS, CHOICES, lambda shape: 9.0 if shape.c_out == 24 else shape.c_out / 100)
    assert uniform_policy(costs, 8.0) == (16, 40)


def test_no_uniform_width_is_an_error_that_names_the_fastest() -> None:
    costs = LatencyCosts(TWO_GROUPS, CHOICES, products)
    with pytest.raises(UserError, match=f"no uniform width .* predicted at {8 * 3 + 8 * 8 + 8 * 10} ms"):
        uniform_policy(costs, 100.0)


def test_random_policies_are_feasible_varied_and_repeatable() -> None:
    costs = LatencyCosts(TWO_GROUPS, CHOICES, products)
    clamp = Clamp(costs, 500.0)
    policies = random_policies(clamp, 200, seed=1)
    assert max(map(costs.ms, policies)) <= 500
    feasible = {(a, b) for a in CHOICES[0] for b in CHOICES[1] if a * 3 + a * b + b * 10 <= 500}
    assert set(policies) == feasible
    assert random_policies(clamp, 200, seed=1) == policies
    assert random_policies(clamp, 200, seed=2) != policies
