"""What a search is measured against without learning: uniform, shallow and deep widths, and random policies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from amc_latency.errors import UserError
from amc_latency.lut.building.plan import nearest_counts
from amc_latency.search.costs.clamp import Budget, Clamp, rounded_up
from amc_latency.search.costs.costs import Counts, LatencyCosts, PolicyCosts
from amc_latency.search.episodes.problem import Choice, Problem, Session
from amc_latency.search.judge.record import EpisodeRecord


def uniform_policy(costs: LatencyCosts, target_ms: float, budgets: Sequence[Budget] = ()) -> Counts:
    """The widest uniform keep ratio, rounded to choices, that is predicted at or under `target_ms` and holds `budgets`.

    Every distinct rounding is looked at, so it is the widest also where a wider network is faster.
    Raises `UserError` naming the fastest uniform width if none is fast enough.
    """
    return _widest(costs, target_ms, budgets, uniform_policies(costs), "uniform width")


def shallow_policy(costs: LatencyCosts, target_ms: float, budgets: Sequence[Budget] = ()) -> Counts:
    """As `uniform_policy`, but the early groups are cut hardest: `shallow_policies`."""
    return _widest(costs, target_ms, budgets, shallow_policies(costs), "policy that cuts the shallow layers hardest")


def deep_policy(costs: LatencyCosts, target_ms: float, budgets: Sequence[Budget] = ()) -> Counts:
    """As `uniform_policy`, but the late groups are cut hardest: `deep_policies`."""
    return _widest(costs, target_ms, budgets, deep_policies(costs), "policy that cuts the deep layers hardest")


def choose_uniform(problem: Problem, name: str, evaluations: int) -> Choice:
    """`uniform_policy` as a baseline."""
    return _chosen(uniform_policy, problem)


def choose_shallow(problem: Problem, name: str, evaluations: int) -> Choice:
    """`shallow_policy` as a baseline."""
    return _chosen(shallow_policy, problem)


def choose_deep(problem: Problem, name: str, evaluations: int) -> Choice:
    """`deep_policy` as a baseline."""
    return _chosen(deep_policy, problem)


def uniform_policies(costs: PolicyCosts) -> list[Counts]:
    """Every policy that rounding one keep ratio to each group's nearest choice can give, widest first.

    Where layers have precisions, each has the least bits that it can have.
    """
    return _policies_along(costs, [1.0] * costs.groups)


def shallow_policies(costs: PolicyCosts) -> list[Counts]:
    """Every rounding of a cut that falls linearly from the first group to nothing behind the last, widest first.

    AMC (arXiv 1802.03494) compares itself with hand-made policies that cut shallow or deep layers aggressively, but
    doesn't give their ratios. The ramp is ours: it has one parameter, and grown far enough it brings every group to
    its smallest count, so that it reaches what a uniform width reaches.
    """
    return _policies_along(costs, [1 - group / costs.groups for group in range(costs.groups)])


def deep_policies(costs: PolicyCosts) -> list[Counts]:
    """Every rounding of a cut that grows linearly from nothing before the first group to the last, widest first."""
    return _policies_along(costs, [(group + 1) / costs.groups for group in range(costs.groups)])


def random_policies(clamp: Clamp, n: int, seed: int) -> list[Counts]:
    """`n` policies under the target: keep ratios uniform from a group's smallest to its largest, clamped in order."""
    rng = np.random.default_rng(seed)
    policies = []
    for _ in range(n):
        counts: Counts = ()
        for ratio in _random_ratios(clamp.costs, rng):
            counts = (*counts, clamp.nearest(counts, ratio))
        policies.append(counts)
    return policies


def search(session: Session) -> list[EpisodeRecord]:
    """The episodes of a `RandomAgent`. Raises what `run_episodes` raises."""
    return session.episodes(RandomAgent(session.problem.seed))


class RandomAgent:
    """An `Agent` that learns nothing: its episodes are the `random_policies` of its seed."""

    warmup = 0

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._ratios: Iterator[float] = iter(())

    def begin(self, clamp: Clamp) -> None:
        """Draw the episode's keep ratios."""
        self._ratios = iter(_random_ratios(clamp.costs, self._rng))

    def act(self, state: np.ndarray, age: int) -> float:
        """The next of them."""
        return next(self._ratios)

    def learn(self, states: list[np.ndarray], actions: list[float], rewards: list[float], age: int) -> None:
        """Nothing."""


def _chosen(policy: Callable[[LatencyCosts, float, Sequence[Budget]], Counts], problem: Problem) -> Choice:
    clamp = problem.clamp
    return Choice(policy(clamp.costs, clamp.target_ms, clamp.budgets), 0)


def _random_ratios(costs: PolicyCosts, rng: np.random.Generator) -> list[float]:
    lowest, highest = (
        [choices[end] / channels for choices, channels in zip(costs.choices, costs.full, strict=True)]
        for end in (0, -1)
    )
    return [float(ratio) for ratio in rng.uniform(lowest, highest)]


def _policies_along(costs: PolicyCosts, weights: Sequence[float]) -> list[Counts]:
    """Every policy that rounding the keep ratios `1 - cut * weight` can give while the cut grows from 0."""
    widths = set(costs.architecture.widths)
    choices = [own if group in widths else own[:1] for group, own in enumerate(costs.choices)]
    # A count changes where its ratio passes the middle between two choices: look once between all of these.
    passed = {
        (1 - (low + high) / 2 / channels) / weight
        for own, channels, weight in zip(choices, costs.full, weights, strict=True)
        for low, high in pairwise(own)
    }
    places = [0.0, *sorted(passed)]
    cuts = [0.0, *((small + large) / 2 for small, large in pairwise(places)), places[-1] + 1.0]
    wanted = (
        [(1 - cut * weight) * channels for weight, channels in zip(weights, costs.full, strict=True)] for cut in cuts
    )
    return list(dict.fromkeys(nearest_counts(choices, counts) for counts in wanted))


def _widest(
    costs: LatencyCosts, target_ms: float, budgets: Sequence[Budget], policies: Sequence[Counts], what: str
) -> Counts:
    for counts in policies:
        if costs.ms(counts) <= target_ms and all(budget.holds(counts) for budget in budgets):
            return counts
    if budgets:
        raise UserError(f"no {what} holds all budgets")
    fastest = min(map(costs.ms, policies))
    raise UserError(f"no {what} reaches {target_ms:.6g} ms; the fastest is predicted at {rounded_up(fastest):.6g} ms")
