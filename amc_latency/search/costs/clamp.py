"""Which channel counts a target still allows: those with a completion that is fast enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from amc_latency.errors import UserError
from amc_latency.search.costs.costs import PS_PER_MS, LatencyCosts, LayerCosts

MAX_TABLE_ENTRIES = 20_000_000
"""Largest table that elimination may make: 160 MB of int64."""

Factor = tuple[tuple[int, ...], np.ndarray]


@dataclass(frozen=True)
class Budget:
    """What a policy may cost beside milliseconds: MACs, parameters or bytes."""

    name: str
    """as a message has it: `MACs`"""
    costs: LayerCosts
    limit: int

    def holds(self, counts: Sequence[int]) -> bool:
        """Whether a policy is within it."""
        return self.costs.of(counts) <= self.limit


class OutOfReachError(UserError):
    """A budget that no policy meets."""

    def __init__(self, message: str, costs: LayerCosts, cheapest: Sequence[int]) -> None:
        super().__init__(message)
        self.costs = costs
        """what is limited"""
        self.cheapest = cheapest
        """the policy that takes the least, as indices of its choices"""


class Clamp:
    """The counts of group t, given those of groups 0..t-1, that can still end at or under every budget.

    AMC bounds the next action by dividing what is left of its budget and rounds afterwards, so its released
    code overshoots. Here the least total of every choice is looked up: variable elimination from the last
    group back gives the exact minimum over all completions, however uneven the costs are. An allowed count
    always leaves an allowed one for the next group, so a finished policy is never over a budget in prediction.

    With `budgets` beside `target_ms` (infinite: no limit on milliseconds) a count is allowed if one of the
    cheapest completions, by each budget alone or by all in equal shares, holds them all: what is allowed can
    always be finished, and little that could be finished is missed.
    Raises `UserError` for budgets that no policy reaches, and if elimination needs too large a table.
    """

    def __init__(
        self,
        costs: LatencyCosts,
        target_ms: float,
        budgets: Sequence[Budget] = (),
        eliminations: Sequence[Elimination] = (),
    ) -> None:
        if math.isnan(target_ms):
            raise UserError("the target must be a number of milliseconds")
        self.costs = costs
        self.target_ms = target_ms
        self.budgets = tuple(budgets)
        self._all = [Elimination(each) for each in (costs, *(budget.costs for budget in budgets))]
        if eliminations:
            self._all = list(eliminations)
        self._ratios = [np.array(counts) / channels for counts, channels in zip(costs.choices, costs.full, strict=True)]
        self.fastest_ms = self._all[0].least_total() / PS_PER_MS
        """Predicted ms of the fastest policy there is."""
        self._check_reachable()
        self._witnesses = self._all if not self.budgets else [*self._all, self._joint()]
        if self.budgets and not self._finishable(()):
            raise UserError(
                f"{self.text()} can each be reached, but no policy was found that holds them together: "
                f"{self._way_out()}"
            )

    @property
    def guide(self) -> LayerCosts:
        """The costs that an agent is shown: milliseconds, or what is limited in their place."""
        return self.costs if math.isfinite(self.target_ms) or not self.budgets else self.budgets[0].costs

    @property
    def guide_limit(self) -> int:
        """The first budget, in units of `guide`; where there is none, what the widest policy takes."""
        if self.guide is not self.costs:
            return self.budgets[0].limit
        if not math.isfinite(self.target_ms):
            return self.costs.of(self.costs.widest)
        # The most picoseconds whose milliseconds, a rounded quotient, are still at or under the target.
        units = math.floor(self.target_ms * PS_PER_MS) + 1
        while units / PS_PER_MS > self.target_ms:
            units -= 1
        return units

    @property
    def guide_least(self) -> int:
        """The least of `guide` that any policy takes."""
        return self._all[0 if self.guide is self.costs else 1].least_total()

    def with_target(self, target_ms: float) -> Clamp:
        """The same costs and other budgets under another target; what was precomputed is shared."""
        return Clamp(self.costs, target_ms, self.budgets, self._all)

    def holds(self, counts: Sequence[int]) -> bool:
        """Whether a whole policy is of the choices there are, and at or under every budget."""
        if not self.costs.has(counts):
            return False
        return self.costs.ms(counts) <= self.target_ms and all(budget.holds(counts) for budget in self.budgets)

    def least_ms(self, prefix: Sequence[int]) -> np.ndarray:
        """For each choice of the group after `prefix` (counts): the least predicted ms of a completion."""
        return self._all[0].least(self.costs.indices(prefix)) / PS_PER_MS

    def allowed(self, prefix: Sequence[int]) -> np.ndarray:
        """Which choices of the group after `prefix` (counts) can still end at or under every budget."""
        possible = self.least_ms(prefix) <= self.target_ms
        if not self.budgets:
            return possible
        indices = self.costs.indices(prefix)
        return np.array([bool(ok) and self._finishable((*indices, i)) for i, ok in enumerate(possible)])

    def nearest(self, prefix: Sequence[int], ratio: float) -> int:
        """The allowed count whose keep ratio is nearest to `ratio`; the wider one of two equally near.

        Raises `UserError` for a prefix that was over a budget already.
        """
        group = len(prefix)
        possible = np.flatnonzero(self.least_ms(prefix) <= self.target_ms)
        # Rounded, so that two neighbours as far from the ratio as each other are a tie in floating point too.
        distance = np.round(np.abs(self._ratios[group][possible] - ratio), 12)
        indices = self.costs.indices(prefix) if self.budgets else ()
        for choice in possible[np.lexsort((-possible, distance))]:
            if not self.budgets or self._finishable((*indices, int(choice))):
                return self.costs.choices[group][choice]
        raise UserError(f"no count of group {group} keeps {tuple(prefix)} within {self.text()}")

    def text(self) -> str:
        """The budgets in words."""
        parts = [f"{self.target_ms:.6g} ms"] if math.isfinite(self.target_ms) else []
        parts += [f"{budget.limit:,} {budget.name}" for budget in self.budgets]
        return " and ".join(parts) or "no budget"

    def _holds_indices(self, indices: Sequence[int]) -> bool:
        if self.costs.total(indices) / PS_PER_MS > self.target_ms:
            return False
        return all(budget.costs.total(indices) <= budget.limit for budget in self.budgets)

    def _finishable(self, indices: tuple[int, ...]) -> bool:
        return any(self._holds_indices(witness.completed(indices)) for witness in self._witnesses)

    def _check_reachable(self) -> None:
        if self.fastest_ms > self.target_ms:
            raise OutOfReachError(
                f"a target of {self.target_ms:.6g} ms is out of reach: the fastest network that can be cut from "
                f"this one is predicted at {rounded_up(self.fastest_ms):.6g} ms; raise the target to that or more",
                self.costs,
                self._all[0].completed(()),
            )
        for budget, elimination in zip(self.budgets, self._all[1:], strict=True):
            least = elimination.least_total()
            if least > budget.limit:
                raise OutOfReachError(
                    f"a budget of {budget.limit:,} {budget.name} is out of reach: the least that this network can be "
                    f"cut to is {least:,}; raise the budget to that or more",
                    budget.costs,
                    elimination.completed(()),
                )

    def _joint(self) -> Elimination:
        """Completions that spend the least of all budgets in equal shares."""
        limits = [self.target_ms * PS_PER_MS, *(budget.limit for budget in self.budgets)]
        each = [self.costs, *(budget.costs for budget in self.budgets)]
        shares = [(costs.layers, 1e12 / limit) for costs, limit in zip(each, limits, strict=True)]
        layers = []
        for i, (scope, table) in enumerate(self.costs.layers):
            total = np.zeros(table.shape)
            for terms, share in shares:
                total += terms[i][1] * share
            layers.append((scope, np.round(total).astype(np.int64)))
        return Elimination(self.costs, layers)

    def _way_out(self) -> str:
        """Which budget to raise, and to what: the least of it that was found within all others."""
        spent = [[self.costs.total(end), *(b.costs.total(end) for b in self.budgets)] for end in self._ends()]
        limits = [self.target_ms * PS_PER_MS, *(budget.limit for budget in self.budgets)]
        texts = [lambda ps: f"{rounded_up(ps / PS_PER_MS):.6g} ms", *(_texts(budget.name) for budget in self.budgets)]
        ways = []
        for which, text in enumerate(texts):
            within = [
                total[which]
                for total in spent
                if all(total[i] <= limit for i, limit in enumerate(limits) if i != which)
            ]
            if within and math.isfinite(limits[which]):
                ways.append(f"{text(min(within))} within the rest")
        return f"what was found is {' or '.join(ways)}; raise one" if ways else "raise more than one"

    def _ends(self) -> list[tuple[int, ...]]:
        return [witness.completed(()) for witness in self._witnesses]


def _texts(name: str) -> Callable[[float], str]:
    return lambda units: f"{units:,} {name}"


class Elimination:
    """The least that any completion of a prefix costs: variable elimination from the last group back."""

    def __init__(self, costs: LayerCosts, layers: Sequence[Factor] | None = None) -> None:
        self.costs = costs
        self._alive = _factors_alive(costs, costs.layers if layers is None else layers)

    def least(self, indices: Sequence[int]) -> np.ndarray:
        """For each choice of the group after the prefix `indices`: the least total of a completion."""
        group = len(indices)
        total = np.full(len(self.costs.choices[group]), self.costs.offset, dtype=np.int64)
        for scope, table in self._alive[group]:
            # A scope is ascending, so the group itself, where it appears, is the last axis that is left.
            total += table[tuple(indices[g] for g in scope if g < group)]
        return total

    def least_total(self) -> int:
        """The least total of all policies."""
        return int(self.least(()).min()) if self.costs.groups else self.costs.total(())

    def completed(self, indices: Sequence[int]) -> tuple[int, ...]:
        """A cheapest completion; that of a longer prefix of it is itself."""
        while len(indices) < self.costs.groups:
            indices = (*indices, int(self.least(indices).argmin()))
        return tuple(indices)


def _factors_alive(costs: LayerCosts, layers: Sequence[Factor]) -> list[list[Factor]]:
    """For each group t, the factors left when all groups after t are eliminated: scopes within 0..t."""
    factors: dict[tuple[int, ...], np.ndarray] = {}
    for scope, table in layers:
        factors[scope] = factors.get(scope, np.int64(0)) + table
    alive: list[list[Factor]] = []
    for group in reversed(range(costs.groups)):
        alive.append(list(factors.items()))
        touched = [(scope, factors.pop(scope)) for scope in list(factors) if group in scope]
        scope, table = _joined(touched, costs)
        message = table.min(axis=-1) if group in scope else table
        factors[scope[:-1]] = factors.get(scope[:-1], np.int64(0)) + message
    return alive[::-1]


def _joined(factors: list[Factor], costs: LayerCosts) -> Factor:
    """The sum of factors over the union of their scopes, axes ascending by group."""
    scope = tuple(sorted({group for part, _ in factors for group in part}))
    shape = [len(costs.choices[group]) for group in scope]
    if math.prod(shape) > MAX_TABLE_ENTRIES:
        raise UserError(
            f"groups {', '.join(map(str, scope))} depend on each other: {math.prod(shape):,} combinations "
            f"are more than the {MAX_TABLE_ENTRIES:,} that fit; give fewer choices a group (a larger step)"
        )
    total = np.zeros(shape, dtype=np.int64)
    for part, table in factors:
        total += table.reshape([len(costs.choices[group]) if group in part else 1 for group in scope])
    return scope, total


def rounded_up(ms: float) -> float:
    """`ms` in the six digits that a message shows, rounded up, so that what it names is really reachable."""
    digits = 5 - math.floor(math.log10(ms)) if ms > 0 else 6
    return math.ceil(ms * 10**digits) / 10**digits
