"""A warm start: dynamic programming's policies, executed first, and an actor that begins as they would go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from amc_latency.search.costs.clamp import Clamp
from amc_latency.search.costs.costs import Counts
from amc_latency.search.episodes.env import ChannelEnv
from amc_latency.search.episodes.problem import Session
from amc_latency.search.judge.damage import Damage
from amc_latency.search.judge.score import Score
from amc_latency.search.solvers.dynamic import Solution
from amc_latency.search.solvers.shares import solutions, solved_at, within_all

START_SHARES = (1.0, 0.97, 0.94)
"""Shares of the target whose solutions are executed: at and a little under it."""
NOISE = 0.1
"""Sigma of a warm-started agent's first noise: it looks around dynamic programming's policies, not everywhere."""
ACTOR_FROM = 10
"""Episodes in which only the critic learns: an untrained one would pull a cloned actor away at once."""
CLONE_SHARES = (0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25)
"""Shares of the target whose solutions the actor is fitted to, so that it knows more than one path."""


T = TypeVar("T", bound="Cloner")


class Cloner(Protocol):
    """An agent whose actor can be fitted to others' actions."""

    def clone(self, states: np.ndarray, actions: np.ndarray) -> None:
        """Fit it to keep ratios [n] chosen in `states` [n, features]."""
        ...


@dataclass(frozen=True)
class WarmStart:
    """What dynamic programming says before an agent begins."""

    damages: list[Damage]
    """its proxies, the better one first"""
    best: Solution
    """by the better one, at the whole budget"""
    policies: list[Counts]
    """what is executed first: for each proxy the policies at `START_SHARES`, within all budgets"""


def warm_start(clamp: Clamp, damages: Sequence[Damage]) -> WarmStart:
    """Solve for each of `damages`, of which there is one at least."""
    solved = [solved_at(clamp, damage, START_SHARES) for damage in damages]
    policies = dict.fromkeys(within_all(clamp, solution.counts) for each in solved for solution in each)
    return WarmStart(list(damages), solved[0][0], list(policies))


def clone(agent: Cloner, clamp: Clamp, damages: Sequence[Damage], state: str = "amc") -> None:
    """Fit the agent's actor to dynamic programming's policies at `CLONE_SHARES`, each as its target's episode."""
    states, actions = [], []
    for damage in damages:
        for counts in solutions(clamp, damage, CLONE_SHARES):
            seen, taken = _episode(clamp, counts, state)
            states += seen
            actions += taken
    agent.clone(np.array(states), np.array(actions))


def cloned(agent: T, session: Session) -> T:
    """The agent, which in a warm start begins as dynamic programming's policies would go on."""
    if session.options.warm_start:
        problem = session.problem
        clone(agent, problem.origin or problem.clamp, session.damages, session.options.state)
    return agent


def _episode(clamp: Clamp, counts: Counts, features: str) -> tuple[list[np.ndarray], list[float]]:
    """States and keep ratios of a policy's episode, which nobody judges and nothing clamps."""
    unbounded = Clamp(clamp.costs, np.inf)
    env = ChannelEnv(unbounded, _unjudged, guide=clamp.guide, state=features)
    state, _ = env.reset()
    states, actions = [], []
    for count, channels in zip(counts, clamp.costs.full, strict=True):
        states.append(state)
        actions.append(count / channels)
        state, *_ = env.step(np.array([actions[-1]]))
    return states, actions


def _unjudged(counts: Counts, best: float) -> Score:
    return Score(0.0, 0.0, 0)
