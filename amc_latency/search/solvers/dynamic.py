"""Exact dynamic programming: of all policies within a budget, the one of least summed damage.

Damage is a number for each choice of each coupled group (`damage.py`) and adds up; costs are exact integers over
one or two groups a layer (`costs.py`). Groups are decided in network order. All that the later ones need of the
earlier ones are the choices of those that still share a layer with them, the open groups: one in a chain, two or
three across a strided residual block. So partial policies with the same open choices compete, as labels of cost
and damage, and a label goes when another is no worse in both, or when a bound shows that nothing better than the
best policy known comes of it. The bounds are Lagrangian: the least of damage + multiplier * cost over all
completions is a table, made once from the last group back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from amc_latency.errors import UserError
from amc_latency.search.costs.clamp import FORBIDDEN, MAX_TABLE_ENTRIES, Forbidden, is_forbidden, rounded_up
from amc_latency.search.costs.costs import PS_PER_MS, Counts, LatencyCosts, PolicyCosts, Scope

MAX_LABELS = 100_000
"""Partial policies kept a group; where that is too few, the solution says by how much it may be off."""
_STARTING_LABELS = 1_000
_MULTIPLIERS = (0.6, 0.8, 1.25, 1.6)
"""Bounds beside the best multiplier's, as factors on it: each is sharper for labels of another cost."""
_GATHERED = 2_000_000
"""Table entries looked at in one go."""
_TOLERANCE = 1e-12
"""Share of the sums that rounding may change: policies that differ by less are equally good."""


@dataclass(frozen=True)
class Solution:
    """A policy within the budget, and the least damage that any can have."""

    counts: Counts
    damage: float
    """summed over the groups"""
    bound: float
    """no policy within the budget has less damage"""
    optimal: bool

    @property
    def gap(self) -> float:
        """How much less damage there might be; 0 if optimal."""
        return self.damage - self.bound


def solve(
    costs: PolicyCosts,
    damage: Sequence[np.ndarray],
    target_units: int,
    max_labels: int = MAX_LABELS,
    forbidden: Sequence[Forbidden] = (),
) -> Solution:
    """The counts of least summed `damage` with `costs.of(counts) <= target_units` and nothing `forbidden`.

    `costs` are a sum over layers. What each layer must hold alone is `forbidden`, as `Clamp.forbidden` has it.
    `damage[g]` has a number for each of `costs.choices[g]`, of any sign, rising or not; `inf` forbids a choice.
    Exact to a 1e-12 share, unless more than `max_labels` partial policies must be kept: then `gap` says how far
    the solution may be off. Raises `UserError` for a budget that no policy meets and for coupled groups whose
    tables are too large, `ValueError` for damage that doesn't fit the choices.
    """
    allowed = _allowed(costs, damage)
    steps = _steps(costs, damage, allowed, forbidden)
    constant = costs.offset + sum(int(table) for scope, table in costs.layers if not scope)
    budget = target_units - constant

    cheapest = _Bound(steps, 1, with_damage=False)
    best = _best(steps, cheapest)
    if best.cost > budget or is_forbidden(cheapest.rest[0][0]):
        raise UserError(_out_of_reach(costs, target_units, best.cost + constant))
    best, multiplier, bound = _dual(steps, best, budget)
    tolerance = _TOLERANCE * (1 + len(steps)) * _scale(steps, multiplier * budget)
    bounds = [_Bound(steps, multiplier * factor) for factor in (1.0, *_MULTIPLIERS)] if multiplier else []
    limit = min(_STARTING_LABELS, max_labels)
    while best.damage - bound > tolerance:
        best, missed = _forward(steps, cheapest, bounds, budget, best, limit, tolerance)
        bound = max(bound, min(best.damage, missed))
        if limit == max_labels:
            break
        limit = min(limit * 10, max_labels)
    optimal = best.damage - bound <= tolerance
    counts = tuple(
        choices[kept[index]] for choices, kept, index in zip(costs.choices, allowed, best.indices, strict=True)
    )
    return Solution(counts, best.damage, best.damage if optimal else bound, optimal)


@dataclass(frozen=True)
class _Step:
    """Deciding one group. A row is a combination of the open groups' choices, a column a choice of this one."""

    cost: np.ndarray
    """int64 [rows, choices]: what the layers cost that are settled by this choice"""
    damage: np.ndarray
    """float64 [choices]"""
    next_row: np.ndarray
    """[rows, choices]: the row of the next step that this leads to"""
    forbidden: np.ndarray | None
    """bool [rows, choices]: what no policy may have; None where nothing is"""


@dataclass(frozen=True)
class _Policy:
    indices: tuple[int, ...]
    cost: int
    damage: float


class _Bound:
    """The least of damage + multiplier * cost, or of cost alone, over all ways to go on from a row and a column."""

    def __init__(self, steps: Sequence[_Step], multiplier: float, with_damage: bool = True) -> None:
        self.multiplier = multiplier
        self.choosing: list[np.ndarray] = []
        """a step's: [rows, choices], that choice and all later ones"""
        after = np.zeros(1, dtype=float if with_damage else np.int64)
        self.rest = [after]
        """before a step, and after the last: [rows], all that is still to come"""
        for step in reversed(steps):
            choosing = step.cost * multiplier + after[step.next_row]
            if with_damage:
                choosing += step.damage
            if step.forbidden is not None:
                choosing[step.forbidden] = np.inf if with_damage else FORBIDDEN
            if not with_damage:
                np.minimum(choosing, FORBIDDEN, out=choosing)
            after = choosing.min(axis=1)
            self.choosing.append(choosing)
            self.rest.append(after)
        self.choosing.reverse()
        self.rest.reverse()


def _allowed(costs: PolicyCosts, damage: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Each group's choices, by index, that damage doesn't forbid."""
    if [np.shape(values) for values in damage] != [(len(choices),) for choices in costs.choices]:
        raise ValueError("damage must have one number for each choice of each group")
    if any(np.isnan(values).any() or np.isneginf(values).any() for values in damage):
        raise ValueError("damage must be numbers, or inf for what is forbidden")
    allowed = [np.flatnonzero(np.isfinite(values)) for values in damage]
    if not all(len(kept) for kept in allowed):
        raise ValueError("a group has no choice whose damage is finite")
    return allowed


def _steps(
    costs: PolicyCosts,
    damage: Sequence[np.ndarray],
    allowed: Sequence[np.ndarray],
    forbidden: Sequence[Forbidden] = (),
) -> list[_Step]:
    scopes = [scope for scope, _ in (*costs.layers, *forbidden) if scope]
    open_groups: tuple[int, ...] = ()
    steps = []
    for group in range(costs.groups):
        scope = (*open_groups, group)
        shape = [len(allowed[g]) for g in scope]
        if math.prod(shape) > MAX_TABLE_ENTRIES:
            raise UserError(
                f"groups {', '.join(map(str, scope))} depend on each other: {math.prod(shape):,} combinations are "
                f"more than the {MAX_TABLE_ENTRIES:,} that fit; give fewer choices a group (a larger step)"
            )

        def spread(part: Scope, table: np.ndarray, scope: Scope = scope) -> np.ndarray:
            sizes = [len(allowed[g]) if g in part else 1 for g in scope]
            return table[np.ix_(*(allowed[g] for g in part))].reshape(sizes)

        cost = np.zeros(shape, dtype=np.int64)
        for part, table in costs.layers:
            if part and part[-1] == group:
                cost += spread(part, table)
        ruled_out = np.zeros(shape, dtype=bool)
        for part, mask in forbidden:
            if part[-1] == group:
                ruled_out |= spread(part, mask)
        open_groups = tuple(g for g in scope if any(g in part and part[-1] > group for part in scopes))
        sizes = [len(allowed[g]) if g in open_groups else 1 for g in scope]
        next_row = np.broadcast_to(np.arange(math.prod(sizes)).reshape(sizes), shape)
        columns = shape[-1]
        steps.append(
            _Step(
                cost.reshape(-1, columns),
                np.asarray(damage[group], dtype=float)[allowed[group]],
                next_row.reshape(-1, columns),
                ruled_out.reshape(-1, columns) if ruled_out.any() else None,
            )
        )
    return steps


def _best(steps: Sequence[_Step], bound: _Bound) -> _Policy:
    """The policy that `bound` is about."""
    row, indices, cost, damage = 0, [], 0, 0.0
    for step, choosing in zip(steps, bound.choosing, strict=True):
        index = int(choosing[row].argmin())
        indices.append(index)
        cost += int(step.cost[row, index])
        damage += float(step.damage[index])
        row = int(step.next_row[row, index])
    return _Policy(tuple(indices), cost, damage)


def _dual(steps: Sequence[_Step], cheapest: _Policy, budget: int) -> tuple[_Policy, float, float]:
    """A good policy within the budget, the multiplier with the highest bound, and that bound.

    In the plane of cost and damage the policies that multipliers find are the lower convex hull: the edge above
    the budget is found from any two hull points on either side, by trying the slope between them.
    """
    within, over = cheapest, _best(steps, _Bound(steps, 0.0))
    if over.cost <= budget:
        return over, 0.0, over.damage
    multiplier = 0.0
    while within.damage > over.damage:
        multiplier = (within.damage - over.damage) / (over.cost - within.cost)
        bound = _Bound(steps, multiplier)
        found = _best(steps, bound)
        edge = within.damage + multiplier * within.cost
        gained = edge - (found.damage + multiplier * found.cost)
        if gained <= _TOLERANCE * _scale(steps, edge) or found in (within, over):
            break
        if found.cost <= budget:
            within = found
        else:
            over = found
    else:
        return within, 0.0, over.damage
    return within, multiplier, min(within.damage, float(bound.rest[0][0]) - multiplier * budget)


def _forward(
    steps: Sequence[_Step],
    cheapest: _Bound,
    bounds: Sequence[_Bound],
    budget: int,
    best: _Policy,
    limit: int,
    tolerance: float,
) -> tuple[_Policy, float]:
    """The best policy that `limit` labels a group lead to, and the least damage that dropped ones might have had."""
    wanted = best.damage - tolerance
    rows, cost, damage = np.zeros(1, dtype=np.intp), np.zeros(1, dtype=np.int64), np.zeros(1)
    missed = math.inf
    history = []
    for t, step in enumerate(steps):
        parents, choices = _promising(bounds[0], t, rows, damage, cost, wanted + bounds[0].multiplier * budget)
        from_rows = rows[parents]
        cost = cost[parents] + step.cost[from_rows, choices]
        damage = damage[parents] + step.damage[choices]
        rows = step.next_row[from_rows, choices]
        least = np.full(len(rows), -np.inf)
        for bound in bounds:
            np.maximum(least, damage + bound.rest[t + 1][rows] + bound.multiplier * (cost - budget), out=least)
        kept = np.flatnonzero((least < wanted) & (cost + cheapest.rest[t + 1][rows] <= budget))
        kept = kept[_undominated(rows[kept], cost[kept], damage[kept])]
        if len(kept) > limit:
            order = np.argpartition(least[kept], limit)
            missed = min(missed, float(least[kept[order[limit]]]))
            kept = kept[order[:limit]]
        history.append((parents[kept], choices[kept]))
        rows, cost, damage = rows[kept], cost[kept], damage[kept]
    if not len(rows):
        return best, missed
    label, indices = int(damage.argmin()), []
    found_cost, found_damage = int(cost[label]), float(damage[label])
    for parents, choices in reversed(history):
        indices.append(int(choices[label]))
        label = int(parents[label])
    return _Policy(tuple(reversed(indices)), found_cost, found_damage), missed


def _promising(
    bound: _Bound, t: int, rows: np.ndarray, damage: np.ndarray, cost: np.ndarray, most: float
) -> tuple[np.ndarray, np.ndarray]:
    """Which labels may go on with which choices of group `t`: pairs, as two index arrays."""
    choosing = bound.choosing[t]
    slack = most - damage - bound.multiplier * cost
    size = max(1, _GATHERED // choosing.shape[1])
    found = []
    for start in range(0, len(rows), size):
        labels, choices = np.nonzero(choosing[rows[start : start + size]] < slack[start : start + size, None])
        found.append((labels + start, choices))
    if not found:
        return np.zeros(0, dtype=np.intp), np.zeros(0, dtype=np.intp)
    return np.concatenate([labels for labels, _ in found]), np.concatenate([choices for _, choices in found])


def _undominated(rows: np.ndarray, cost: np.ndarray, damage: np.ndarray) -> np.ndarray:
    """The labels, by index, that no other of their row equals or betters in cost and in damage."""
    if not len(rows):
        return np.zeros(0, dtype=np.intp)
    order = np.lexsort((damage, cost, rows))
    rank = np.empty(len(rows), dtype=np.int64)
    rank[np.argsort(damage[order], kind="stable")] = np.arange(len(rows))
    # Every row's ranks lie below those of the rows before it, so one running minimum serves all.
    section = np.cumsum(np.diff(rows[order], prepend=rows[order[0]]) != 0)
    rank -= section * len(rows)
    least = np.minimum.accumulate(rank)
    is_first = np.ones(len(rows), dtype=bool)
    is_first[1:] = least[1:] < least[:-1]
    return order[is_first]


def _scale(steps: Sequence[_Step], weighed_cost: float) -> float:
    return abs(weighed_cost) + sum(float(np.abs(step.damage).max()) for step in steps)


def _out_of_reach(costs: PolicyCosts, target_units: int, least_units: int) -> str:
    if isinstance(costs, LatencyCosts):
        return (
            f"a target of {target_units / PS_PER_MS:.6g} ms is out of reach: the fastest network that can be cut "
            f"from this one is predicted at {rounded_up(least_units / PS_PER_MS):.6g} ms; raise the target to that or "
            "more"
        )
    return (
        f"a budget of {target_units:,} is out of reach: the least that a network cut from this one costs is "
        f"{least_units:,}; raise the budget to that or more"
    )
