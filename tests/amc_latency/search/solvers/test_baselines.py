"""Uniform, shallow and deep widths, and random policies."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from amc_latency.lut.shapes.architecture import Architecture, Layer
from amc_latency.lut.shapes.shape import LayerShape

from amc_latency.errors import UserError
from amc_latency.search.costs.clamp import Clamp
from amc_latency.search.costs.costs import LatencyCosts
from amc_latency.search.solvers.baselines import (
    RandomAgent,
    deep_policies,
    deep_policy,
    random_policies,
    shallow_policies,
    shallow_policy,
    uniform_policies,
    uniform_policy,
)

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


def test_every_rounding_of_a_ramp_widest_first() -> None:
    costs = LatencyCosts(TWO_GROUPS, CHOICES, products)
    # Shallow: 1 - cut and 1 - cut / 2. 16 -> 8 at a cut of 0.25; 40 -> 32, 24, 16, 8 at 0.2, 0.6, 1.0 and 1.4.
    assert shallow_policies(costs) == [(16, 40), (16, 32), (8, 32), (8, 24), (8, 16), (8, 8)]
    # Deep: 1 - cut / 2 and 1 - cut. 16 -> 8 at a cut of 0.5; 40 -> 32, 24, 16, 8 at 0.1, 0.3, 0.5 and 0.7.
    # Where both change at once, a tie is the wider one's.
    assert deep_policies(costs) == [(16, 40), (16, 32), (16, 24), (8, 16), (8, 8)]


def test_the_ramp_leans_where_its_name_says() -> None:
    eight = tuple(range(8, 81, 8))
    layers = [LayerShape("conv", 80, 80, h=depth + 1) for depth in range(5)]
    chain = Architecture(
        tuple(
            Layer(shape, depth - 1 if depth else None, depth if depth < 4 else None)
            for depth, shape in enumerate(layers)
        ),
        (80,) * 4,
    )
    costs = LatencyCosts(chain, (eight,) * 4, products)
    target_ms = costs.full_ms * 0.4
    shallow, deep = shallow_policy(costs, target_ms), deep_policy(costs, target_ms)
    assert costs.ms(shallow) <= target_ms
    assert costs.ms(deep) <= target_ms
    assert list(shallow) == sorted(shallow)
    assert list(deep) == sorted(deep, reverse=True)
    assert shallow[0] < shallow[-1]
    assert deep[0] > deep[-1]
    for policies in (shallow_policies(costs), deep_policies(costs)):
        assert policies[0] == costs.full
        assert policies[-1] == (8, 8, 8, 8)
        latencies = [costs.ms(counts) for counts in policies]
        assert latencies == sorted(latencies, reverse=True)
        assert all(wide >= narrow for a, b in itertools.pairwise(policies) for wide, narrow in zip(a, b, strict=True))


def test_no_ramp_is_an_error_that_names_the_fastest() -> None:
    costs = LatencyCosts(TWO_GROUPS, CHOICES, products)
    with pytest.raises(UserError, match=f"shallow layers .* predicted at {8 * 3 + 8 * 8 + 8 * 10} ms"):
        shallow_policy(costs, 100.0)
    with pytest.raises(UserError, match=f"deep layers .* predicted at {8 * 3 + 8 * 8 + 8 * 10} ms"):
        deep_policy(costs, 100.0)


def test_the_random_agent_plays_the_random_policies_of_its_seed() -> None:
    clamp = Clamp(LatencyCosts(TWO_GROUPS, CHOICES, products), 500.0)
    agent = RandomAgent(seed=1)
    state = np.zeros(11, dtype=np.float32)
    played = []
    for _ in range(20):
        agent.begin(clamp)
        counts: tuple[int, ...] = ()
        while len(counts) < 2:
            counts = (*counts, clamp.nearest(counts, agent.act(state, age=0)))
        agent.learn([state] * 3, [counts[0] / 16, counts[1] / 40], [0.0, 0.0], age=0)
        played.append(counts)
    assert played == random_policies(clamp, 20, seed=1)
