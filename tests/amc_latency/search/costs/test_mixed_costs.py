"""Widths and precisions chosen together: costs, clamp and dynamic programming against every policy, edge by edge."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from amc_latency.lut.shapes.mixed import MixedArchitecture
from amc_latency.lut.shapes.shape import LayerShape
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from amc_latency.search.costs.clamp import Clamp
from amc_latency.search.costs.costs import PS_PER_MS, LatencyCosts
from amc_latency.search.judge.score import Score
from amc_latency.search.solvers.dynamic import solve
from amc_latency.search.solvers.iterated import iterated
from tests.lut.random_mixed import expected_texts, random_mixed

COUNTS = (1, 4, 6)


def picoseconds(text: str, seed: int) -> int:
    return random.Random(f"{seed} {text}").choice([0, 1, 7, 10**6, 10**9])


def costs_of(mixed: MixedArchitecture, seed: int, offset_ms: float = 0.0) -> LatencyCosts:
    def ms(shape: LayerShape) -> float:
        return picoseconds(shape.text, seed) / PS_PER_MS

    choices = mixed.choices([COUNTS] * len(mixed.architecture.group_channels))
    return LatencyCosts(mixed, choices, ms, offset_ms)


def every_policy(costs: LatencyCosts, mixed: MixedArchitecture, seed: int) -> dict[tuple[int, ...], int]:
    """What each costs, by its layers and the boundaries between them."""
    found = {}
    for values in itertools.product(*costs.choices):
        texts = expected_texts(mixed.architecture, mixed.counts(values), mixed.precisions(values))
        found[values] = costs.offset + sum(picoseconds(text, seed) for text in texts)
    return found


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.booleans(), st.floats(0, 1))
def test_nothing_within_the_target_has_less_damage(seed: int, layers: int, ties: bool, tightness: float) -> None:
    mixed = random_mixed(seed, layers, ties)
    costs = costs_of(mixed, seed, offset_ms=1.0)
    assume(0 < math.prod(map(len, costs.choices)) < 2000)
    known = every_policy(costs, mixed, seed)
    assert dict(zip(known, costs.of_many(list(known)).tolist(), strict=True)) == known
    assert all(costs.of(values) == units for values, units in itertools.islice(known.items(), 0, None, 50))
    rng = np.random.default_rng(seed)
    damage = [rng.exponential(size=len(each)) for each in costs.choices]

    def lost(values: tuple[int, ...]) -> float:
        indices = costs.indices(values)
        return math.fsum(each[i] for each, i in zip(damage, indices, strict=True))

    totals = sorted(known.values())
    target = totals[round(tightness * (len(totals) - 1))]
    within = [values for values, units in known.items() if units <= target]
    solution = solve(costs, damage, target)
    assert solution.optimal
    assert solution.counts in within
    assert solution.damage == pytest.approx(min(map(lost, within)), rel=1e-9)
    clamp = Clamp(costs, target / PS_PER_MS)
    assert clamp.fastest_ms == totals[0] / PS_PER_MS
    for length in range(len(costs.choices)):
        prefix = within[len(within) // 2][:length]
        finishable = {values[length] for values in within if values[:length] == prefix}
        assert [c for c, ok in zip(costs.choices[length], clamp.allowed(prefix), strict=True) if ok] == sorted(
            finishable
        )


def test_rounds_around_an_incumbent_find_what_adds_up() -> None:
    """Where loss is a sum over variables, one round of `iterated` from the fastest policy is exact."""
    mixed = random_mixed(11, 5)
    costs = costs_of(mixed, 11)
    rng = np.random.default_rng(0)
    damage = [np.sort(rng.exponential(size=len(each)))[::-1] for each in costs.choices]

    def evaluate(values: tuple[int, ...]) -> Score:
        loss = sum(float(each[i]) for each, i in zip(damage, costs.indices(values), strict=True))
        return Score(0.0, loss, 1)

    totals = {values: costs.of(values) for values in itertools.product(*costs.choices)}
    target = sorted(totals.values())[len(totals) // 3]
    found = iterated(costs, evaluate, target, min(totals, key=lambda values: totals[values]), 3, points=3, reach=1.0)
    best = min((evaluate(values).loss for values, units in totals.items() if units <= target))
    assert costs.of(found) <= target
    assert evaluate(found).loss == pytest.approx(best)
