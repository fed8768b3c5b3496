"""The clamp against brute force, on chains, residual networks and random uneven costs."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from amc_latency.lut.shapes.architecture import Architecture, Layer
from amc_latency.lut.shapes.shape import LayerShape
from hypothesis import given, settings
from hypothesis import strategies as st

from amc_latency.errors import UserError
from amc_latency.search.costs import clamp as clamp_module
from amc_latency.search.costs.clamp import Budget, Clamp
from amc_latency.search.costs.costs import LatencyCosts, LayerCosts

CHAIN = ((None, 0), (0, 0), (0, 1), (1, 1), (1, 2), (2, None))
RESIDUAL = ((None, 0), (0, 1), (1, 0), (0, 0), (0, 2), (2, 0), (0, 3), (0, 4), (4, 3), (3, 3), (3, None))
"""Two blocks on a residual sum (group 0), then a strided block with a projection (0 -> 3)."""
Links = tuple[tuple[int | None, int | None], ...]


def network(links: Links, channels: tuple[int, ...]) -> Architecture:
    """Layers that join groups as `links` says; each has a height of its own, so that each costs differently."""
    layers = []
    for i, (c_in, c_out) in enumerate(links):
        sizes = (3 if c_in is None else channels[c_in], 10 if c_out is None else channels[c_out])
        kind = "depthwise" if c_in == c_out else "conv"
        layers.append(Layer(LayerShape(kind, *sizes, h=i + 1, w=1), c_in, c_out))
    return Architecture(tuple(layers), channels)


def random_cost(seed: int, low: float = 0.0, high: float = 1.0) -> Callable[[LayerShape], float]:
    return lambda shape: random.Random(f"{seed}/{shape.text}").uniform(low, high)


def brute_force(costs: LatencyCosts) -> dict[tuple[int, ...], float]:
    """Every policy and its ms."""
    return {counts: costs.ms(counts) for counts in itertools.product(*costs.choices)}


@pytest.mark.parametrize("links", [CHAIN, RESIDUAL], ids=["chain", "residual"])
@pytest.mark.parametrize("seed", range(5))
def test_allowed_is_what_brute_force_allows(links: Links, seed: int) -> None:
    groups = 1 + max(group for link in links for group in link if group is not None)
    costs = LatencyCosts(network(links, (8,) * groups), [(2, 5, 8)] * groups, random_cost(seed))
    policies = brute_force(costs)
    totals = sorted(policies.values())
    clamp = Clamp(costs, totals[len(totals) // 10])
    for length in range(groups):
        for prefix in itertools.islice(itertools.product(*costs.choices[:length]), 0, None, 7):
            fastest = [
                min(ms for counts, ms in policies.items() if counts[: length + 1] == (*prefix, count))
                for count in costs.choices[length]
            ]
            np.testing.assert_array_equal(clamp.least_ms(prefix), fastest)
            np.testing.assert_array_equal(clamp.allowed(prefix), np.array(fastest) <= clamp.target_ms)
    assert clamp.fastest_ms == totals[0]


@pytest.mark.parametrize("links", [CHAIN, RESIDUAL], ids=["chain", "residual"])
def test_ms_is_the_sum_of_the_layers(links: Links) -> None:
    architecture = network(links, (8, 16, 24, 32, 40)[: 3 if links is CHAIN else 5])
    choices = [(4, channels) for channels in architecture.group_channels]
    cost = random_cost(3)
    costs = LatencyCosts(architecture, choices, cost, offset_ms=0.25)
    for counts in itertools.product(*choices):
        expected = 0.25 + math.fsum(cost(shape) for shape in architecture.shapes(counts))
        assert costs.ms(counts) == pytest.approx(expected, abs=1e-8)
        assert costs.ms(counts) >= expected - 1e-12  # rounded up, never down
    assert costs.full_ms == costs.ms(architecture.group_channels)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    links=st.sampled_from([CHAIN, RESIDUAL]),
    low=st.sampled_from([0.0, 1e-6, 0.9]),
    offset=st.floats(-0.5, 2.0),
    tightness=st.floats(0.0, 1.0),
    ratios=st.lists(st.floats(0.0, 1.0), min_size=5, max_size=5),
)
def test_a_finished_policy_is_never_over_the_target(
    seed: int, links: Links, low: float, offset: float, tightness: float, ratios: list[float]
) -> None:
    groups = 1 + max(group for link in links for group in link if group is not None)
    costs = LatencyCosts(network(links, (8,) * groups), [(1, 4, 8)] * groups, random_cost(seed, low), offset)
    totals = sorted(brute_force(costs).values())
    target_ms = totals[round(tightness * (len(totals) - 1))]  # a total itself: the hardest target
    clamp = Clamp(costs, target_ms)
    counts: tuple[int, ...] = ()
    for ratio in ratios[:groups]:
        assert clamp.allowed(counts).any()
        counts = (*counts, clamp.nearest(counts, ratio))
    assert costs.ms(counts) <= target_ms


def test_wider_may_be_faster() -> None:
    # 24 channels take 2.53 ms and 32 take 2.31 ms on a real Pixel 1 (DESIGN.md): only the wider one fits 2.4 ms.
    architecture = network(((None, 0),), (32,))
    costs = LatencyCosts(architecture, [(24, 32)], lambda shape: 2.53 if shape.c_out == 24 else 2.31)
    clamp = Clamp(costs, 2.4)
    assert clamp.allowed(()).tolist() == [False, True]
    assert clamp.nearest((), 0.0) == 32
    assert clamp.fastest_ms == 2.31


def test_nearest_takes_the_nearest_allowed_ratio_and_the_wider_of_two() -> None:
    costs = LatencyCosts(network(((None, 0),), (80,)), [(8, 16, 24, 32, 80)], lambda shape: shape.c_out)
    clamp = Clamp(costs, 24.0)
    assert [clamp.nearest((), ratio) for ratio in (0.0, 0.14, 0.16, 0.19, 0.26, 1.0)] == [8, 8, 16, 16, 24, 24]
    assert clamp.nearest((), 0.15) == 16  # half-way between 8/80 and 16/80
    assert clamp.with_target(80.0).nearest((), 0.7) == 80  # half-way between 32/80 and 80/80


def test_unreachable_target_names_a_target_that_is_reachable() -> None:
    costs = LatencyCosts(network(CHAIN, (8, 8, 8)), [(2, 8)] * 3, random_cost(1, 0.1234567, 0.2))
    fastest_ms = Clamp(costs, 100.0).fastest_ms
    with pytest.raises(UserError, match="out of reach") as caught:
        Clamp(costs, fastest_ms * 0.99)
    named = float(str(caught.value).split("predicted at ")[1].split(" ms")[0])
    assert fastest_ms <= named <= fastest_ms * 1.00001
    assert Clamp(costs, named).fastest_ms == fastest_ms
    assert Clamp(costs, fastest_ms).allowed(()).any()


def test_a_prefix_over_the_target_is_an_error() -> None:
    costs = LatencyCosts(network(CHAIN, (8, 8, 8)), [(2, 8)] * 3, lambda shape: float(shape.c_out))
    with pytest.raises(UserError, match="no count of group 1"):
        Clamp(costs, Clamp(costs, 100.0).fastest_ms).nearest((8,), 0.5)


def test_too_large_a_table_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clamp_module, "MAX_TABLE_ENTRIES", 15)
    costs = LatencyCosts(network(CHAIN, (8, 8, 8)), [(2, 4, 6, 8)] * 3, random_cost(0))
    with pytest.raises(UserError, match="16 combinations are more than the 15"):
        Clamp(costs, 100.0)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ([(2, 8)], "choices for 1 groups"),
        ([(2, 8), (2, 8), (2, 9)], "group 2's choices"),
        ([(2, 8), (8, 2), (2, 8)], "group 1's choices"),
        ([(0, 8), (2, 8), (2, 8)], "group 0's choices"),
        ([(2, 8), (), (2, 8)], "group 1's choices"),
    ],
)
def test_choices_must_fit_the_network(choices: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LatencyCosts(network(CHAIN, (8, 8, 8)), choices, random_cost(0))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_cost_that_is_no_number_is_refused(bad: float) -> None:
    with pytest.raises(UserError, match="conv 3x1x1>2"):
        LatencyCosts(network(CHAIN, (8, 8, 8)), [(2, 8)] * 3, lambda shape: bad)


def test_a_count_that_is_no_choice_is_refused() -> None:
    costs = LatencyCosts(network(CHAIN, (8, 8, 8)), [(2, 8)] * 3, random_cost(0))
    with pytest.raises(UserError, match="group 1 can't keep 5 channels; the nearest choice is 2"):
        costs.ms((8, 5, 8))
    with pytest.raises(UserError, match="2 channel counts for a network of 3"):
        costs.ms((8, 8))


@settings(max_examples=40, deadline=None)
@given(
    links=st.sampled_from([CHAIN, RESIDUAL]),
    seed=st.integers(0, 10_000),
    share_ms=st.floats(0.3, 0.9),
    share=st.floats(0.3, 0.9),
    ratios=st.lists(st.floats(0, 1), min_size=5, max_size=5),
)
def test_under_two_budgets_every_episode_ends_within_both(
    links: Links, seed: int, share_ms: float, share: float, ratios: list[float]
) -> None:
    groups = 1 + max(group for link in links for group in link if group is not None)
    architecture, choices = network(links, (8,) * groups), [(2, 5, 8)] * groups
    costs = LatencyCosts(architecture, choices, random_cost(seed))
    others = LayerCosts(architecture, choices, lambda shape: round(1000 * random_cost(seed + 1)(shape)), 7)
    policies = list(itertools.product(*choices))
    target_ms = share_ms * max(map(costs.ms, policies))
    budget = Budget("MACs", others, int(share * max(map(others.of, policies))))
    within = {counts for counts in policies if costs.ms(counts) <= target_ms and others.of(counts) <= budget.limit}
    try:
        clamp = Clamp(costs, target_ms, [budget])
    except UserError:
        # What it refuses may be hidden from its witnesses, but not if each budget alone leaves most policies.
        assert len(within) < len(policies) / 2
        return
    counts: tuple[int, ...] = ()
    for ratio in ratios[:groups]:
        allowed = {count for count, ok in zip(choices[0], clamp.allowed(counts), strict=True) if ok}
        finishable = {policy[len(counts)] for policy in within if policy[: len(counts)] == counts}
        assert allowed
        assert allowed <= finishable
        count = clamp.nearest(counts, ratio)
        assert abs(count / 8 - ratio) == min(abs(other / 8 - ratio) for other in allowed)
        counts = (*counts, count)
    assert counts in within
    assert clamp.holds(counts)


def test_one_budget_without_milliseconds_allows_what_brute_force_allows() -> None:
    architecture, choices = network(CHAIN, (8, 8, 8)), [(2, 5, 8)] * 3
    costs = LatencyCosts(architecture, choices, random_cost(1))
    macs = LayerCosts(architecture, choices, lambda shape: shape.macs)
    limit = macs.of((5, 5, 5))
    clamp = Clamp(costs, math.inf, [Budget("MACs", macs, limit)])
    for length in range(3):
        for prefix in itertools.product(*choices[:length]):
            expected = [
                any(macs.of((*prefix, count, *rest)) <= limit for rest in itertools.product(*choices[length + 1 :]))
                for count in choices[length]
            ]
            np.testing.assert_array_equal(clamp.allowed(prefix), expected)


def test_budgets_that_cannot_be_held_say_which_binds() -> None:
    architecture, choices = network(CHAIN, (8, 8, 8)), [(2, 8)] * 3
    costs = LatencyCosts(architecture, choices, lambda shape: 1.0 / shape.c_out)
    macs = LayerCosts(architecture, choices, lambda shape: shape.macs)
    least = macs.of((2, 2, 2))
    with pytest.raises(UserError, match=f"{least - 1:,} MACs is out of reach.* {least:,};"):
        Clamp(costs, math.inf, [Budget("MACs", macs, least - 1)])
    # Wide is fast here, so that the least MACs and the fastest network exclude each other.
    assert Clamp(costs, costs.ms((8, 8, 8))).holds((8, 8, 8))
    with pytest.raises(UserError, match="each be reached, but no policy was found that holds them together") as refused:
        Clamp(costs, costs.ms((8, 8, 8)), [Budget("MACs", macs, least)])
    assert f"{costs.ms((2, 2, 2)):.6g} ms within the rest or {macs.of((8, 8, 8)):,} MACs within the rest" in str(
        refused.value
    )
