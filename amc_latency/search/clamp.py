"""Which channel counts a target still allows: those with a completion that is fast enough."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from amc_latency.errors import UserError
from amc_latency.search.costs import PS_PER_MS, LatencyCosts

MAX_TABLE_ENTRIES = 20_000_000
"""Largest table that elimination may make: 160 MB of int64."""

Factor = tuple[tuple[int, ...], np.ndarray]


class Clamp:
    """The counts of group t, given those of groups 0..t-1, that can still end at or under `target_ms`.

    AMC bounds the next action by dividing what is left of its budget and rounds afterwards, so its released
    code overshoots. Here the least total of every choice is looked up: variable elimination from the last
    group back gives the exact minimum over all completions, however uneven the costs are. An allowed count
    always leaves an allowed one for the next group, so a finished policy is never over the target in
    prediction.
    Raises `UserError` for a target that no policy reaches, and if elimination needs too large a table.
    """

    def __init__(self, costs: LatencyCosts, target_ms: float, alive: list[list[Factor]] | None = None) -> None:
        if math.isnan(target_ms):
            raise UserError("the target must be a number of milliseconds")
        self.costs = costs
        self.target_ms = target_ms
        self._alive = _factors_alive(costs) if alive is None else alive
        self._ratios = [np.array(counts) / channels for counts, channels in zip(costs.choices, costs.full, strict=True)]
        least = int(self._least_ps(()).min()) if costs.groups else costs.total_ps(())
        self.fastest_ms = least / PS_PER_MS
        """Predicted ms of the fastest policy there is."""
        if self.fastest_ms > target_ms:
            raise UserError(
                f"a target of {target_ms:.6g} ms is out of reach: the fastest network that can be cut from "
                f"this one is predicted at {up(self.fastest_ms):.6g} ms; raise the target to that or more"
            )

    def with_target(self, target_ms: float) -> Clamp:
        """The same costs under another target; what was precomputed is shared."""
        return Clamp(self.costs, target_ms, self._alive)

    def least_ms(self, prefix: Sequence[int]) -> np.ndarray:
        """For each choice of the group after `prefix` (counts): the least predicted ms of a completion."""
        return self._least_ps(self.costs.indices(prefix)) / PS_PER_MS

    def allowed(self, prefix: Sequence[int]) -> np.ndarray:
        """Which choices of the group after `prefix` (counts) can still end at or under the target."""
        return self.least_ms(prefix) <= self.target_ms

    def nearest(self, prefix: Sequence[int], ratio: float) -> int:
        """The allowed count whose keep ratio is nearest to `ratio`; the wider one of two equally near.

        Raises `UserError` for a prefix that was over the target already.
        """
        group = len(prefix)
        distance = np.where(self.allowed(prefix), np.abs(self._ratios[group] - ratio), np.inf)
        if not np.isfinite(distance).any():
            raise UserError(f"no count of group {group} keeps {tuple(prefix)} under {self.target_ms:.6g} ms")
        # Rounded, so that two neighbours as far from the ratio as each other are a tie in floating point too.
        last = np.argmin(np.round(distance, 12)[::-1])
        return self.costs.choices[group][len(distance) - 1 - last]

    def _least_ps(self, indices: Sequence[int]) -> np.ndarray:
        group = len(indices)
        total = np.full(len(self.costs.choices[group]), self.costs.offset_ps, dtype=np.int64)
        for scope, table in self._alive[group]:
            # A scope is ascending, so the group itself, where it appears, is the last axis that is left.
            total += table[tuple(indices[g] for g in scope if g < group)]
        return total


def _factors_alive(costs: LatencyCosts) -> list[list[Factor]]:
    """For each group t, the factors left when all groups after t are eliminated: scopes within 0..t."""
    factors: dict[tuple[int, ...], np.ndarray] = {}
    for scope, table in costs.layers:
        factors[scope] = factors.get(scope, np.int64(0)) + table
    alive: list[list[Factor]] = []
    for group in reversed(range(costs.groups)):
        alive.append(list(factors.items()))
        touched = [(scope, factors.pop(scope)) for scope in list(factors) if group in scope]
        scope, table = _joined(touched, costs)
        message = table.min(axis=-1) if group in scope else table
        factors[scope[:-1]] = factors.get(scope[:-1], np.int64(0)) + message
    return alive[::-1]


def _joined(factors: list[Factor], costs: LatencyCosts) -> Factor:
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


def up(ms: float) -> float:
    """`ms` in the six digits that a message shows, rounded up, so that what it names is really reachable."""
    digits = 5 - math.floor(math.log10(ms)) if ms > 0 else 6
    return math.ceil(ms * 10**digits) / 10**digits
