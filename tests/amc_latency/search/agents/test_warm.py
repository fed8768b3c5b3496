"""A warm start: what is executed first, and what an actor is fitted to."""

from __future__ import annotations

import itertools
import math

import numpy as np
from amc_latency.lut.shapes.architecture import Architecture, Layer
from amc_latency.lut.shapes.shape import LayerShape

from amc_latency.search.agents.ddpg import DDPGAgent, DDPGConfig
from amc_latency.search.agents.warm import clone, warm_start
from amc_latency.search.costs.clamp import Budget, Clamp
from amc_latency.search.costs.costs import LatencyCosts, LayerCosts
from amc_latency.search.episodes.env import ChannelEnv
from amc_latency.search.episodes.loop import run_episodes
from amc_latency.search.judge.score import Score
from amc_latency.search.records import FEATURES
from amc_latency.search.solvers.shares import within_all

ARCHITECTURE = Architecture(
    (
        Layer(LayerShape("conv", 3, 8, 16, 16, kernel=3, padding=1), None, 0),
        Layer(LayerShape("conv", 8, 8, 16, 16), 0, 1),
        Layer(LayerShape("linear", 8, 10), 1, None),
    ),
    (8, 8),
)
CHOICES = ((2, 4, 6, 8),) * 2
COSTS = LatencyCosts(ARCHITECTURE, CHOICES, lambda shape: shape.c_in * shape.c_out / 100)
DAMAGE = [np.array([9.0, 4.0, 1.0, 0.0]), np.array([3.0, 2.0, 1.0, 0.0])]


def damage_of(counts: tuple[int, ...]) -> float:
    return sum(float(DAMAGE[g][CHOICES[g].index(count)]) for g, count in enumerate(counts))


def test_it_starts_from_the_least_damage_under_the_target() -> None:
    clamp = Clamp(COSTS, 0.6 * COSTS.full_ms)
    within = [counts for counts in itertools.product(*CHOICES) if clamp.holds(counts)]
    first = warm_start(clamp, [DAMAGE]).policies
    assert damage_of(first[0]) == min(map(damage_of, within))
    assert all(clamp.holds(counts) for counts in first)


def test_under_further_budgets_a_policy_is_brought_within_all() -> None:
    macs = LayerCosts(ARCHITECTURE, CHOICES, lambda shape: shape.macs)
    budget = Budget("MACs", macs, macs.of((4, 4)))
    clamp = Clamp(COSTS, COSTS.full_ms, [budget])
    assert within_all(clamp, (4, 4)) == (4, 4)
    assert budget.holds(within_all(clamp, (8, 8)))
    assert all(clamp.holds(counts) for counts in warm_start(clamp, [DAMAGE]).policies)


def test_without_a_latency_target_the_first_budget_leads() -> None:
    macs = LayerCosts(ARCHITECTURE, CHOICES, lambda shape: shape.macs)
    budget = Budget("MACs", macs, macs.of((6, 6)))
    first = warm_start(Clamp(COSTS, math.inf, [budget]), [DAMAGE]).policies
    within = [counts for counts in itertools.product(*CHOICES) if budget.holds(counts)]
    assert damage_of(first[0]) == min(map(damage_of, within))


def test_a_cloned_actor_keeps_what_dynamic_programming_keeps() -> None:
    clamp = Clamp(COSTS, 0.6 * COSTS.full_ms)
    best = warm_start(clamp, [DAMAGE]).policies[0]
    agent = DDPGAgent(DDPGConfig(warmup=0, noise=1e-6, actor_from=10), len(FEATURES), seed=0)
    clone(agent, clamp, [DAMAGE])
    env = ChannelEnv(clamp, lambda counts, _: Score(0.5, 1.0, 10))
    records = run_episodes(env, agent, 2, clamp.target_ms)
    assert [record.counts for record in records] == [best, best]
