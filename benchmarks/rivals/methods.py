"""The rivals by name: each gives a network for every setting of its own knob.

Ours and those of this project choose counts under a share of the predicted milliseconds, and are cut, refitted and
recalibrated alike. Others cut and repair as they do themselves (`others`), and are timed as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import numpy as np
from amc_latency.lut.building.plan import nearest_counts
from torch import nn

from amc_latency.errors import UserError
from amc_latency.search.config import SearchConfig
from amc_latency.search.costs.clamp import Clamp
from amc_latency.search.costs.costs import Counts
from amc_latency.search.episodes.problem import AgentOptions, Problem
from amc_latency.search.judge.judge import FINALISTS
from amc_latency.search.judge.rewards import make_reward
from amc_latency.search.solvers.baselines import uniform_policy
from amc_latency.search.steps.methods import choose, search_episodes
from benchmarks.rivals import others
from benchmarks.rivals.rows import OURS
from benchmarks.rivals.subject import Subject


@dataclass(frozen=True)
class Candidate:
    """A cut network, not yet fine-tuned."""

    model: nn.Module
    counts: Counts
    """one a coupled group where this project cut it, or else output channels of its layers"""
    evaluations: int = 0
    """policies that were judged for it"""


FILLING_STEPS = 12
Make = Callable[[float], Candidate]
"""From a knob in 0..1, of which 1 cuts nothing; UserError for one out of reach."""


@dataclass(frozen=True)
class Rival:
    """A way to cut a network."""

    make: Callable[[Subject, int], Make]
    """of a seed"""
    knob: str
    """what it is, for the table"""
    has_seed: bool = False
    """whether another seed cuts otherwise"""
    is_policy: bool = False
    """whether counts make the network again"""
    packages: tuple[str, ...] = ()
    """that must be installed"""

    @property
    def is_installed(self) -> bool:
        """Whether its packages are there."""
        return all(find_spec(package) is not None for package in self.packages)

    def check(self, name: str) -> None:
        """Raise UserError where its packages are missing."""
        if not self.is_installed:
            raise UserError(f"rival {name} needs packages that are not installed: {', '.join(self.packages)}")

    def again(self, subject: Subject, seed: int, knob: float, counts: Counts) -> nn.Module:
        """The network of a run before."""
        return subject.judge.network(counts) if self.is_policy else self.make(subject, seed)(knob).model


def problem_of(subject: Subject, seed: int, share: float, damage: str, reward: str) -> Problem:
    """What a method of this project is given for a share of the predicted milliseconds."""
    costs = subject.costs
    clamp = Clamp(costs, share * costs.full_ms)
    return Problem(clamp, subject.judge, make_reward(reward, costs), seed, SearchConfig(speedup=2).least_keep, damage)


def baseline(subject: Subject, seed: int, name: str, damage: str = SearchConfig.damage) -> Make:
    """One of the baselines of a search."""

    def make(knob: float) -> Candidate:
        found = choose(problem_of(subject, seed, knob, damage, "error"), name, subject.sizes.evaluations)
        return Candidate(subject.judge.network(found.counts), found.counts, found.evaluations)

    return make


def agent(subject: Subject, seed: int, name: str | None, warm: bool | None) -> Make:
    """An agent of a search; None: what a search takes unless told otherwise."""

    def make(knob: float) -> Candidate:
        evaluations = subject.sizes.evaluations
        config = SearchConfig(speedup=1 / knob, agent=name, warm_start=warm, seed=seed)
        problem = problem_of(subject, seed, knob, config.damage, config.reward)
        warmup = 0 if config.starts_warm else evaluations // 4
        options = AgentOptions(config.searcher, config.starts_warm, warmup, evaluations)
        first = [uniform_policy(subject.costs, problem.clamp.target_ms)] if config.starts_warm else []
        with subject.judge.counting() as asked:
            records = search_episodes(problem, options, first=first)
        best = subject.judge.choose(records, problem.clamp.target_ms, problem.reward)
        return Candidate(subject.judge.network(best.counts), best.counts, len(asked))

    return make


def random(subject: Subject, seed: int) -> Make:
    """The best of random policies that take all of the milliseconds."""

    def make(knob: float) -> Candidate:
        problem = problem_of(subject, seed, knob, SearchConfig.damage, "error")
        policies = list(dict.fromkeys(filled_policies(problem.clamp, subject.sizes.evaluations, seed)))
        # As a search ends: the ten that did best in an episode are judged by all held-back images.
        finalists = sorted(policies, key=lambda counts: -subject.judge(counts).accuracy)[:FINALISTS]
        best = max(finalists, key=lambda counts: subject.judge.final(counts).accuracy)
        return Candidate(subject.judge.network(best), best, len(policies))

    return make


def filled_policies(clamp: Clamp, n: int, seed: int) -> list[Counts]:
    """`n` random policies whose predicted milliseconds are as many as the clamp allows, or nearly.

    Keep ratios are drawn from each group's smallest to 1, and then all moved towards 1, or towards the smallest, until
    the limit is met. Ratios as they are drawn are a third of the uncut network's milliseconds, whatever the limit.
    """
    rng, costs = np.random.default_rng(seed), clamp.costs
    full = np.array(costs.full, dtype=float)
    lowest = np.array([choices[0] for choices in costs.choices]) / full
    policies = []
    for _ in range(n):
        drawn = rng.uniform(lowest, 1.0)
        found, low, high = tuple(choices[0] for choices in costs.choices), 0.0, 2.0
        for _ in range(FILLING_STEPS):
            way = (low + high) / 2
            moved = lowest + way * (drawn - lowest) if way <= 1 else drawn + (way - 1) * (1 - drawn)
            counts = nearest_counts(costs.choices, list(moved * full))
            if costs.ms(counts) <= clamp.target_ms:
                found, low = counts, way
            else:
                high = way
        policies.append(found)
    return policies


def torch_pruning(subject: Subject, seed: int, importance: str, round_to: int) -> Make:
    """Torch-Pruning; its knob is the share of channels that stay."""

    def make(knob: float) -> Candidate:
        model = others.torch_pruned(subject.network, importance, round_to, 1 - knob)
        return Candidate(model, others.widths(model))

    return make


def fastnas(subject: Subject, seed: int) -> Make:
    """ModelOpt's FastNAS; its knob is the share of FLOPs, and all but the first ask for no more scores."""
    evaluations = 0

    def make(knob: float) -> Candidate:
        nonlocal evaluations
        model, scored = others.fastnas(subject.judge, knob, subject.folder / "fastnas.pth")
        evaluations += scored
        return Candidate(model, others.widths(model), evaluations)

    return make


PREDICTED, CHANNELS, FLOPS = "share of the predicted ms", "share of channels kept", "share of FLOPs"
RIVALS = {
    "uniform": Rival(partial(baseline, name="uniform"), PREDICTED, is_policy=True),
    "random": Rival(random, PREDICTED, has_seed=True, is_policy=True),
    "netadapt": Rival(partial(baseline, name="netadapt"), PREDICTED, is_policy=True),
    "ddpg": Rival(partial(agent, name="ddpg", warm=False), PREDICTED, has_seed=True, is_policy=True),
    "dp": Rival(partial(agent, name="dp", warm=True), PREDICTED, has_seed=True, is_policy=True),
    "taylor": Rival(partial(baseline, name="dp", damage="taylor"), PREDICTED, is_policy=True),
    **{
        f"tp-{importance}-{round_to}": Rival(
            partial(torch_pruning, importance=importance, round_to=round_to), CHANNELS, packages=("torch_pruning",)
        )
        for importance in others.IMPORTANCES
        for round_to in (8, 16)
    },
    "fastnas": Rival(fastnas, FLOPS, packages=("modelopt", "torchprofile")),
    OURS: Rival(partial(agent, name=None, warm=None), PREDICTED, has_seed=True, is_policy=True),
}
"""In the order in which they are run, but that seeds go first. What ours has over `dp` is what learning adds."""
