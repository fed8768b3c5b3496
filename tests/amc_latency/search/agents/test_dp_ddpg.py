"""The default agent: exact policies, their neighbours to learn from, then its own; the best of all is returned."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from amc_latency.lut.shapes.architecture import Architecture, Layer
from amc_latency.lut.shapes.shape import LayerShape

from amc_latency.search.agents.ddpg import DDPGAgent
from amc_latency.search.config import SearchConfig
from amc_latency.search.costs.clamp import Clamp
from amc_latency.search.costs.costs import Counts, LatencyCosts, PolicyCosts
from amc_latency.search.episodes.problem import AgentOptions, Problem
from amc_latency.search.judge.damage import Damage
from amc_latency.search.judge.judge import Judge
from amc_latency.search.judge.record import EpisodeRecord
from amc_latency.search.judge.rewards import make_reward
from amc_latency.search.judge.score import Score
from amc_latency.search.steps.methods import choose, search_episodes

CHOICES = tuple(range(8, 65, 8))
GROUPS = 4
LINKS = ((None, 0), (0, 1), (1, 2), (2, 3), (3, None))
LAYERS = [
    Layer(LayerShape("conv", 3 if a is None else 64, 10 if b is None else 64, h=9 - i), a, b)
    for i, (a, b) in enumerate(LINKS)
]
COSTS = LatencyCosts(
    Architecture(tuple(LAYERS), (64,) * GROUPS),
    (CHOICES,) * GROUPS,
    lambda shape: shape.c_in * shape.c_out * (1 + shape.h / 8),
)
TARGET_MS = 6000.0


class NoisyJudge(Judge):
    """Groups are worth differently, and pairs of them too; what an episode is told is off by noise of each policy."""

    def __init__(self, seed: int, noise: float = 0.03) -> None:
        rng = random.Random(seed)
        self._counters = []
        self.worth = [rng.uniform(1, 9) for _ in range(GROUPS)]
        self.pair = rng.uniform(0, 4)
        self.seed, self.noise = seed, noise

    def truth(self, counts: Counts) -> float:
        lost = sum(worth * math.exp(-count / 16) for worth, count in zip(self.worth, counts, strict=True))
        together = self.pair * math.exp(-(counts[0] + counts[3]) / 32)
        return (lost + together) / (sum(self.worth) + self.pair)

    def __call__(self, counts: Counts, best: float = 0.0) -> Score:
        self._count(counts)
        lost = self.truth(counts) + random.Random(f"{self.seed} {counts}").gauss(0, self.noise)
        return Score(min(max(1 - lost, 0.0), 1.0), lost, 100)

    def final(self, counts: Counts) -> Score:
        return Score(1 - self.truth(counts), self.truth(counts), 1000)

    def damages(self, name: str, costs: PolicyCosts) -> list[Damage]:
        # What a proxy knows: each group alone, and not quite.
        rng = random.Random(self.seed + 1)
        return [[rng.uniform(0.5, 2) * w * np.exp(-np.array(CHOICES) / 16) for w in self.worth] for _ in range(2)]


def problem(judge: Judge, target_ms: float = TARGET_MS) -> Problem:
    origin = Clamp(COSTS, TARGET_MS)
    return Problem(origin.with_target(target_ms), judge, make_reward("loss", COSTS), 0, 0.1, origin=origin)


def searched(
    judge: Judge, agent: str, episodes: int, log: Sequence[EpisodeRecord] = (), target_ms: float = TARGET_MS
) -> tuple[list[EpisodeRecord], set[Counts]]:
    with judge.counting() as asked:
        records = search_episodes(problem(judge, target_ms), AgentOptions(agent, episodes=episodes), log)
    return records, asked


@pytest.fixture
def unlearned(monkeypatch: pytest.MonkeyPatch) -> None:
    """An actor that stays as it was made: what is looked at does not depend on it."""
    monkeypatch.setattr(DDPGAgent, "update", lambda *_, **__: None)
    monkeypatch.setattr(DDPGAgent, "clone", lambda *_, **__: None)


def test_it_is_the_default_under_a_budget_and_learns() -> None:
    assert SearchConfig(speedup=2).searcher == "dp-ddpg"
    assert SearchConfig(speedup=2).agent_record.learns
    assert SearchConfig(speedup=2, warm_start=False).searcher == "ddpg"
    assert SearchConfig(reward="latency").searcher == "ddpg"


@pytest.mark.usefixtures("unlearned")
@pytest.mark.parametrize("seed", range(8))
def test_its_result_is_never_below_dynamic_programmings_by_its_own_measure(seed: int) -> None:
    judge = NoisyJudge(seed)
    given, reward = problem(judge), make_reward("loss", COSTS)
    records, asked = searched(judge, "dp-ddpg", 60)
    ours = judge.choose(records, TARGET_MS, reward)
    value = reward(judge.final(ours.counts), ours.counts)
    exact = choose(given, "dp", 0).counts
    assert value >= reward(judge.final(exact), exact)
    starts = [record.counts for record in records if record.source == "start"]
    assert exact in starts
    assert all(value >= reward(judge.final(counts), counts) for counts in starts)
    # As many rounds of dynamic programming, and nothing learnt: 2 of 60 / (2.3 * 4) = 5 times two thirds are 3.
    alone, _ = searched(judge, "dp", 7 + 1 + round(2.3 * GROUPS * 3))
    assert alone[-1].counts in starts
    assert {record.source for record in records} == {"start", "neighbour", "learned"}
    assert len(asked) <= 60
    assert all(record.predicted_ms <= TARGET_MS for record in records)


def test_a_search_that_was_broken_off_goes_on_as_if_it_had_not() -> None:
    judge = NoisyJudge(3)
    whole, _ = searched(judge, "dp-ddpg", 32)
    assert whole[-1].source == "learned"
    for kept in (9, len(whole) - 1):
        again, _ = searched(judge, "dp-ddpg", 32, whole[:kept])
        assert [(each.counts, each.source) for each in again] == [(each.counts, each.source) for each in whole]


@pytest.mark.usefixtures("unlearned")
def test_a_correction_searches_anew_under_its_target_and_replays_what_was() -> None:
    judge, lower_ms = NoisyJudge(4), 0.9 * TARGET_MS
    first, _ = searched(judge, "dp-ddpg", 50)
    both, asked = searched(judge, "dp-ddpg", 30, first, lower_ms)
    assert [record.counts for record in both[: len(first)]] == [record.counts for record in first]
    new = both[len(first) :]
    assert {record.source for record in new} == {"start", "neighbour", "learned"}
    assert all(record.predicted_ms <= lower_ms for record in new)
    assert len(asked) <= 30
    again, _ = searched(judge, "dp-ddpg", 30, both[:-5], lower_ms)
    assert [record.counts for record in again] == [record.counts for record in both]


@pytest.mark.usefixtures("unlearned")
def test_where_no_round_can_be_afforded_it_learns_from_the_exact_policies_alone() -> None:
    judge = NoisyJudge(5)
    records, asked = searched(judge, "dp-ddpg", 14)
    assert {record.source for record in records} == {"start", "learned"}
    assert len(asked) <= len(records) == 14


@pytest.mark.usefixtures("unlearned")
def test_neighbours_are_learnt_from_and_age_nobody() -> None:
    records, _ = searched(NoisyJudge(6), "dp-ddpg", 60)
    sources = [record.source for record in records]
    first = sources.index("neighbour")
    assert sources.count("neighbour") > 5
    assert sources == sorted(sources, key=["start", "neighbour", "learned"].index)
    neighbours = [record.counts for record in records[first : first + sources.count("neighbour")]]
    assert neighbours == sorted(set(neighbours))
