"""Hill climbing: where it starts, what a neighbour is, what it keeps, and that its log replays."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from amc_latency.lut.shapes.architecture import Architecture, Layer
from amc_latency.lut.shapes.shape import LayerShape

from amc_latency.errors import UserError
from amc_latency.search.agents.hill import HillClimber, HillConfig
from amc_latency.search.costs.clamp import Clamp
from amc_latency.search.costs.costs import Counts, LatencyCosts
from amc_latency.search.episodes.env import ChannelEnv
from amc_latency.search.episodes.loop import run_episodes
from amc_latency.search.judge.score import Score
from amc_latency.search.solvers.baselines import uniform_policy

CHOICES = tuple(range(8, 65, 8))
WORTH = (1.0, 3.0, 1.0, 9.0)
TARGET_MS = 6000.0


def toy_costs() -> LatencyCosts:
    links = ((None, 0), (0, 1), (1, 2), (2, 3), (3, None))
    layers = [
        Layer(LayerShape("conv", 3 if a is None else 64, 10 if b is None else 64, h=9 - i), a, b)
        for i, (a, b) in enumerate(links)
    ]
    architecture = Architecture(tuple(layers), (64,) * 4)
    return LatencyCosts(architecture, (CHOICES,) * 4, lambda shape: shape.c_in * shape.c_out * (1 + shape.h / 8))


def toy_score(counts: Counts, best: float = 0.0) -> Score:
    """Groups are worth differently, with diminishing returns."""
    lost = sum(worth * math.exp(-count / 16) for worth, count in zip(WORTH, counts, strict=True)) / sum(WORTH)
    return Score(1 - lost, lost, 1)


def climb(seed: int, episodes: int = 60, target_ms: float = TARGET_MS) -> list[tuple[Counts, float]]:
    env = ChannelEnv(Clamp(toy_costs(), target_ms), toy_score)
    records = run_episodes(env, HillClimber(HillConfig(), seed), episodes, target_ms)
    return [(record.counts, record.reward) for record in records]


def test_starts_uniform_and_every_neighbour_leaves_nothing_to_spend() -> None:
    costs = toy_costs()
    policies = [counts for counts, _ in climb(seed=1)]
    assert policies[0] == uniform_policy(costs, TARGET_MS)
    for counts in policies[1:]:
        assert costs.ms(counts) <= TARGET_MS
        wider = [
            (*counts[:group], count, *counts[group + 1 :])
            for group in range(4)
            for count in CHOICES
            if count > counts[group]
        ]
        assert all(costs.ms(each) > TARGET_MS for each in wider)


@pytest.mark.parametrize("seed", range(3))
def test_comes_near_the_best_there_is(seed: int) -> None:
    costs = toy_costs()
    best = max(
        toy_score(counts).accuracy for counts in itertools.product(*costs.choices) if costs.ms(counts) <= TARGET_MS
    )
    uniform = toy_score(uniform_policy(costs, TARGET_MS)).accuracy
    reached = 1 + max(reward for _, reward in climb(seed))
    assert reached > uniform + 0.9 * (best - uniform)


def test_repeatable_by_seed_and_seldom_sees_a_policy_twice() -> None:
    first = climb(seed=1)
    assert climb(seed=1) == first
    assert climb(seed=2) != first
    assert len({counts for counts, _ in first}) > 50


def test_a_log_is_replayed_also_over_a_correction_of_the_target() -> None:
    env = ChannelEnv(Clamp(toy_costs(), TARGET_MS), toy_score)
    agent = HillClimber(HillConfig(), seed=1)
    log = run_episodes(env, agent, 20, TARGET_MS)
    lower_ms = 0.8 * TARGET_MS
    whole = run_episodes(
        ChannelEnv(Clamp(toy_costs(), lower_ms), toy_score), HillClimber(HillConfig(), 1), 40, lower_ms, log
    )
    resumed = run_episodes(
        ChannelEnv(Clamp(toy_costs(), lower_ms), toy_score), HillClimber(HillConfig(), 1), 40, lower_ms, whole[:27]
    )
    assert [record.counts for record in resumed] == [record.counts for record in whole]
    assert all(record.predicted_ms <= lower_ms for record in whole[20:])


def play(agent: HillClimber, clamp: Clamp, reward: float) -> Counts:
    """One episode with a reward of the test's choosing."""
    state = np.zeros(11, dtype=np.float32)
    agent.begin(clamp)
    counts: Counts = ()
    while len(counts) < clamp.costs.groups:
        counts = (*counts, clamp.nearest(counts, agent.act(state, age=0)))
    agent.learn([state] * 5, [count / 64 for count in counts], [0.0, 0.0, 0.0, reward], age=0)
    return counts


def test_goes_on_from_what_is_as_good_and_not_from_what_is_worse() -> None:
    config = HillConfig(step=0.125, step_decay=1.0, moved=1)  # one step of the eight choices
    clamp = Clamp(toy_costs(), math.inf)
    # Nothing to make up for: a neighbour is one group moved by one choice.
    agent = HillClimber(config, seed=3)
    best = play(agent, clamp, 0.5)
    assert best == (64,) * 4
    for reward in (0.4, 0.5, 0.3, 0.6, 0.6, 0.1, 0.2):
        counts = play(agent, clamp, reward)
        assert sorted(abs(a - b) for a, b in zip(counts, best, strict=True)) == [0, 0, 0, 8]
        if reward >= 0.5:
            best = counts


def test_another_target_goes_on_from_the_best_that_holds_or_from_the_uniform_width() -> None:
    costs = toy_costs()
    wide, narrow = Clamp(costs, TARGET_MS), Clamp(costs, 0.5 * TARGET_MS)
    agent = HillClimber(HillConfig(), seed=1)
    play(agent, wide, 0.9)
    assert play(agent, narrow, 0.5) == uniform_policy(costs, 0.5 * TARGET_MS)
    play(agent, wide, 0.7)
    # None but its own policies hold: no second start from the uniform width.
    assert play(agent, narrow, 0.4) != uniform_policy(costs, 0.5 * TARGET_MS)


def test_starts_narrow_where_no_uniform_width_holds() -> None:
    # A wide last group is faster: no uniform width has that with narrow ones before.
    costs = LatencyCosts(
        toy_costs().architecture,
        (CHOICES,) * 4,
        lambda shape: 100 - shape.c_out if shape.h == 6 else float(shape.c_out),
    )
    fastest = min(itertools.product(*costs.choices), key=costs.ms)
    assert play(HillClimber(HillConfig(), seed=1), Clamp(costs, costs.ms(fastest)), 0.0) == fastest


def test_settings_that_cannot_be() -> None:
    with pytest.raises(UserError, match="hill climbing takes"):
        HillConfig(step=0.0)
    with pytest.raises(UserError, match="hill climbing takes"):
        HillConfig(moved=0)
