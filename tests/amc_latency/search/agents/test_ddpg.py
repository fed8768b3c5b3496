"""DDPG on a toy whose answer is known, and the loop that replays a log."""

from __future__ import annotations

import dataclasses
import json
import statistics

import numpy as np
import pytest
import torch
from amc_latency.android_bench.safe.records import exactly
from amc_latency.lut.shapes.architecture import Architecture, Layer
from amc_latency.lut.shapes.shape import LayerShape
from scipy.stats import truncnorm

from amc_latency.errors import UserError
from amc_latency.search.agents.ddpg import DDPGAgent, DDPGConfig, truncated_normal
from amc_latency.search.costs.clamp import Clamp
from amc_latency.search.costs.costs import Counts, LatencyCosts
from amc_latency.search.episodes.env import ChannelEnv
from amc_latency.search.episodes.loop import run_episodes
from amc_latency.search.judge.record import EpisodeRecord, best_of
from amc_latency.search.judge.score import Score
from amc_latency.search.records import FEATURES
from amc_latency.search.solvers.baselines import random_policies, uniform_policy

GROUPS = 5
CHANNELS = 80
TARGET_MS = 2.5
WORTH = (0.02, 0.3, 0.02, 0.3, 0.02)
"""Accuracy that a group loses when it keeps nothing: the 2nd and 4th matter, all cost the same."""


def toy_costs() -> LatencyCosts:
    """Five independent groups that cost 1 ms each at full width."""
    layers = tuple(Layer(LayerShape("depthwise", CHANNELS, CHANNELS, h=i + 1), i, i) for i in range(GROUPS))
    choices = [tuple(range(16, CHANNELS + 1, 8))] * GROUPS
    return LatencyCosts(Architecture(layers, (CHANNELS,) * GROUPS), choices, lambda s: s.c_out / CHANNELS)


def toy_accuracy(counts: Counts) -> float:
    lost = (worth * (1 - count / CHANNELS) ** 2 for worth, count in zip(WORTH, counts, strict=True))
    return 0.9 - sum(lost)


def toy_env(accuracy=toy_accuracy) -> ChannelEnv:  # type: ignore[no-untyped-def]
    return ChannelEnv(Clamp(toy_costs(), TARGET_MS), lambda counts, best: Score(accuracy(counts), 0.0, 100))


def small_agent(seed: int = 0, warmup: int = 5, actor_from: int = 0) -> DDPGAgent:
    return DDPGAgent(DDPGConfig(hidden=32, batch=16, warmup=warmup, actor_from=actor_from), len(FEATURES), seed)


def what_happened(records: list[EpisodeRecord]) -> list[EpisodeRecord]:
    return [dataclasses.replace(record, seconds=0.0) for record in records]


@pytest.mark.parametrize("seed", [0, 1])
def test_it_learns_where_the_channels_are_worth_most(seed: int) -> None:
    agent = DDPGAgent(DDPGConfig(warmup=40), len(FEATURES), seed)
    records = run_episodes(toy_env(), agent, 160, TARGET_MS)
    random_mean = statistics.mean(map(toy_accuracy, random_policies(Clamp(toy_costs(), TARGET_MS), 300, seed)))
    learned_mean = statistics.mean(record.accuracy for record in records[-20:])
    # Best is to keep the 2nd and 4th whole; the mean of what is learned comes at least a third of the way to it.
    best = toy_accuracy((16, 80, 16, 80, 16))
    uniform = toy_accuracy(uniform_policy(toy_costs(), TARGET_MS))
    assert uniform == pytest.approx(0.9 - 0.66 / 4)
    assert learned_mean > random_mean + (best - random_mean) / 3
    assert learned_mean > uniform
    assert all(record.predicted_ms <= TARGET_MS for record in records)


def test_the_same_seed_gives_the_same_search_whatever_else_is_random_or_threaded() -> None:
    first = run_episodes(toy_env(), small_agent(), 12, TARGET_MS)
    threads = torch.get_num_threads()
    torch.manual_seed(1234)
    np.random.seed(1234)
    torch.set_num_threads(1 if threads > 1 else 2)
    try:
        before = torch.get_rng_state()
        second = run_episodes(toy_env(), small_agent(), 12, TARGET_MS)
        assert torch.equal(before, torch.get_rng_state())  # nor does a search disturb the others
    finally:
        torch.set_num_threads(threads)
    assert what_happened(first) == what_happened(second)
    assert what_happened(first) != what_happened(run_episodes(toy_env(), small_agent(1), 12, TARGET_MS))


def test_the_executed_action_is_stored_with_the_episode_reward_and_one_end() -> None:
    agent = small_agent(warmup=100)
    records = run_episodes(toy_env(), agent, 3, TARGET_MS)
    stored = agent.replay.actions[: 3 * GROUPS, 0]
    executed = [count / CHANNELS for record in records for count in record.counts]
    np.testing.assert_allclose(stored, executed, rtol=1e-6)
    assert [action for record in records for action in record.actions] == executed
    rewards = [toy_accuracy(record.counts) - 1 for record in records for _ in range(GROUPS)]
    np.testing.assert_allclose(agent.replay.rewards[: 3 * GROUPS, 0], rewards, rtol=1e-6)
    assert agent.replay.dones[: 3 * GROUPS, 0].tolist() == [0, 0, 0, 0, 1] * 3
    previous = FEATURES.index("previous")
    np.testing.assert_array_equal(agent.replay.next_states[: 3 * GROUPS, previous], stored)


def test_the_first_transition_of_an_episode_is_sampled() -> None:
    agent = small_agent(warmup=100)
    run_episodes(toy_env(), agent, 3, TARGET_MS)
    states, *_ = agent.replay.sample(500, np.random.default_rng(0))
    firsts = (states[:, FEATURES.index("t")] == 1 / GROUPS).float().mean().item()
    assert firsts == pytest.approx(1 / GROUPS, abs=0.06)


def test_replay_overwrites_the_oldest() -> None:
    agent = DDPGAgent(DDPGConfig(replay=4), 1, 0)
    for i in range(6):
        agent.store(np.array([i], np.float32), i, 0.0, np.array([i + 1], np.float32), False)
    assert sorted(agent.replay.states[:, 0]) == [2, 3, 4, 5]
    assert len(agent.replay) == 4


def test_nothing_follows_the_last_step() -> None:
    agent = DDPGAgent(DDPGConfig(hidden=8, critic_rate=0.01), 1, 0)
    with torch.no_grad():
        agent.target_critic.layers[-1].bias.fill_(100.0)  # what would leak in
    state = np.zeros(1, np.float32)
    for _ in range(300):
        agent.learn([state, state], [0.5], [-0.3], age=1000)
    with torch.no_grad():
        value = agent.critic(torch.tensor([[0.0]]), torch.tensor([[0.5]])).item()
    # The reward less its moving average, which is the reward itself: 0.
    assert value == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize("action_layer", [1, 2])
def test_where_the_action_joins_the_critic(action_layer: int) -> None:
    agent = DDPGAgent(DDPGConfig(hidden=8, action_layer=action_layer), 3, 0)
    # 3 features, 8 and 8 units, with the action at the first hidden layer or at the second.
    expected = {1: [(8, 4), (8, 8), (1, 8)], 2: [(8, 3), (8, 9), (1, 8)]}
    weights = [tuple(p.shape) for p in agent.critic.parameters() if p.ndim == 2]
    assert weights == expected[action_layer]
    for seed in range(3):
        agent.learn([np.full(3, seed, np.float32)] * 3, [0.3, 0.9], [0.0, -0.1], age=0)
    states, actions = torch.zeros(4, 3), torch.linspace(0.2, 1, 4).unsqueeze(1)
    assert len(set(agent.critic(states, actions).squeeze(1).tolist())) == 4  # it matters what is done


def test_target_q_is_only_asked_about_keep_ratios_within_the_bounds() -> None:
    agent = DDPGAgent(DDPGConfig(lowest=0.35), 3, 0)
    with torch.no_grad():
        for actor in (agent.actor, agent.target_actor):
            for extreme, bound in ((-1e3, 0.35), (1e3, 1.0)):
                actor[0][-1].bias.fill_(extreme)  # the sigmoid is saturated
                np.testing.assert_allclose(actor(torch.randn(5, 3)), np.full((5, 1), bound), atol=1e-6)


def test_no_learning_in_the_warmup_and_one_step_a_transition_after(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = small_agent(warmup=2)
    updates = []
    update = agent.update
    monkeypatch.setattr(agent, "update", lambda with_actor: (updates.append(with_actor), update(with_actor)))
    before = [parameter.clone() for parameter in agent.actor.parameters()]

    def has_learned() -> bool:
        return not all(torch.equal(a, b) for a, b in zip(before, agent.actor.parameters(), strict=True))

    run_episodes(toy_env(), agent, 2, TARGET_MS)
    assert (len(updates), has_learned()) == (0, False)
    agent.learn([np.zeros(len(FEATURES), np.float32)] * 4, [0.5] * 3, [0.0, 0.0, -0.5], age=0)
    assert (len(updates), has_learned()) == (3, True)


def test_a_cloned_actor_is_left_alone_until_the_critic_knows_something() -> None:
    agent = small_agent(warmup=0, actor_from=2)
    states = np.eye(4, len(FEATURES), dtype=np.float32)
    wanted = np.array([0.3, 0.9, 0.5, 0.7])
    agent.clone(states, wanted)
    for actor in (agent.actor, agent.target_actor):
        with torch.no_grad():
            np.testing.assert_allclose(actor(torch.from_numpy(states)).squeeze(1), wanted, atol=0.02)
    cloned = [parameter.clone() for parameter in agent.actor.parameters()]
    critic = [parameter.clone() for parameter in agent.critic.parameters()]

    def same(before: list[torch.Tensor], now: torch.nn.Module) -> bool:
        return all(torch.equal(a, b) for a, b in zip(before, now.parameters(), strict=True))

    agent.learn([np.zeros(len(FEATURES), np.float32)] * 4, [0.5] * 3, [0.0, 0.0, -0.5], age=1)
    assert (same(cloned, agent.actor), same(critic, agent.critic)) == (True, False)
    agent.learn([np.zeros(len(FEATURES), np.float32)] * 4, [0.5] * 3, [0.0, 0.0, -0.5], age=2)
    assert not same(cloned, agent.actor)


def test_truncated_normal_against_scipy() -> None:
    rng = np.random.default_rng(0)
    for mean, sigma in ((0.3, 0.5), (0.9, 0.1), (1.0, 0.2)):
        draws = [truncated_normal(mean, sigma, 0.2, 1.0, rng) for _ in range(4000)]
        expected = truncnorm((0.2 - mean) / sigma, (1.0 - mean) / sigma, mean, sigma)
        assert min(draws) >= 0.2
        assert max(draws) <= 1.0
        assert statistics.mean(draws) == pytest.approx(expected.mean(), abs=4 * expected.std() / 4000**0.5)
        assert statistics.stdev(draws) == pytest.approx(expected.std(), rel=0.05)
    assert truncated_normal(0.7, 1e-9, 0.2, 1.0, rng) == pytest.approx(0.7, abs=1e-7)
    assert truncated_normal(0.0, 1e-9, 0.2, 1.0, rng) == pytest.approx(0.2, abs=1e-7)


@pytest.mark.parametrize("kept", [0, 3, 7, 11])
def test_a_resumed_search_goes_on_as_the_unbroken_one(kept: int) -> None:
    unbroken = run_episodes(toy_env(), small_agent(), 12, TARGET_MS)
    log = [exactly(json.loads(json.dumps(dataclasses.asdict(record))), EpisodeRecord) for record in unbroken[:kept]]
    evaluated: list[Counts] = []

    def accuracy(counts: Counts) -> float:
        evaluated.append(counts)
        return toy_accuracy(counts)

    new: list[EpisodeRecord] = []
    resumed = run_episodes(toy_env(accuracy), small_agent(), 12, TARGET_MS, log, on_episode=new.append)
    assert what_happened(resumed) == what_happened(unbroken)
    assert resumed[:kept] == log
    assert new == resumed[kept:]
    assert evaluated == [record.counts for record in new]


def test_start_policies_and_a_tighter_target_are_resumed_too() -> None:
    def search(episodes: int, target_ms: float, log: list[EpisodeRecord]) -> list[EpisodeRecord]:
        uniform = uniform_policy(toy_costs(), target_ms)
        return run_episodes(toy_env(), small_agent(), episodes, target_ms, log, [uniform])

    first = search(8, TARGET_MS, [])
    assert [record.source for record in first] == ["start"] + ["warm-up"] * 4 + ["learned"] * 3
    assert first[0].counts == (40,) * GROUPS  # 5 groups at half width: 2.5 ms
    whole = search(14, 2.0, first)
    assert whole[:8] == first
    assert (whole[8].source, whole[8].counts) == ("start", (32,) * GROUPS)
    assert [record.target_ms for record in whole] == [TARGET_MS] * 8 + [2.0] * 6
    assert all(record.predicted_ms <= record.target_ms for record in whole)
    assert what_happened(search(8, TARGET_MS, whole[:5])) == what_happened(first)
    for kept in (8, 9, 12):
        assert what_happened(search(14, 2.0, whole[:kept])) == what_happened(whole)


def test_exploration_begins_again_with_each_target(monkeypatch: pytest.MonkeyPatch) -> None:
    ages: list[int] = []
    act = DDPGAgent.act
    monkeypatch.setattr(DDPGAgent, "act", lambda self, state, age: (ages.append(age), act(self, state, age))[1])
    first = run_episodes(toy_env(), small_agent(warmup=3), 6, TARGET_MS)
    assert ages[::GROUPS] == [-3, -2, -1, 0, 1, 2]
    ages.clear()
    # The first six are learned again from the log, then it explores anew.
    run_episodes(toy_env(), small_agent(warmup=3), 9, 2.0, first)
    assert ages[::GROUPS] == [-3, -2, -1, 0, 1, 2, 0, 1, 2]


def test_a_log_of_another_search_is_refused() -> None:
    log = run_episodes(toy_env(), small_agent(0), 3, TARGET_MS)
    with pytest.raises(UserError, match=r"episode 0 of the log .* another config"):
        run_episodes(toy_env(), small_agent(1), 3, TARGET_MS, log)
    slower = [dataclasses.replace(record, predicted_ms=record.predicted_ms + 0.01) for record in log]
    with pytest.raises(UserError, match="episode 0 of the log"):
        run_episodes(toy_env(), small_agent(0), 3, TARGET_MS, slower)


def test_a_given_policy_over_the_target_is_refused() -> None:
    with pytest.raises(UserError, match=r"80,80,80,80,80 is over the target of 2\.5 ms"):
        run_episodes(toy_env(), small_agent(), 1, TARGET_MS, start_policies=[(CHANNELS,) * GROUPS])


@pytest.mark.parametrize("change", [{"counts": (16,) * 4}, {"actions": ()}, {"target_ms": 0.1}, {"target_ms": -1.0}])
def test_a_record_that_fits_no_such_network_is_refused(change: dict[str, object]) -> None:
    log = run_episodes(toy_env(), small_agent(), 3, TARGET_MS)
    with pytest.raises(UserError, match=r"episode 1 of the log .* another config"):
        run_episodes(toy_env(), small_agent(), 3, TARGET_MS, [log[0], dataclasses.replace(log[1], **change)])


def test_best_of_is_the_most_accurate_under_the_target() -> None:
    log = run_episodes(toy_env(), small_agent(), 8, TARGET_MS)
    best = best_of(log, TARGET_MS)[0]
    assert best.accuracy == max(record.accuracy for record in log)
    limit = min(record.predicted_ms for record in log)
    assert best_of(log, limit)[0].predicted_ms == limit
    twin = dataclasses.replace(best, episode=99, predicted_ms=best.predicted_ms - 0.1)
    assert best_of([*log, twin], TARGET_MS)[0] is twin
    with pytest.raises(UserError, match="no episode"):
        best_of(log, 0.1)
    ranked = best_of([*log, *log], TARGET_MS, 5)
    assert len({record.counts for record in ranked}) == 5
    assert [record.accuracy for record in ranked] == sorted((r.accuracy for r in ranked), reverse=True)
