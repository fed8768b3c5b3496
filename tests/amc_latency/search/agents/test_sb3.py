"""Stable-Baselines3 on our environment: its loop, our records, and a log that it replays."""

from __future__ import annotations

import dataclasses
import json
import random
import sys

import numpy as np
import pytest
import torch
from amc_latency.android_bench.safe.records import exactly
from amc_latency.lut.shapes.architecture import Architecture, Layer
from amc_latency.lut.shapes.shape import LayerShape

from amc_latency.errors import UserError
from amc_latency.search.agents.sb3 import run_sb3
from amc_latency.search.costs.clamp import Clamp
from amc_latency.search.costs.costs import Counts, LatencyCosts
from amc_latency.search.episodes.env import ChannelEnv
from amc_latency.search.judge.record import EpisodeRecord
from amc_latency.search.judge.score import Score
from amc_latency.search.records import AGENTS

GROUPS = 3
CHANNELS = 80
TARGET_MS = 1.5
UNIFORM = (40,) * GROUPS


def toy_env(evaluated: list[Counts] | None = None) -> ChannelEnv:
    """Three groups that cost 1 ms each at full width; the second is worth the most."""
    layers = tuple(Layer(LayerShape("depthwise", CHANNELS, CHANNELS, h=i + 1), i, i) for i in range(GROUPS))
    choices = [tuple(range(16, CHANNELS + 1, 8))] * GROUPS
    costs = LatencyCosts(Architecture(layers, (CHANNELS,) * GROUPS), choices, lambda s: s.c_out / CHANNELS)

    def score(counts: Counts, best: float) -> Score:
        if evaluated is not None:
            evaluated.append(counts)
        return Score(0.5 * counts[1] / CHANNELS, 0.0, 100)

    return ChannelEnv(Clamp(costs, TARGET_MS), score)


def what_happened(records: list[EpisodeRecord]) -> list[EpisodeRecord]:
    return [dataclasses.replace(record, seconds=0.0) for record in records]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    with pytest.raises(UserError, match=r"agent sb3-td3 needs the extra: pip install 'amc-latency\[sb3\]'"):
        run_sb3("sb3-td3", toy_env(), 1, TARGET_MS)


@pytest.mark.usefixtures("library")
def test_an_unknown_agent_is_refused() -> None:
    with pytest.raises(UserError, match=r"no agent of Stable-Baselines3 is called 'sb3-a2c'.* Did you mean 'sb3-"):
        run_sb3("sb3-a2c", toy_env(), 1, TARGET_MS)


@pytest.fixture
def library() -> None:
    pytest.importorskip("stable_baselines3", reason="the extra sb3 is not installed")


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("name", [name for name in AGENTS if AGENTS[name].extra == "sb3"])
def test_a_resumed_search_goes_on_as_the_unbroken_one(name: str) -> None:
    def search(log: list[EpisodeRecord], episodes: int = 10) -> tuple[list[EpisodeRecord], list[Counts]]:
        evaluated: list[Counts] = []
        new: list[EpisodeRecord] = []
        records = run_sb3(name, toy_env(evaluated), episodes, TARGET_MS, log, [UNIFORM], new.append, seed=1, warmup=4)
        assert records[len(log) :] == new
        assert evaluated == [record.counts for record in new]
        return records, evaluated

    whole, evaluated = search([])
    random_ones = 0 if name == "sb3-ppo" else 4
    sources = ["start"] + ["warm-up"] * random_ones + ["learned"] * (9 - random_ones)
    assert [record.source for record in whole] == sources
    assert [record.episode for record in whole] == list(range(10))
    assert whole[0].counts == UNIFORM
    assert len(set(evaluated)) > 2
    for record in whole:
        assert record.predicted_ms == pytest.approx(sum(record.counts) / CHANNELS)
        assert record.predicted_ms <= TARGET_MS
        assert record.reward == pytest.approx(0.5 * record.counts[1] / CHANNELS - 1)
        assert record.actions == tuple(count / CHANNELS for count in record.counts)
    log = [exactly(json.loads(json.dumps(dataclasses.asdict(record))), EpisodeRecord) for record in whole[:7]]
    resumed, evaluated = search(log)
    assert resumed[:7] == log
    assert what_happened(resumed) == what_happened(whole)
    assert len(evaluated) == 3
    assert search(whole[:6], 5)[1] == []  # a longer log is read through


@pytest.mark.usefixtures("library")
def test_a_log_under_an_earlier_target_is_replayed_under_its_own() -> None:
    def search(log: list[EpisodeRecord], episodes: int, target_ms: float, start: Counts) -> list[EpisodeRecord]:
        return run_sb3("sb3-td3", toy_env(), episodes, target_ms, log, [start], seed=0, warmup=2)

    first = search([], 5, TARGET_MS, UNIFORM)
    tighter = (24,) * GROUPS
    whole = search(first, 9, 0.9, tighter)
    assert whole[:5] == first
    assert (whole[5].source, whole[5].counts) == ("start", tighter)
    assert [record.target_ms for record in whole] == [TARGET_MS] * 5 + [0.9] * 4
    assert all(record.predicted_ms <= record.limit_ms for record in whole)
    assert what_happened(search(whole[:7], 9, 0.9, tighter)) == what_happened(whole)


@pytest.mark.usefixtures("library")
def test_it_learns_what_a_given_policy_was_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    from stable_baselines3.common.buffers import ReplayBuffer

    added: list[tuple[float, float, bool]] = []
    add = ReplayBuffer.add

    def watched(self, obs, next_obs, action, reward, done, infos):  # type: ignore[no-untyped-def]
        added.append((action.item(), reward.item(), bool(done.item())))
        add(self, obs, next_obs, action, reward, done, infos)

    monkeypatch.setattr(ReplayBuffer, "add", watched)
    run_sb3("sb3-sac", toy_env(), 3, TARGET_MS, start_policies=[(16, 80, 24)], seed=0, warmup=5)
    # Keep ratios 0.2, 1, 0.3 in a box of 0.2..1 stretched to -1..1; the accuracy is 0.5.
    assert added[:3] == [(-1.0, 0.0, False), (1.0, 0.0, False), (pytest.approx(-0.75), -0.5, True)]
    # Then its own two episodes, the first of them whole and with one end.
    assert [done for *_, done in added[GROUPS : 2 * GROUPS]] == [False, False, True]


@pytest.mark.usefixtures("library")
def test_others_random_numbers_and_threads_are_left_alone() -> None:
    threads = torch.get_num_threads()
    seen: list[int] = []
    env = toy_env()
    score = env.evaluate
    env.evaluate = lambda counts, best: (seen.append(torch.get_num_threads()), score(counts, best))[1]
    before = random.getstate(), torch.get_rng_state()
    numpy_before = np.random.get_state()[1].copy()  # type: ignore[index]
    run_sb3("sb3-ddpg", env, 4, TARGET_MS, seed=3, warmup=1)
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # type: ignore[index]
    assert torch.get_num_threads() == threads
    assert seen == [threads] * 4


@pytest.mark.usefixtures("library")
def test_a_log_of_another_search_is_refused() -> None:
    log = run_sb3("sb3-ddpg", toy_env(), 2, TARGET_MS, seed=0)
    with pytest.raises(UserError, match=r"episode 0 of the log .* another config"):
        run_sb3("sb3-ddpg", toy_env(), 2, TARGET_MS, log, seed=1)
    with pytest.raises(UserError, match=r"episode 0 of the log .* which this network can't"):
        run_sb3("sb3-ddpg", toy_env(), 2, TARGET_MS, [dataclasses.replace(log[0], counts=(16, 16))], seed=0)


@pytest.mark.usefixtures("library")
def test_a_given_policy_over_the_target_is_refused_and_not_recorded() -> None:
    seen: list[EpisodeRecord] = []
    with pytest.raises(UserError, match=r"80,80,80 is over the target of 1\.5 ms"):
        run_sb3("sb3-ppo", toy_env(), 2, TARGET_MS, start_policies=[(CHANNELS,) * GROUPS], on_episode=seen.append)
    assert seen == []
    assert run_sb3("sb3-ppo", toy_env(), 0, TARGET_MS) == []
