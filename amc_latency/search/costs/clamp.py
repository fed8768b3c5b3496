"""Which channel counts a target still allows: those with a completion that is fast enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from amc_latency.errors import UserError
from amc_latency.search.costs.costs import PS_PER_MS, SUM, LatencyCosts, PolicyCosts, Scope

MAX_TABLE_ENTRIES = 20_000_000
"""Largest table that elimination may make: 160 MB of int64."""

FORBIDDEN = 2**61
"""Units of what a limit on single layers rules out: more than any sum of costs, and twice that is an int64 still."""

Factor = tuple[tuple[int, ...], np.ndarray]
Forbidden = tuple[Scope, np.ndarray]
"""Coupled groups, ascending, and which combinations of their choices no policy may have: bool, an axis a group."""


@dataclass(frozen=True)
class Budget:
    """What a policy may cost beside milliseconds: MACs, parameters, bytes of a file or of memory."""

    name: str
    """as a message has it: `MACs`"""
    costs: PolicyCosts
    limit: int

    def holds(self, counts: Sequence[int]) -> bool:
        """Whether a policy is within it."""
        return self.costs.of(counts) <= self.limit

    @property
    def text(self) -> str:
        """As a message has it."""
        return f"{self.limit:,} {self.name}"

    @property
    def is_sum(self) -> bool:
        """Whether layers share it; if not, each must hold it alone."""
        return self.costs.combine is SUM

    @cached_property
    def forbidden(self) -> tuple[Forbidden, ...]:
        """Where each layer must hold it alone: the choices with which some layer doesn't."""
        if self.is_sum:
            return ()
        over = [(scope, table > self.limit) for scope, table in self.costs.layers]
        return tuple((scope, mask) for scope, mask in over if scope and mask.any())


class OutOfReachError(UserError):
    """A budget that no policy meets."""

    def __init__(self, message: str, costs: PolicyCosts, cheapest: Sequence[int]) -> None:
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
    A budget whose layers don't add up, as memory, takes part in another way: combinations of counts with which a layer
    is over it are forbidden in every elimination. So milliseconds, or one other sum, are exact under it too.
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
        self.forbidden = tuple(each for budget in budgets for each in budget.forbidden)
        """What limits on single layers rule out."""
        each_costs = (costs, *(budget.costs for budget in budgets))
        self._all = list(eliminations) or [
            Elimination(each, forbidden=self.forbidden if each.combine is SUM else ()) for each in each_costs
        ]
        self._sums = [budget for budget in self.budgets if budget.is_sum]
        self._ratios = [np.array(counts) / channels for counts, channels in zip(costs.choices, costs.full, strict=True)]
        self.fastest_ms = self._all[0].least_total() / PS_PER_MS
        """Predicted ms of the fastest policy there is, of those that hold the limits on single layers."""
        self._check_reachable()
        self._witnesses = [each for each in self._all if each.costs.combine is SUM]
        if self._sums:
            self._witnesses.append(self._joint())
        if self._sums and not self._finishable(()):
            raise UserError(
                f"{self.text()} can each be reached, but no policy was found that holds them together: "
                f"{self._way_out()}"
            )

    @property
    def guide(self) -> PolicyCosts:
        """The costs that an agent is shown: milliseconds, or the sum that is limited in their place."""
        return self.costs if math.isfinite(self.target_ms) or not self._sums else self._sums[0].costs

    @property
    def guide_limit(self) -> int:
        """The first budget, in units of `guide`; where there is none, what the widest policy takes.

        Under a limit on single layers alone it is what no policy exceeds: the widest need not be the slowest.
        """
        if self.guide is not self.costs:
            return self._sums[0].limit
        if not math.isfinite(self.target_ms) and self.budgets:
            return self.costs.offset + sum(int(table.max()) for _, table in self.costs.layers)
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
        return next(each for each in self._all if each.costs is self.guide).least_total()

    def with_target(self, target_ms: float) -> Clamp:
        """The same costs and other budgets under another target; what was precomputed is shared."""
        return Clamp(self.costs, target_ms, self.budgets, self._all)

    def holds(self, counts: Sequence[int]) -> bool:
        """Whether a whole policy is of the choices there are, and at or under every budget."""
        if not self.costs.has(counts):
            return False
        return self.costs.ms(counts) <= self.target_ms and all(budget.holds(counts) for budget in self.budgets)

    def least_ms(self, prefix: Sequence[int]) -> np.ndarray:
        """For each choice of the group after `prefix` (counts): the least predicted ms of a completion.

        Infinite where none holds the limits on single layers.
        """
        least = self._all[0].least(self.costs.indices(prefix))
        return np.where(is_forbidden(least), np.inf, least / PS_PER_MS)

    def allowed(self, prefix: Sequence[int]) -> np.ndarray:
        """Which choices of the group after `prefix` (counts) can still end at or under every budget."""
        possible = self._possible(prefix)
        if not self._sums:
            return possible
        indices = self.costs.indices(prefix)
        return np.array([bool(ok) and self._finishable((*indices, i)) for i, ok in enumerate(possible)])

    def nearest(self, prefix: Sequence[int], ratio: float) -> int:
        """The allowed count whose keep ratio is nearest to `ratio`; the wider one of two equally near.

        Raises `UserError` for a prefix that was over a budget already.
        """
        group = len(prefix)
        possible = np.flatnonzero(self._possible(prefix))
        # Rounded, so that two neighbours as far from the ratio as each other are a tie in floating point too.
        distance = np.round(np.abs(self._ratios[group][possible] - ratio), 12)
        indices = self.costs.indices(prefix) if self._sums else ()
        for choice in possible[np.lexsort((-possible, distance))]:
            if not self._sums or self._finishable((*indices, int(choice))):
                return self.costs.choices[group][choice]
        raise UserError(f"no count of group {group} keeps {tuple(prefix)} within {self.text()}")

    def text(self) -> str:
        """The budgets in words."""
        parts = [f"{self.target_ms:.6g} ms"] if math.isfinite(self.target_ms) else []
        parts += [budget.text for budget in self.budgets]
        return " and ".join(parts) or "no budget"

    def _possible(self, prefix: Sequence[int]) -> np.ndarray:
        """Which choices of the next group have a completion that holds milliseconds and the limits on single layers."""
        least = self._all[0].least(self.costs.indices(prefix))
        return (least / PS_PER_MS <= self.target_ms) & ~is_forbidden(least)

    def _holds_indices(self, indices: Sequence[int]) -> bool:
        if self.costs.total(indices) / PS_PER_MS > self.target_ms:
            return False
        return all(budget.costs.total(indices) <= budget.limit for budget in self.budgets)

    def _finishable(self, indices: tuple[int, ...]) -> bool:
        return any(self._holds_indices(witness.completed(indices)) for witness in self._witnesses)

    def _check_reachable(self) -> None:
        eliminations = list(zip(self.budgets, self._all[1:], strict=True))
        for budget, elimination in eliminations:
            if not budget.is_sum:
                self._check_least(budget, elimination)
        if is_forbidden(self._all[0].least_total()):
            names = " and ".join(budget.text for budget in self.budgets if not budget.is_sum)
            raise UserError(f"{names} can each be reached, but no policy holds them together: raise one")
        if self.fastest_ms > self.target_ms:
            raise OutOfReachError(
                f"a target of {self.target_ms:.6g} ms is out of reach: the fastest network that can be cut from "
                f"this one{self._within()} is predicted at {rounded_up(self.fastest_ms):.6g} ms; raise the target to "
                "that or more",
                self.costs,
                self._all[0].completed(()),
            )
        for budget, elimination in eliminations:
            self._check_least(budget, elimination)

    def _check_least(self, budget: Budget, elimination: Elimination) -> None:
        least = elimination.least_total()
        if least > budget.limit:
            raise OutOfReachError(
                f"a budget of {budget.text} is out of reach: the least that this network can be "
                f"cut to{self._within(budget)} is {least:,}; raise the budget to that or more",
                budget.costs,
                elimination.completed(()),
            )

    def _within(self, but: Budget | None = None) -> str:
        """The limits on single layers in words, which the least of a sum is held to as well."""
        others = [each for each in self.budgets if not each.is_sum and each is not but]
        return f" within {' and '.join(each.text for each in others)}" if others else ""

    def _joint(self) -> Elimination:
        """Completions that spend the least of all budgets in equal shares."""
        limits = [self.target_ms * PS_PER_MS, *(budget.limit for budget in self._sums)]
        each = [self.costs, *(budget.costs for budget in self._sums)]
        shares = [(costs.layers, 1e12 / limit) for costs, limit in zip(each, limits, strict=True)]
        layers = []
        for i, (scope, table) in enumerate(self.costs.layers):
            total = np.zeros(table.shape)
            for terms, share in shares:
                total += terms[i][1] * share
            layers.append((scope, np.round(total).astype(np.int64)))
        return Elimination(self.costs, layers, self.forbidden)

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
    """The least that any completion of a prefix costs: variable elimination from the last group back.

    Of completions that have nothing `forbidden`; where there are none it `is_forbidden`.
    """

    def __init__(
        self, costs: PolicyCosts, layers: Sequence[Factor] | None = None, forbidden: Sequence[Forbidden] = ()
    ) -> None:
        self.costs = costs
        own = costs.layers if layers is None else layers
        self._combine = _capped if forbidden else costs.combine.arrays
        ruled_out = [(scope, np.where(mask, FORBIDDEN, 0)) for scope, mask in forbidden]
        self._alive = _factors_alive(costs, [*own, *ruled_out], self._combine)

    def least(self, indices: Sequence[int]) -> np.ndarray:
        """For each choice of the group after the prefix `indices`: the least total of a completion."""
        group = len(indices)
        total = np.full(len(self.costs.choices[group]), self.costs.offset, dtype=np.int64)
        for scope, table in self._alive[group]:
            # A scope is ascending, so the group itself, where it appears, is the last axis that is left.
            total = self._combine(total, table[tuple(indices[g] for g in scope if g < group)])
        return total

    def least_total(self) -> int:
        """The least total of all policies."""
        return int(self.least(()).min()) if self.costs.groups else self.costs.total(())

    def completed(self, indices: Sequence[int]) -> tuple[int, ...]:
        """A cheapest completion; that of a longer prefix of it is itself."""
        while len(indices) < self.costs.groups:
            indices = (*indices, int(self.least(indices).argmin()))
        return tuple(indices)


def is_forbidden(units: np.ndarray | int) -> np.ndarray:
    """Whether a least cost is that of something forbidden."""
    # Half of it, since a negative offset may have been added.
    return np.asarray(units) > FORBIDDEN // 2


def _capped(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.minimum(left + right, FORBIDDEN)


_Combined = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _factors_alive(costs: PolicyCosts, layers: Sequence[Factor], combine: _Combined) -> list[list[Factor]]:
    """For each group t, the factors left when all groups after t are eliminated: scopes within 0..t."""
    factors: dict[tuple[int, ...], np.ndarray] = {}
    for scope, table in layers:
        factors[scope] = combine(factors.get(scope, np.zeros((), np.int64)), table)
    alive: list[list[Factor]] = []
    for group in reversed(range(costs.groups)):
        alive.append(list(factors.items()))
        touched = [(scope, factors.pop(scope)) for scope in list(factors) if group in scope]
        scope, table = _joined(touched, costs, combine)
        message = table.min(axis=-1) if group in scope else table
        factors[scope[:-1]] = combine(factors.get(scope[:-1], np.zeros((), np.int64)), message)
    return alive[::-1]


def _joined(factors: list[Factor], costs: PolicyCosts, combine: _Combined) -> Factor:
    """Factors combined over the union of their scopes, axes ascending by group."""
    scope = tuple(sorted({group for part, _ in factors for group in part}))
    shape = [len(costs.choices[group]) for group in scope]
    if math.prod(shape) > MAX_TABLE_ENTRIES:
        raise UserError(
            f"groups {', '.join(map(str, scope))} depend on each other: {math.prod(shape):,} combinations "
            f"are more than the {MAX_TABLE_ENTRIES:,} that fit; give fewer choices a group (a larger step)"
        )
    total = np.zeros(shape, dtype=np.int64)
    for part, table in factors:
        sizes = [len(costs.choices[group]) if group in part else 1 for group in scope]
        total = combine(total, table.reshape(sizes))
    return scope, total


def rounded_up(ms: float) -> float:
    """`ms` in the six digits that a message shows, rounded up, so that what it names is really reachable."""
    digits = 5 - math.floor(math.log10(ms)) if ms > 0 else 6
    return math.ceil(ms * 10**digits) / 10**digits
