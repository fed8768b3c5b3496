"""PPO on a toy whose answer is known, and its arithmetic on numbers worked out by hand."""

from __future__ import annotations

import dataclasses
import math
import statistics

import numpy as np
import pytest
import torch
from amc_latency.lut.shapes.architecture import Architecture, Layer
from amc_latency.lut.shapes.shape import LayerShape
from scipy.stats import truncnorm

from amc_latency.search.agents.ppo import PPOAgent, PPOConfig, clipped_objective, log_density, standardised
from amc_latency.search.costs.clamp import Clamp
from amc_latency.search.costs.costs import Counts, LatencyCosts
from amc_latency.search.episodes.env import ChannelEnv
from amc_latency.search.episodes.loop import run_episodes
from amc_latency.search.judge.record import EpisodeRecord
from amc_latency.search.judge.score import Score
from amc_latency.search.records import FEATURES

GROUPS = 5
CHANNELS = 80
TARGET_MS = 2.5
WORTH = (0.02, 0.3, 0.02, 0.3, 0.02)
"""Accuracy that a group loses when it keeps nothing: the 2nd and 4th matter, all cost the same."""


def toy_costs() -> LatencyCosts:
    layers = tuple(Layer(LayerShape("depthwise", CHANNELS, CHANNELS, h=i + 1), i, i) for i in range(GROUPS))
    choices = [tuple(range(16, CHANNELS + 1, 8))] * GROUPS
    return LatencyCosts(Architecture(layers, (CHANNELS,) * GROUPS), choices, lambda s: s.c_out / CHANNELS)


def toy_score(counts: Counts, best: float) -> Score:
    lost = (worth * (1 - count / CHANNELS) ** 2 for worth, count in zip(WORTH, counts, strict=True))
    return Score(0.9 - sum(lost), 0.0, 100)


def toy_env(target_ms: float = TARGET_MS) -> ChannelEnv:
    return ChannelEnv(Clamp(toy_costs(), target_ms), toy_score)


def small_agent(seed: int = 0, **settings: object) -> PPOAgent:
    return PPOAgent(PPOConfig(**{"hidden": 16, "batch": 16, "warmup": 3, **settings}), len(FEATURES), seed)


def what_happened(records: list[EpisodeRecord]) -> list[EpisodeRecord]:
    return [dataclasses.replace(record, seconds=0.0) for record in records]


def test_it_beats_its_own_random_warmup() -> None:
    best = toy_score((16, 80, 16, 80, 16), 0.0).accuracy
    ways = []
    for seed in (3, 4, 5):
        # Noise that ends sooner than the default's, for a search that does.
        agent = PPOAgent(PPOConfig(warmup=40, noise_decay=0.98), len(FEATURES), seed)
        records = run_episodes(toy_env(), agent, 200, TARGET_MS)
        warmup = statistics.mean(record.accuracy for record in records[:40])
        learned = statistics.mean(record.accuracy for record in records[-20:])
        ways.append((learned - warmup) / (best - warmup))
        assert all(record.predicted_ms <= TARGET_MS for record in records)
    # Shares of the way from random to the best policy there is.
    assert min(ways) > 0.2
    assert statistics.mean(ways) > 1 / 3


def test_the_same_seed_gives_the_same_search_resumed_or_not() -> None:
    unbroken = run_episodes(toy_env(), small_agent(), 14, TARGET_MS, start_policies=[(40,) * GROUPS])
    torch.manual_seed(1234)
    before = torch.get_rng_state()
    threads = torch.get_num_threads()
    torch.set_num_threads(2 if threads == 1 else 1)
    try:
        for kept in (0, 5, 9, 14):
            agent = small_agent()
            again = run_episodes(toy_env(), agent, 14, TARGET_MS, unbroken[:kept], [(40,) * GROUPS])
            assert what_happened(again) == what_happened(unbroken)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(before, torch.get_rng_state())
    assert what_happened(unbroken) != what_happened(run_episodes(toy_env(), small_agent(1), 14, TARGET_MS))


def test_a_search_rewarded_by_layer_is_resumed_too() -> None:
    def search(log: list[EpisodeRecord]) -> list[EpisodeRecord]:
        env = ChannelEnv(Clamp(toy_costs(), TARGET_MS), toy_score, state="two-stage", by_layer=True)
        return run_episodes(env, PPOAgent(PPOConfig(hidden=16, warmup=3), len(env.features), 0), 12, TARGET_MS, log)

    unbroken = search([])
    assert what_happened(search(unbroken[:7])) == what_happened(unbroken)
    # What a policy is worth as a whole, not what its last layer changed.
    assert all(record.reward == pytest.approx(record.accuracy - 1) for record in unbroken)


def test_the_actor_improves_when_enough_episodes_of_its_own_are_there() -> None:
    agent = small_agent(warmup=0, actors=3)
    states = [np.full(len(FEATURES), 0.1 * t, np.float32) for t in range(3)]

    def weights() -> torch.Tensor:
        return torch.cat([parameter.detach().flatten().clone() for parameter in agent.actor.parameters()])

    def episode(given: bool, reward: float) -> bool:
        before = weights()
        agent.begin(Clamp(toy_costs(), TARGET_MS))
        actions = [0.5, 0.5] if given else [agent.act(state, 0) for state in states[:-1]]
        agent.learn(states, actions, [0.0, reward], 0)
        return not torch.equal(before, weights())

    changed = [episode(given, reward) for given, reward in ((False, -0.5), (True, -0.2), (False, -0.4), (False, -0.1))]
    assert changed == [False, False, False, True]  # a given episode is none of its own
    assert agent.rollouts == []
    assert agent.replay.added == 0  # no critic is asked, so none is taught


def test_episodes_under_another_target_are_not_improved_by() -> None:
    agent = small_agent(warmup=0, actors=3)
    states = [np.zeros(len(FEATURES), np.float32)] * 3
    for target_ms, collected in ((TARGET_MS, 1), (TARGET_MS, 2), (2 * TARGET_MS, 1), (2 * TARGET_MS, 2)):
        agent.begin(Clamp(toy_costs(), target_ms))
        agent.learn(states, [agent.act(state, 0) for state in states[:-1]], [0.0, -0.1], 0)
        assert len(agent.rollouts) == collected


def test_ratios_are_of_what_was_sampled_and_the_critic_sees_what_was_executed() -> None:
    agent = small_agent(warmup=0, actors=100, q_values="critic")
    asked: list[float] = []
    act = agent.act
    agent.act = lambda state, age: (asked.append(act(state, age)), asked[-1])[1]  # type: ignore[method-assign]
    (record,) = run_episodes(toy_env(1.25), agent, 1, 1.25)
    assert list(record.actions) != pytest.approx(asked, abs=0.1)  # the clamp moved some far
    np.testing.assert_allclose(agent.rollouts[0].sampled, asked, rtol=1e-6)
    np.testing.assert_allclose(agent.replay.actions[:GROUPS, 0], record.actions, rtol=1e-6)


def test_clipped_objective_by_hand() -> None:
    def of(ratio: float, advantage: float) -> float:
        return clipped_objective(torch.tensor([ratio]), torch.tensor([advantage]), 0.2).item()

    assert of(1.1, 2.0) == pytest.approx(2.2)
    assert of(1.5, 2.0) == pytest.approx(1.2 * 2.0)  # no more gain from going further
    assert of(0.5, 2.0) == pytest.approx(0.5 * 2.0)
    assert of(0.5, -2.0) == pytest.approx(0.8 * -2.0)
    assert of(1.5, -2.0) == pytest.approx(1.5 * -2.0)  # but the whole loss
    both = clipped_objective(torch.tensor([1.5, 0.5]), torch.tensor([2.0, -2.0]), 0.2).item()
    assert both == pytest.approx((2.4 - 1.6) / 2)
    beyond = torch.tensor([1.5], requires_grad=True)
    clipped_objective(beyond, torch.tensor([2.0]), 0.2).backward()
    assert beyond.grad is not None
    assert beyond.grad.item() == 0


def test_values_are_standardised_over_the_actors_at_each_step() -> None:
    values = torch.tensor([[1.0, 10.0, 7.0], [3.0, 40.0, 7.0]])
    # Means 2, 25, 7; spreads 1, 15, 0.
    np.testing.assert_allclose(standardised(values), [[-1.0, -1.0, 0.0], [1.0, 1.0, 0.0]], atol=1e-6)


def collected(agent: PPOAgent, rewards: list[float]) -> torch.Tensor:
    """Q of an episode's transitions."""
    states = [np.zeros(len(FEATURES), np.float32)] * (len(rewards) + 1)
    agent.begin(Clamp(toy_costs(), TARGET_MS))
    agent.learn(states, [agent.act(state, 0) for state in states[:-1]], rewards, 0)
    with torch.no_grad():
        return agent._values()


def test_values_are_the_rewards_that_followed() -> None:
    at_the_end = collected(small_agent(warmup=0, actors=100), [0.0, 0.0, -0.2])
    np.testing.assert_allclose(at_the_end, [[-0.2, -0.2, -0.2]], rtol=1e-6)
    by_layer = collected(small_agent(warmup=0, actors=100), [-0.1, 0.05, -0.2])
    np.testing.assert_allclose(by_layer, [[-0.25, -0.15, -0.2]], rtol=1e-6)
    discounted = collected(small_agent(warmup=0, actors=100, gamma=0.5), [-0.1, 0.05, -0.2])
    np.testing.assert_allclose(discounted, [[-0.1 + 0.025 - 0.05, 0.05 - 0.1, -0.2]], rtol=1e-6)


def test_with_the_critic_they_are_the_reward_and_what_the_target_networks_expect_after_it() -> None:
    agent = small_agent(warmup=0, actors=100, q_values="critic", baseline_rate=0.0, critic_rate=0.0, tau=0.0)
    agent.baseline = -0.5
    with torch.no_grad():
        agent.target_critic[-1].weight.zero_()
        agent.target_critic[-1].bias.fill_(0.25)  # worth a quarter, whatever is done
    np.testing.assert_allclose(collected(agent, [0.0, -0.2]), [[0.25, -0.2 + 0.5]], rtol=1e-6)
    assert agent.replay.added == 2


def test_an_episode_that_was_given_teaches_the_critic_only() -> None:
    agent = small_agent(warmup=0, actors=100, q_values="critic")
    states = [np.zeros(len(FEATURES), np.float32)] * 3
    agent.begin(Clamp(toy_costs(), TARGET_MS))
    agent.learn(states, [0.5, 0.5], [0.0, -0.2], 0)
    assert (agent.replay.added, agent.rollouts) == (2, [])


def test_density_against_scipy() -> None:
    for mean, sigma in ((0.3, 0.5), (0.9, 0.1), (1.0, 0.2), (0.2, 0.05)):
        expected = truncnorm((0.2 - mean) / sigma, (1.0 - mean) / sigma, mean, sigma)
        actions = torch.tensor([0.25, 0.6, 0.99], dtype=torch.float64)
        ours = log_density(actions, actions.new_tensor(mean), actions.new_tensor(sigma), 0.2)
        constant = math.log(sigma) + 0.5 * math.log(2 * math.pi)
        np.testing.assert_allclose(ours, expected.logpdf(actions.numpy()) + constant, rtol=1e-6)


def test_sigma_decays_to_its_floor_and_every_action_is_within_bounds() -> None:
    agent = small_agent(noise=0.4, noise_decay=0.5, noise_least=0.15)
    assert [agent.sigma(age) for age in (0, 1, 2, 50)] == [0.4, 0.2, 0.15, 0.15]
    state = np.ones(len(FEATURES), np.float32)
    actions = [agent.act(state, age) for age in range(-50, 50)]
    assert min(actions) >= 0.2
    assert max(actions) <= 1.0


def test_clone_fits_the_actor_to_given_ratios() -> None:
    agent = PPOAgent(PPOConfig(), len(FEATURES), 0)
    states = np.random.default_rng(0).uniform(size=(10, len(FEATURES))).astype(np.float32)
    wanted = np.linspace(0.25, 0.95, 10)
    agent.clone(states, wanted, steps=1000)
    with torch.no_grad():
        for actor in (agent.actor, agent.target_actor):
            means = actor(torch.from_numpy(states)).squeeze(1)
            np.testing.assert_allclose(means, wanted, atol=0.05)
