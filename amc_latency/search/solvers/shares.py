"""Dynamic programming's policies at shares of a clamp's budget."""

from __future__ import annotations

from collections.abc import Sequence

from amc_latency.search.costs.clamp import Clamp
from amc_latency.search.costs.costs import Counts
from amc_latency.search.judge.damage import Damage
from amc_latency.search.solvers.dynamic import Solution, solve


def solutions(clamp: Clamp, damage: Damage, shares: Sequence[float]) -> list[Counts]:
    """Dynamic programming's policies at these shares of the clamp's first budget: the reachable ones, each once."""
    return list(dict.fromkeys(solution.counts for solution in solved_at(clamp, damage, shares)))


def solved_at(clamp: Clamp, damage: Damage, shares: Sequence[float]) -> list[Solution]:
    """The solutions at these shares of the clamp's first budget, those that can be reached."""
    limits = [int(share * clamp.guide_limit) for share in shares]
    reachable = [limit for limit in limits if limit >= clamp.guide_least]
    return [solve(clamp.guide, damage, limit, forbidden=clamp.forbidden) for limit in reachable]


def within_all(clamp: Clamp, counts: Counts) -> Counts:
    """The policy that the clamp makes of one: itself, unless it is over one of several budgets."""
    executed: Counts = ()
    for count, channels in zip(counts, clamp.costs.full, strict=True):
        executed = (*executed, clamp.nearest(executed, count / channels))
    return executed
