"""Running episodes, and running them again from the log: a search is resumed by replaying what it wrote."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from amc_latency.errors import UserError
from amc_latency.search.costs.costs import Counts
from amc_latency.search.episodes.agent import Agent
from amc_latency.search.episodes.env import ChannelEnv
from amc_latency.search.judge.record import NEIGHBOUR, START, EpisodeRecord
from amc_latency.search.judge.score import Score


def run_episodes(
    env: ChannelEnv,
    agent: Agent,
    episodes: int,
    target_ms: float,
    log: Sequence[EpisodeRecord] = (),
    start_policies: Sequence[Counts] = (),
    on_episode: Callable[[EpisodeRecord], None] = lambda record: None,
    neighbours: Sequence[Counts] = (),
) -> list[EpisodeRecord]:
    """Run until there are `episodes` in all, those of `log` included, and return every record in order.

    An episode that `log` holds is replayed: the agent acts and learns as it did, only the score is read
    instead of evaluated. So a log is the whole state of a search, and one that was killed goes on as if it
    had never stopped. The log may hold episodes under earlier targets; each is replayed under its own.
    Rewards by layer are not in the log: they are asked for again, of a judge that remembers its scores.

    `start_policies` are executed before anything else under `target_ms`, the agent learning from them as from
    its own: with the uniform policy there, a search starts from what a designer would do. `neighbours` come after them,
    and age no agent: it has explored nothing in them.

    `on_episode` sees each new record before the next episode starts.
    Raises `UserError` if a replayed episode differs from its record: the log belongs to another search.
    """
    records: list[EpisodeRecord] = []
    for record in log:
        _replay(env, agent, record, _age(records, record.limit_ms, agent.warmup))
        records.append(record)
    while len(records) < episodes:
        given, source = next_given(records, start_policies, target_ms), START
        if given is None:
            given, source = next_given(records, neighbours, target_ms, NEIGHBOUR), NEIGHBOUR
        age = _age(records, target_ms, agent.warmup)
        record = _episode(env, agent, len(records), age, target_ms, given, source=source)
        records.append(record)
        on_episode(record)
    return records


def _age(records: Sequence[EpisodeRecord], target_ms: float, warmup: int) -> int:
    """Episodes since exploration began: since the warm-up, or since the target became another. Negative in the warm-up.

    A new target asks for another policy, which an agent that no longer explores would not find. Neighbours don't count.
    """
    same = next((i for i, record in enumerate(reversed(records)) if record.limit_ms != target_ms), len(records))
    began = max(warmup, len(records) - same)
    return len(records) - began - sum(record.source == NEIGHBOUR for record in records[began:])


def check_possible(env: ChannelEnv, record: EpisodeRecord) -> None:
    """Raise `UserError` if this network can't have had such an episode."""
    groups = env.clamp.costs.groups
    if not len(record.counts) == len(record.actions) == groups or record.limit_ms < env.clamp.fastest_ms:
        raise UserError(
            f"{_foreign(record)} under {record.limit_ms:.6g} ms, which this network can't: {_ANOTHER_SEARCH}"
        )


def check_same(again: EpisodeRecord, record: EpisodeRecord) -> None:
    """Raise `UserError` if an episode that was replayed is not the recorded one."""
    same_ms = math.isclose(again.predicted_ms, record.predicted_ms, rel_tol=1e-9)
    if again.counts != record.counts or again.source != record.source or not same_ms:
        raise UserError(f"{_foreign(record)}, but replayed it keeps {_text(again)}: {_ANOTHER_SEARCH}")


def finished(
    episode: int,
    source: str,
    actions: Sequence[float],
    info: dict[str, Any],
    target_ms: float,
    seconds: float,
) -> EpisodeRecord:
    """The record of an episode whose last step gave `info`."""
    return EpisodeRecord(
        episode=episode,
        source=source,
        counts=info["counts"],
        actions=tuple(actions),
        reward=info["reward"],
        accuracy=info["score"].accuracy,
        loss=info["score"].loss,
        images=info["score"].images,
        predicted_ms=info["predicted_ms"],
        target_ms=target_ms if math.isfinite(target_ms) else None,
        seconds=seconds,
    )


def check_given(given: Counts, counts: Counts, target_ms: float) -> None:
    """Raise `UserError` if the clamp made other `counts` of a policy that was `given`."""
    if counts != tuple(given):
        raise UserError(f"the given policy {','.join(map(str, given))} is over the target of {target_ms:.6g} ms")


def next_given(
    records: Sequence[EpisodeRecord], policies: Sequence[Counts], target_ms: float, source: str = START
) -> Counts | None:
    """The first of `policies`, the given ones of a `source`, that was not executed under `target_ms` yet."""
    started = sum(record.source == source and record.limit_ms == target_ms for record in records)
    return policies[started] if started < len(policies) else None


def _replay(env: ChannelEnv, agent: Agent, record: EpisodeRecord, age: int) -> None:
    check_possible(env, record)
    given = record.counts if record.source in (START, NEIGHBOUR) else None
    again = _episode(env, agent, record.episode, age, record.limit_ms, given, record.score, record.source)
    check_same(again, record)


def _episode(
    env: ChannelEnv,
    agent: Agent,
    episode: int,
    age: int,
    target_ms: float,
    given: Counts | None = None,
    score: Score | None = None,
    source: str = START,
) -> EpisodeRecord:
    """One episode, `given` by a `source` or the agent's, evaluated unless its `score` is known; the agent learns."""
    started = time.perf_counter()
    state, info = env.reset(options={"target_ms": target_ms, "score": score})
    agent.begin(env.clamp)
    states = [state]
    actions: list[float] = []
    rewards: list[float] = []
    done = False
    while not done:
        if given is not None:
            group = len(actions)
            wanted = given[group] / env.clamp.costs.full[group]
        else:
            wanted = agent.act(state, age)
        state, reward, done, _, info = env.step(np.array([wanted]))
        states.append(state)
        actions.append(info["action"])
        rewards.append(reward)
    if given is not None:
        check_given(given, info["counts"], target_ms)
    agent.learn(states, actions, rewards, age)
    if given is None:
        source = "warm-up" if age < 0 else "learned"
    return finished(episode, source, actions, info, target_ms, time.perf_counter() - started)


_ANOTHER_SEARCH = "the log belongs to another config, table or version; start a new run folder"


def _foreign(record: EpisodeRecord) -> str:
    return f"episode {record.episode} of the log kept {_text(record)}"


def _text(record: EpisodeRecord) -> str:
    return f"{','.join(map(str, record.counts))} ({record.predicted_ms:.4f} ms)"
