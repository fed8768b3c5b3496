"""Agents of Stable-Baselines3 on the same environment: an outside check of ours.

Stable-Baselines3 (Raffin et al., JMLR 22, 2021) owns its training loop, so here it runs the environment, and the
environment keeps the records that `run_episodes` would.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch

from amc_latency.arguments.names import find
from amc_latency.errors import UserError
from amc_latency.search.costs.costs import Counts
from amc_latency.search.episodes.env import ChannelEnv
from amc_latency.search.episodes.loop import check_given, check_possible, check_same, finished, next_given
from amc_latency.search.episodes.problem import Session
from amc_latency.search.judge.record import EpisodeRecord
from amc_latency.search.records import AGENTS

NOISE = 0.1
"""Sigma of DDPG's and TD3's noise on actions in -1..1 (arXiv 1802.09477, TD3); the library adds none."""
REPLAY = 100_000
"""Transitions kept: more than any search has. The library's default of a million costs memory for nothing."""
PPO_EPISODES = 8
"""Episodes of an update of PPO. The library's default, 2,048 steps, is a third of a search."""
PPO_BATCH_EPISODES = 2
"""Episodes' worth of steps in one of its minibatches."""


def search(session: Session) -> list[EpisodeRecord]:
    """The episodes of the library's agent. Raises what `run_sb3` raises."""
    return run_sb3(
        session.options.name,
        session.env,
        session.options.episodes,
        session.limit_ms,
        session.log,
        session.starts,
        session.on_episode,
        session.problem.seed,
        session.options.warmup,
    )


def run_sb3(
    name: str,
    env: ChannelEnv,
    episodes: int,
    target_ms: float,
    log: Sequence[EpisodeRecord] = (),
    start_policies: Sequence[Counts] = (),
    on_episode: Callable[[EpisodeRecord], None] = lambda record: None,
    seed: int = 0,
    warmup: int = 100,
) -> list[EpisodeRecord]:
    """As `run_episodes`, but the agent `name` of Stable-Baselines3 acts and learns, in the library's own loop.

    Its settings are the library's, but for what the constants above say and a discount of 1. It sees the environment
    as it is: actions in -1..1, a reward at the last step, and the keep ratios that it wanted in its replay buffer.
    `warmup` episodes are random, but not for one that knows no such thing, as `sb3-ppo`: its first policy is wide.

    `start_policies` run outside the library's loop. DDPG, TD3 and SAC find them in their replay buffer; PPO, which
    learns from its own episodes only, never sees them. A `log` is replayed through the whole loop, each episode
    under its own target; at a new target an agent goes on exploring as it did, where ours begin anew.

    Raises `UserError` for an unknown name, without the extra, and if a replayed episode differs from its record.
    """
    try:
        make = find(_makers(), name, "agent of Stable-Baselines3")
    except ImportError as error:
        raise UserError(f"agent {name} needs the extra: pip install 'amc-latency[sb3]'") from error
    wanted = max(episodes, len(log))
    if wanted == 0:
        return []
    random_episodes = warmup if AGENTS[name].warms_up else 0
    recorder = _Recorder(env, wanted, target_ms, log, start_policies, on_episode, random_episodes)
    groups = env.clamp.costs.groups
    with _own_randomness(), _threads(1):
        symmetric = gymnasium.wrappers.RescaleAction(recorder, np.float32(-1), np.float32(1))
        model = _model(make, symmetric, groups, random_episodes, seed)
        recorder.replay_buffer = getattr(model, "replay_buffer", None)
        # Enough for all, were none of them given; the callback ends it at the episode wanted.
        model.learn(wanted * groups, callback=lambda *_: len(recorder.records) < wanted)
    return recorder.records


@dataclass(frozen=True)
class _Setting:
    """What a model is made with."""

    common: dict[str, Any]
    groups: int
    replay: dict[str, Any]
    """beside what is common, for those with a replay buffer"""
    noise: Any


def _makers() -> dict[str, Callable[[_Setting], Any]]:
    """How each agent's model is made. Raises `ImportError` without the library."""
    from stable_baselines3 import DDPG, PPO, SAC, TD3

    def ppo(of: _Setting) -> Any:
        return PPO(**of.common, n_steps=PPO_EPISODES * of.groups, batch_size=PPO_BATCH_EPISODES * of.groups)

    return {
        "sb3-ddpg": lambda of: DDPG(**of.common, **of.replay, action_noise=of.noise),
        "sb3-td3": lambda of: TD3(**of.common, **of.replay, action_noise=of.noise),
        "sb3-sac": lambda of: SAC(**of.common, **of.replay),
        "sb3-ppo": ppo,
    }


def _model(make: Callable[[_Setting], Any], env: gymnasium.Env, groups: int, warmup: int, seed: int) -> Any:
    from stable_baselines3.common.logger import Logger
    from stable_baselines3.common.noise import NormalActionNoise

    common: dict[str, Any] = {"policy": "MlpPolicy", "env": env, "gamma": 1.0, "seed": seed, "device": "cpu"}
    replay = {"learning_starts": warmup * groups, "buffer_size": REPLAY}
    model = make(_Setting(common, groups, replay, NormalActionNoise(np.zeros(1), np.full(1, NOISE))))
    # Its own logger would make a folder among the temporary files.
    model.set_logger(Logger(folder=None, output_formats=[]))
    return model


class _Recorder(gymnasium.Wrapper):
    """Keeps a record of every episode, runs the given policies between them, and answers those of a log from it."""

    env: ChannelEnv

    def __init__(
        self,
        env: ChannelEnv,
        episodes: int,
        target_ms: float,
        log: Sequence[EpisodeRecord],
        start_policies: Sequence[Counts],
        on_episode: Callable[[EpisodeRecord], None],
        random_episodes: int,
    ) -> None:
        super().__init__(env)
        self.records: list[EpisodeRecord] = []
        self.replay_buffer: Any = None
        self._episodes = episodes
        self._target_ms = target_ms
        self._log = log
        self._start_policies = start_policies
        self._on_episode = on_episode
        self._random_episodes = random_episodes
        self._threads = torch.get_num_threads()
        self._actions: list[float] = []
        self._source = ""
        self._expected: Counts | None = None
        self._began = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Begin an episode of the agent's, after all that are given before it."""
        while (given := self._given()) is not None:
            self._run(given)
        own = sum(record.source != "start" for record in self.records)
        return self._begin("warm-up" if own < self._random_episodes else "learned")

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """The environment's step, with as many threads as the search has; the last one makes the record."""
        with _threads(self._threads):
            state, reward, done, truncated, info = self.env.step(action)
        self._actions.append(info["action"])
        if done:
            self._finish(info)
        return state, reward, done, truncated, info

    def _replayed(self) -> EpisodeRecord | None:
        return self._log[len(self.records)] if len(self.records) < len(self._log) else None

    def _given(self) -> Counts | None:
        if record := self._replayed():
            return record.counts if record.source == "start" else None
        if len(self.records) == self._episodes:
            return None
        return next_given(self.records, self._start_policies, self._target_ms)

    def _limit_ms(self) -> float:
        record = self._replayed()
        return record.limit_ms if record else self._target_ms

    def _begin(self, source: str, given: Counts | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        record = self._replayed()
        if record:
            check_possible(self.env, record)
        self._actions, self._source, self._expected, self._began = [], source, given, time.perf_counter()
        score = record.score if record else None
        return self.env.reset(options={"target_ms": self._limit_ms(), "score": score})

    def _finish(self, info: dict[str, Any]) -> None:
        if self._expected is not None:
            check_given(self._expected, info["counts"], self._limit_ms())
        seconds = time.perf_counter() - self._began
        again = finished(len(self.records), self._source, self._actions, info, self._limit_ms(), seconds)
        record = self._replayed()
        if record:
            check_same(again, record)
        self.records.append(record or again)
        if not record:
            self._on_episode(again)

    def _run(self, given: Counts) -> None:
        """Execute a policy that was given; the agent may learn from it, where it can learn from others' episodes."""
        state, _ = self._begin("start", given)
        low, high = (float(end[0]) for end in (self.action_space.low, self.action_space.high))  # type: ignore[attr-defined]
        for count, channels in zip(given, self.env.clamp.costs.full, strict=True):
            ratio = count / channels
            next_state, reward, done, _, _ = self.step(np.array([ratio]))
            if self.replay_buffer is not None:
                action = np.array([[2 * (ratio - low) / (high - low) - 1]], dtype=np.float32)
                self.replay_buffer.add(state, next_state, action, np.array([reward]), np.array([done]), [{}])
            state = next_state


@contextmanager
def _own_randomness() -> Iterator[None]:
    """The library draws from Python's, NumPy's and torch's global generators: leave them as they were."""
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
