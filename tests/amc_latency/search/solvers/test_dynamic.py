"""Dynamic programming against brute force, on chains and residual networks, and on the real table."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from amc_latency.lut.prediction.predict import Predictor
from amc_latency.lut.shapes.architecture import Architecture, Layer
from amc_latency.lut.shapes.shape import LayerShape
from amc_latency.lut.table.table import LatencyTable
from hypothesis import given, settings
from hypothesis import strategies as st

from amc_latency.errors import UserError
from amc_latency.measuring.profiling import Grid
from amc_latency.models.load import NetworkOptions, load_network
from amc_latency.search.costs.costs import LatencyCosts, LayerCosts, predicted_costs
from amc_latency.search.solvers import dynamic
from amc_latency.search.solvers.baselines import uniform_policy
from amc_latency.search.solvers.dynamic import solve

CHAIN = ((None, 0), (0, 0), (0, 1), (1, 1), (1, 2), (2, None))
LOOSE = ((None, 0), (0, None), (None, 1), (1, None), (None, None))
HUB = ((None, 0), (0, 1), (1, 0), (0, 2), (2, 0), (0, 3), (3, 0), (0, None))
STRIDED = ((None, 0), (0, 1), (1, 0), (0, 0), (0, 2), (2, 3), (0, 3), (3, 4), (4, 3), (3, None))
"""A residual block on group 0, then one with a projection to group 3: 0, 2 and 3 are a triangle."""
BACKWARDS = ((None, 3), (3, 1), (1, 2), (2, 0), (0, 3), (2, None))
"""Groups whose numbers are not in the order of execution, in a ring."""
Links = tuple[tuple[int | None, int | None], ...]
CHOICES = (1, 2, 5, 8)
Problem = tuple[LayerCosts, list[np.ndarray]]


def network(links: Links) -> Architecture:
    layers = []
    for height, (c_in, c_out) in enumerate(links, start=1):
        kind = "depthwise" if c_in == c_out is not None else "conv"
        sizes = (3 if c_in is None else CHOICES[-1], 10 if c_out is None else CHOICES[-1])
        layers.append(Layer(LayerShape(kind, *sizes, h=height, w=1), c_in, c_out))
    groups = 1 + max(group for link in links for group in link if group is not None)
    return Architecture(tuple(layers), (CHOICES[-1],) * groups)


def problem(links: Links, seed: int, largest_cost: int, damage: str) -> Problem:
    rng = np.random.default_rng(seed)
    architecture = network(links)
    groups = len(architecture.group_channels)
    costs = LayerCosts(architecture, [CHOICES] * groups, lambda _: int(rng.integers(largest_cost + 1)), offset=7)
    sizes = (groups, len(CHOICES))
    drawn = {
        "ties": rng.integers(0, 3, sizes).astype(float),
        "floats": rng.random(sizes),
        "signs": rng.normal(size=sizes),
        "falling": -np.sort(-rng.exponential(size=sizes), axis=1),
        "scales": 10.0 ** rng.integers(-9, 9, sizes),
    }[damage]
    return costs, list(drawn)


def summed(costs: LayerCosts, damage: list[np.ndarray], counts: tuple[int, ...]) -> float:
    return math.fsum(values[choices.index(n)] for values, choices, n in zip(damage, costs.choices, counts, strict=True))


problems = st.builds(
    problem,
    st.sampled_from([CHAIN, LOOSE, HUB, STRIDED, BACKWARDS]),
    st.integers(0, 2**32),
    st.sampled_from([1, 10, 10**12]),
    st.sampled_from(["ties", "floats", "signs", "falling", "scales"]),
)


@settings(max_examples=150, deadline=None)
@given(problems, st.floats(0, 1), st.sampled_from([1, 4, dynamic.MAX_LABELS]))
def test_nothing_within_the_budget_has_less_damage(made: Problem, tightness: float, max_labels: int) -> None:
    costs, damage = made
    policies = list(itertools.product(*costs.choices))
    totals = costs.of_many(policies)
    budget = int(np.sort(totals)[round(tightness * (len(policies) - 1))])  # a total itself: the hardest budget
    least = min(summed(costs, damage, policies[i]) for i in np.flatnonzero(totals <= budget))
    solution = solve(costs, damage, budget, max_labels)
    scale = sum(np.abs(values).max() for values in damage)
    assert costs.of(solution.counts) <= budget
    assert solution.damage == pytest.approx(summed(costs, damage, solution.counts), abs=1e-13 * scale)
    assert solution.bound <= least + 1e-10 * scale
    if solution.optimal:
        assert solution.gap == 0
        assert solution.damage == pytest.approx(least, abs=1e-10 * scale)
    else:
        assert max_labels < dynamic.MAX_LABELS
        assert solution.gap > 0


@settings(max_examples=40, deadline=None)
@given(problems, st.integers(0, 2**32))
def test_what_is_infinite_is_forbidden(made: Problem, seed: int) -> None:
    costs, damage = made
    rng = np.random.default_rng(seed)
    for values in damage:
        values[rng.permutation(len(values))[: rng.integers(len(values))]] = np.inf
    policies = [p for p in itertools.product(*costs.choices) if math.isfinite(summed(costs, damage, p))]
    budget = int(np.median(costs.of_many(policies)))
    within = [p for p in policies if costs.of(p) <= budget]
    if not within:
        with pytest.raises(UserError, match="out of reach"):
            solve(costs, damage, budget)
        return
    least = min(summed(costs, damage, p) for p in within)
    found = solve(costs, damage, budget)
    # Rounding is a share of the largest damage, and these differ by up to 1e17.
    scale = sum(np.abs(values[np.isfinite(values)]).max() for values in damage)
    assert found.damage == pytest.approx(least, abs=1e-10 * scale)
    assert costs.of(found.counts) <= budget


def test_too_few_labels_say_how_far_off_the_solution_may_be() -> None:
    # Knapsacks of near-equal items are what bounds can't tell apart: some of these need more than one label.
    gaps = []
    for seed in range(10):
        costs, damage = problem(STRIDED, seed, 10**12, "floats")
        budget = int(np.quantile(costs.of_many(list(itertools.product(*costs.choices))), 0.2))
        exact, short = solve(costs, damage, budget), solve(costs, damage, budget, max_labels=1)
        assert exact.optimal
        assert short.bound <= exact.damage <= short.damage
        gaps.append(short.gap)
    assert max(gaps) > 0


def test_unreachable_budgets_name_what_can_be_reached() -> None:
    costs, damage = problem(CHAIN, 0, 10, "floats")
    least = int(costs.of_many(list(itertools.product(*costs.choices))).min())
    assert costs.of(solve(costs, damage, least).counts) == least
    with pytest.raises(UserError, match=f"a budget of {least - 1} is out of reach.* costs is {least};"):
        solve(costs, damage, least - 1)
    timed = LatencyCosts(network(CHAIN), [CHOICES] * 3, lambda shape: 0.25)
    with pytest.raises(UserError, match=r"a target of 1 ms is out of reach.* predicted at 1.5 ms"):
        solve(timed, damage, 10**9)


def test_damage_must_fit_the_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    costs, damage = problem(STRIDED, 0, 10, "floats")
    budget = costs.of(costs.full)
    for wrong in (damage[1:], [*damage[1:], np.zeros(3)], [*damage[1:], np.full(4, np.nan)], [np.full(4, np.inf)] * 5):
        with pytest.raises(ValueError, match=r"damage|finite"):
            solve(costs, wrong, budget)
    monkeypatch.setattr(dynamic, "MAX_TABLE_ENTRIES", 63)
    with pytest.raises(UserError, match="groups 0, 2, 3 depend on each other: 64 combinations"):
        solve(costs, damage, budget)


def test_a_network_that_nothing_is_cut_from_is_its_own_solution() -> None:
    costs = LayerCosts(Architecture((), ()), (), lambda _: 1, offset=3)
    assert solve(costs, [], 3).counts == ()
    with pytest.raises(UserError, match="out of reach"):
        solve(costs, [], 2)


@pytest.fixture(scope="module")
def bundled() -> LatencyCosts:
    loaded = load_network(NetworkOptions())
    table = Path(__file__).parents[4] / "lut" / "tables" / "host-epyc-zen4.tsv"
    return predicted_costs(loaded.graph.architecture, Grid().choices(loaded), Predictor(LatencyTable.open(table)))


@pytest.mark.parametrize("share", [0.5, 0.35, 0.25])
def test_on_the_real_table_it_beats_uniform_and_every_exchange_of_two(bundled: LatencyCosts, share: float) -> None:
    costs, budget = bundled, round(bundled.of(bundled.full) * share)
    rng = np.random.default_rng(0)
    damage = [rng.uniform(0.1, 1) * (1 - np.array(c) / c[-1]) ** rng.uniform(1, 3) for c in costs.choices]
    solution = solve(costs, damage, budget)
    print(f"damage {solution.damage:.6f}, gap {solution.gap:.2g}")
    assert solution.optimal
    assert solution.gap == 0
    uniform = uniform_policy(costs, budget / 10**9)
    assert solution.damage < 0.9 * summed(costs, damage, uniform)
    for a, b in itertools.combinations(range(costs.groups), 2):
        pairs = np.array(list(itertools.product(costs.choices[a], costs.choices[b])))
        policies = np.tile(solution.counts, (len(pairs), 1))
        policies[:, [a, b]] = pairs
        totals = np.add.outer(damage[a], damage[b]).ravel()
        others = solution.damage - sum(damage[g][costs.choices[g].index(solution.counts[g])] for g in (a, b))
        assert (totals[costs.of_many(policies) <= budget] + others).min() >= solution.damage - 1e-12
