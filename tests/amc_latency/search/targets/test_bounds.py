"""Bounds of keep ratios: held to the channel and to the weight, by every method, or refused."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from amc_latency.errors import UserError
from amc_latency.graph.trace import trace
from amc_latency.measuring.profiling import Grid
from amc_latency.models.load import Network
from amc_latency.models.spec import ModelSpec
from amc_latency.prune.keep import KeepBound, check_bounds, parse_bound
from amc_latency.search.config import SearchConfig
from amc_latency.search.costs.clamp import Budget, Clamp
from amc_latency.search.costs.costs import Counts, LatencyCosts
from amc_latency.search.costs.sizes import params_costs
from amc_latency.search.episodes.problem import AgentOptions, Problem
from amc_latency.search.judge.record import EpisodeRecord, best_of
from amc_latency.search.judge.score import Score, negative_error
from amc_latency.search.judge.weights import WeightGrid, weight_network
from amc_latency.search.records import AGENTS, BASELINES
from amc_latency.search.steps.methods import choose, search_episodes
from amc_latency.search.targets.bounds import bounds_named, bounds_text, check_choices, grid_of

SHAPES = {"0": ("conv", 12, 108), "2": ("conv", 20, 2160), "6": ("linear", 30, 2400), "8": ("linear", None, 120)}
"""Kind, channels that can be cut, and weights."""


@cache
def small_network() -> Network:
    """Of the layers in `SHAPES`, for an 8x8 image."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            *(nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 20, 3, padding=1), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(80, 30), nn.ReLU(), nn.Linear(30, 4)),
        ).eval()
    return Network(model, ModelSpec("own", input=(1, 8, 8), classes=4), trace(model, (1, 8, 8)), trained=True)


@pytest.fixture(scope="module")
def network() -> Network:
    return small_network()


def of_kind(bound: KeepBound | None, kind: str, unset: float) -> float:
    found = bound.get(kind) if isinstance(bound, dict) else bound
    return unset if found is None else float(found)  # type: ignore[arg-type]


def assert_within(counts: Counts, config: SearchConfig) -> None:
    """By arithmetic on what the network is made of."""
    if config.prune == "weights":
        sizes = [(kind, weights) for kind, _, weights in SHAPES.values()]
    else:
        sizes = [(kind, channels) for kind, channels, _ in SHAPES.values() if channels is not None]
    for count, (kind, size) in zip(counts, sizes, strict=True):
        unset = 0.2 if config.prune == "channels" else 0.0
        assert of_kind(config.min_keep, kind, unset) <= count / size + 1e-12
        assert count / size <= of_kind(config.max_keep, kind, 1.0) + 1e-12
        assert 1 <= count <= size


shares = st.floats(0.005, 1.0)
bounds = st.one_of(shares, st.fixed_dictionaries({}, optional={"conv": shares, "linear": shares}).filter(bool))


@settings(max_examples=150, deadline=None)
@given(low=bounds, high=bounds, prune=st.sampled_from(["channels", "weights"]), step=st.integers(1, 4))
def test_every_choice_is_within_the_bounds_and_the_bounds_of_weights_are_choices(
    network: Network, low: KeepBound, high: KeepBound, prune: str, step: int
) -> None:
    view = weight_network(network) if prune == "weights" else network
    try:
        config = SearchConfig(
            reward="params",
            agent="ddpg",
            prune=prune,
            min_keep=low,
            max_keep=high,
            step=8 if prune == "weights" else step,
        )
        choices = grid_of(config).choices(view)
    except UserError:
        # Refused is as good as honoured.
        return
    for counts in ([each[0] for each in choices], [each[-1] for each in choices]):
        assert_within(tuple(counts), config)
    assert all(list(each) == sorted(set(each)) for each in choices)
    if prune == "weights":
        for each, (kind, _, size) in zip(choices, SHAPES.values(), strict=True):
            if of_kind(low, kind, 0.0):
                assert each[0] == max(1, math.ceil(of_kind(low, kind, 0.0) * size - 1e-9))
            assert each[-1] == math.floor(of_kind(high, kind, 1.0) * size + 1e-9)
            # No more than twice the twentieths: a search stays affordable.
            assert len(each) <= 40


def test_two_percent_of_weights_are_two_percent(network: Network) -> None:
    choices = WeightGrid({"conv": 0.2, "linear": 0.02}).choices(weight_network(network))
    # The paper's bounds: .2 of 108, 2,160 and .02 of 2,400, 120 weights, rounded up.
    assert [each[0] for each in choices] == [22, 432, 48, 3]
    # From a twentieth, 120 of 2,400, on as without bounds; below it 120 / 2^(1/2), 120 / 2 and so on.
    assert choices[2][:5] == (48, 60, 85, 120, 240)
    # 17 twentieths from .2 up; 3, 3 and 2 below the 20 (of 120 weights a 2^(1/2)th is 4 and a half is 3 already).
    assert [len(each) for each in choices] == [17, 17, 23, 22]


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (0.0, None, "`min_keep` is a share above 0 and at most 1"),
        (None, 1.2, "`max_keep` is a share above 0"),
        (math.nan, None, "`min_keep` is a share above 0"),
        ({"fc": 0.1}, None, "not for 'fc'"),
        (0.5, 0.4, "at least 0.5 and at most 0.4"),
        ({"linear": 0.5}, {"linear": 0.4}, "of linear layers at least 0.5 and at most 0.4"),
    ],
)
def test_bounds_that_are_none_are_refused(low: Any, high: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_bounds(low, high)


def test_a_largest_share_below_the_smallest_unless_set_is_refused() -> None:
    with pytest.raises(UserError, match=r"at least 0\.2 and at most 0\.1"):
        SearchConfig(speedup=2, max_keep=0.1)
    SearchConfig(prune="weights", target_params="50%", max_keep=0.1)


def test_what_the_grid_has_nothing_for_is_refused_and_what_it_ends_before_is_said(network: Network) -> None:
    with pytest.raises(UserError, match=r"group 0 has 12 channels, and no multiple of 8 of them is from 0\.7 to 0\.9"):
        Grid({"conv": 0.7}, 8, 0.9).choices(network)
    with pytest.raises(
        UserError, match=r"layer 0 has 108 weights, and no whole number of them is from 0\.501 to 0\.505"
    ):
        WeightGrid(0.501, 8, 0.505).choices(weight_network(network))
    # 0.1 of 12, 20 and 30 channels is 2, 2 and 3; multiples of 8 begin at 8, which is most of the first.
    (line,) = bounds_text(SearchConfig(speedup=2, min_keep=0.1), network)
    assert "0 keeps at least 8 of 12" in line
    assert bounds_text(SearchConfig(speedup=2, min_keep=0.1, step=1), network) == []
    # 0.9 of them is 10, 18 and 27; multiples of 8 end at 8, 16 and 24, by 2 of 12, 2 of 20 and 3 of 30 less.
    (line,) = bounds_text(SearchConfig(speedup=2, max_keep=0.9), network)
    assert "`max_keep` 0.9 is met at the next multiple of `step` 8: 0 keeps at most 8 of 12" in line
    (line,) = bounds_text(SearchConfig(speedup=2, step=16), network)
    assert line.startswith("1 of 3 groups are left whole (0)")
    config = SearchConfig(speedup=2, min_keep=1.0)
    with pytest.raises(UserError, match=r"one policy alone to choose, with `min_keep` 1 and `step` 8"):
        check_choices(config, ((12,), (20,), (30,)))


def test_a_kind_that_nothing_is_of_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2))
    net = Network(model.eval(), ModelSpec("own", input=(1, 8, 8), classes=2), trace(model, (1, 8, 8)), trained=True)
    with pytest.raises(UserError, match=r"`min_keep` linear=0\.02 is for nothing: no coupled group is of that kind"):
        Grid({"linear": 0.02}).choices(net)
    assert len(WeightGrid({"linear": 0.02}).choices(weight_network(net))) == 2


def test_a_table_answers_for_the_uncut_network_too(network: Network) -> None:
    grid = Grid(0.2, 4, 0.6)
    assert grid.choices(network) == ((4,), (4, 8, 12), (8, 12, 16))
    assert grid.with_uncut(network) == ((4, 12), (4, 8, 12, 20), (8, 12, 16, 30))
    # A first round starts from the uncut network, which it may not keep; a later one from what it was cut to.
    assert grid.choices_within(network, (12, 20, 30)) == ((4,), (4, 8, 12), (8, 12, 16))
    assert grid.choices_within(network, (4, 8, 16)) == ((4,), (4, 8), (8, 12, 16))


def costs_of(config: SearchConfig, network: Network) -> LatencyCosts:
    view = weight_network(network) if config.prune == "weights" else network
    architecture = view.graph.architecture
    choices = grid_of(config).choices(view)
    return LatencyCosts(architecture, choices, lambda shape: shape.params / 1000)


@pytest.mark.parametrize(("prune", "named"), [("channels", "group 2"), ("weights", "layer 6")])
def test_a_bound_that_a_budget_fails_for_is_named(network: Network, prune: str, named: str) -> None:
    target = {"target_params": 100} if prune == "weights" else {"target_ms": 0.1}
    config = SearchConfig(
        prune=prune, min_keep={"conv": 0.25, "linear": 0.5}, step=1 if prune == "channels" else 8, **target
    )
    costs = costs_of(config, network)
    budgets = [Budget("parameters", params_costs(costs.architecture, costs.choices), 100)] if prune == "weights" else []
    with (
        pytest.raises(
            UserError, match=rf"out of reach.* conv=0\.25,linear=0\.5.* {named}, the most costly, keeps at least"
        ) as told,
        bounds_named(config, network),
    ):
        Clamp(costs, config.target_of(1.0), budgets)
    assert (" 1,200 of 2,400 weights" if prune == "weights" else " 5 of 20 channels") in str(told.value)


class ToyJudge:
    """Judges by arithmetic: each group's loss grows with what it lost."""

    def __init__(self, costs: LatencyCosts, seed: int) -> None:
        self.costs = costs
        self.base: Any = None
        self.seen: list[Counts] = []
        self.weights = np.random.default_rng(seed).uniform(0.5, 2.0, costs.groups)

    def __call__(self, counts: Counts) -> Score:
        self.seen.append(counts)
        lost = 1 - np.array(counts) / self.costs.full
        return Score(float(np.exp(-(self.weights * lost**2).sum())), float((self.weights * lost**2).sum()), 100)

    @contextmanager
    def counting(self) -> Iterator[set[Counts]]:
        yield set()

    def damages(self, name: str, costs: LatencyCosts) -> list[list[np.ndarray]]:
        lost = [1 - np.array(choices) / full for choices, full in zip(costs.choices, costs.full, strict=True)]
        return [[weight * each**2 for weight, each in zip(self.weights, lost, strict=True)]]

    def choose(self, records: list[EpisodeRecord], limit_ms: float, reward: object) -> EpisodeRecord:
        return best_of(records, limit_ms)[0]


LEARNERS = tuple(name for name in AGENTS if AGENTS[name].sees_state)


def run_agent(problem: Problem, name: str) -> None:
    search_episodes(problem, AgentOptions(name, warm_start=False, warmup=2, episodes=4 if name in LEARNERS else 12))


def run_baseline(problem: Problem, name: str) -> None:
    problem.judge(choose(problem, name, 12).counts)


METHODS: list[tuple[Callable[[Problem, str], None], str]] = [
    *((run_agent, name) for name in AGENTS if not name.startswith("sb3-") or find_spec("stable_baselines3")),
    *((run_baseline, name) for name in BASELINES),
]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("prune", ["channels", "weights"])
def test_no_method_leaves_the_bounds(network: Network, prune: str, seed: int) -> None:
    rng = random.Random(seed)
    low = {"conv": rng.uniform(0.1, 0.4), "linear": rng.uniform(0.02, 0.3)}
    high = {"conv": rng.uniform(0.6, 0.95), "linear": rng.uniform(0.5, 0.9)}
    target = {"target_params": 1.0} if prune == "weights" else {"target_ms": 1.0}
    config = SearchConfig(prune=prune, min_keep=low, max_keep=high, step=1 if prune == "channels" else 8, **target)
    costs = costs_of(config, network)
    narrowest = costs.ms(tuple(each[0] for each in costs.choices))
    for (run, name), share in itertools.product(METHODS, (0.3, 2.0)):
        if (name in LEARNERS and (seed or share > 1)) or (name.startswith("sb3-") and prune == "weights"):
            continue
        # Under the widest policy's, and far over it: then the bound alone holds.
        clamp = Clamp(costs, narrowest + share * (costs.ms(costs.widest) - narrowest))
        judge = ToyJudge(costs, seed)
        lowest, highest = costs.ratio_bounds
        run(Problem(clamp, judge, negative_error_of, seed, lowest, highest=highest), name)  # type: ignore[arg-type]
        assert judge.seen
        for counts in set(judge.seen):
            assert_within(counts, config)


def negative_error_of(score: Score, counts: Counts) -> float:
    return negative_error(score, counts)


def test_bounds_are_read_as_they_are_written() -> None:
    assert parse_bound("0.3", "min_keep") == 0.3
    assert parse_bound("conv=0.2, linear=0.02", "min_keep") == {"conv": 0.2, "linear": 0.02}
    assert parse_bound(None, "min_keep") is None
    for text in ("", "x", "conv=", "conv=0.2,conv=0.3", "conv:0.2", "conv=0.2,0.3"):
        with pytest.raises(UserError, match="`min_keep` is a share such as"):
            parse_bound(text, "min_keep")
