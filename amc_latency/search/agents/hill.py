"""Hill climbing from the uniform width: trade channels between groups, and keep what isn't worse."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from amc_latency.errors import UserError
from amc_latency.search.costs.clamp import Clamp
from amc_latency.search.costs.costs import Counts
from amc_latency.search.episodes.problem import Session
from amc_latency.search.judge.record import EpisodeRecord
from amc_latency.search.solvers.baselines import uniform_policies

TRIES = 40
"""at a neighbour that wasn't seen"""


@dataclass(frozen=True)
class HillConfig:
    """How far away a neighbour is."""

    step: float = 0.3
    """furthest that a group is moved at first, as a share of its choices"""
    step_decay: float = 0.97
    """factor on that an episode; the next choice is always near enough"""
    moved: int = 2
    """groups moved at most, before others are widened or narrowed to make up for it"""

    def __post_init__(self) -> None:
        if not 0 < self.step <= 1 or not 0 < self.step_decay <= 1 or self.moved < 1:
            raise UserError(
                "hill climbing takes a step and a decay over 0 up to 1, and at least 1 group to move; got "
                f"{self.step}, {self.step_decay} and {self.moved}"
            )


def search(session: Session) -> list[EpisodeRecord]:
    """The episodes of a `HillClimber`. Raises what `run_episodes` raises."""
    return session.episodes(HillClimber(HillConfig(), session.problem.seed))


class HillClimber:
    """An `Agent` whose first episode is the widest uniform policy, and each later one a neighbour of the best so far.

    A neighbour has one group or two moved by a few choices, either way. What that frees is spent on one to three
    others, a choice each in turn, or what it costs is taken from them; then whoever can still be widened is, so that
    it ends near the target. Where the uncut network is within the budget there is nothing to make up for. A policy
    that was seen is not proposed again if another is found, if need be further away; one rewarded as well as the
    best takes its place. Under another target it goes on from the best that holds.

    Deterministic in (config, seed, history).
    """

    warmup = 0

    def __init__(self, config: HillConfig, seed: int) -> None:
        self.config = config
        self._rng = np.random.default_rng(seed)
        self._rewards: dict[Counts, float] = {}
        self._best: Counts | None = None
        self._clamp: Clamp | None = None
        self._episodes = 0
        self._ratios: list[float] = []

    def begin(self, clamp: Clamp) -> None:
        """Plan the episode."""
        if self._clamp is None or clamp.target_ms != self._clamp.target_ms:
            holding = [counts for counts in reversed(self._rewards) if clamp.holds(counts)]
            self._best = max(holding, key=self._rewards.__getitem__, default=None)
            self._episodes = 0
        self._clamp = clamp
        counts = _start(clamp) if self._best is None else self._neighbour(clamp, self._best)
        self._ratios = [count / channels for count, channels in zip(counts, clamp.costs.full, strict=True)]
        self._ratios.reverse()

    def act(self, state: np.ndarray, age: int) -> float:
        """The planned policy's next keep ratio."""
        return self._ratios.pop()

    def learn(self, states: list[np.ndarray], actions: list[float], rewards: list[float], age: int) -> None:
        """Take the executed policy, planned or given, if it is as good as the best."""
        assert self._clamp is not None, "an episode begins before it ends"
        counts = tuple(
            round(action * channels) for action, channels in zip(actions, self._clamp.costs.full, strict=True)
        )
        reward = sum(rewards)
        # Last among the seen, so that of equally good ones the latest is gone on from.
        self._rewards.pop(counts, None)
        self._rewards[counts] = reward
        self._episodes += 1
        if self._best is None or reward >= self._rewards[self._best]:
            self._best = counts

    def _neighbour(self, clamp: Clamp, best: Counts) -> Counts:
        for attempt in range(TRIES):
            counts = self._changed(clamp, best, further=attempt // 5)
            if counts not in self._rewards:
                break
        return counts

    def _changed(self, clamp: Clamp, best: Counts, further: int) -> Counts:
        """`best` with channels traded; `further` more groups moved, and by so many choices more, than is usual."""
        rng = self._rng
        counts = list(best)
        order = [int(group) for group in rng.permutation(len(counts))]
        n = int(rng.integers(1, self.config.moved + further + 1))
        moved, others = order[:n], order[n:]
        for group in moved:
            counts[group] = self._moved(clamp.costs.choices[group], best[group], further)
        if clamp.holds(clamp.costs.widest):
            return tuple(counts)
        partners = others[: rng.integers(1, 4)]
        if clamp.holds(counts):
            _in_turn(clamp, counts, partners, wider=True)
        else:
            _in_turn(clamp, counts, partners, wider=False)
            _in_turn(clamp, counts, order, wider=False)
        for group in [*others, *moved]:
            _in_turn(clamp, counts, [group], wider=True)
        return tuple(counts)

    def _moved(self, choices: Counts, count: int, further: int) -> int:
        """Another choice of a group, up to the present step away."""
        step = self.config.step * self.config.step_decay**self._episodes
        furthest = max(1, round(step * len(choices))) + further
        index = choices.index(count)
        low, high = max(0, index - furthest), min(len(choices) - 1, index + furthest)
        return choices[int(self._rng.choice([i for i in range(low, high + 1) if i != index] or [index]))]


def _start(clamp: Clamp) -> Counts:
    """The widest uniform policy that holds; where none does, the narrowest that the clamp lets pass."""
    holding = next((counts for counts in uniform_policies(clamp.costs) if clamp.holds(counts)), None)
    if holding is not None:
        return holding
    counts: Counts = ()
    while len(counts) < clamp.costs.groups:
        counts = (*counts, clamp.nearest(counts, 0.0))
    return counts


def _in_turn(clamp: Clamp, counts: list[int], groups: list[int], wider: bool) -> None:
    """Widen groups by a choice each in turn, as long as any can be; or narrow them so until the policy holds."""
    while groups:
        going = []
        for group in groups:
            if not wider and clamp.holds(counts):
                return
            if _step(clamp, counts, group, wider):
                going.append(group)
        groups = going


def _step(clamp: Clamp, counts: list[int], group: int, wider: bool) -> bool:
    """Give one group the next wider choice that holds, or the next narrower; False if there is none."""
    choices = clamp.costs.choices[group]
    if not wider:
        index = choices.index(counts[group])
        counts[group] = choices[max(index - 1, 0)]
        return index > 0
    for count in choices:
        if count > counts[group] and clamp.holds([*counts[:group], count, *counts[group + 1 :]]):
            counts[group] = count
            return True
    return False
