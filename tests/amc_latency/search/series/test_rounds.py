"""The way that rounds go to a target."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amc_latency.console import Console
from amc_latency.errors import UserError
from amc_latency.measuring.profiling import Grid
from amc_latency.models.load import NetworkOptions, load_network
from amc_latency.search.config import SearchConfig
from amc_latency.search.series.pareto import pareto_search


@given(st.integers(1, 9), st.floats(1e-3, 1e9), st.floats(1e-3, 1e9))
def test_rounds_go_to_the_target_in_equal_ratios(rounds: int, original: float, target: float) -> None:
    limits = [
        SearchConfig(target_macs=1, rounds=rounds, round=number).toward(target, original)
        for number in range(1, rounds + 1)
    ]
    assert limits[-1] == target
    for before, after in zip([original, *limits], limits, strict=False):
        assert after / before == pytest.approx((target / original) ** (1 / rounds))


def test_no_limit_stays_none() -> None:
    config = SearchConfig(target_macs=1e6, rounds=3)
    assert config.toward(config.target_of(2.0), 2.0) == math.inf


def test_a_later_round_keeps_the_first_ones_smallest_counts() -> None:
    network = load_network(NetworkOptions("mobilenet_v1", width=0.25, input="1x32x32", classes=10))
    full = network.graph.architecture.group_channels
    assert full[:4] == (8, 16, 32, 32)
    left = Grid(0.5, 8).choices_within(network, (8, 8, 24, 32, *full[4:]))
    # Half of 32 is 16, though half of what is left would be 12.
    assert left[:4] == ((8,), (8,), (16, 24), (16, 24, 32))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rounds": 0}, "`rounds` is 1 or more, not 0"),
        ({"rounds": 2, "target_ms": None, "reward": "latency"}, "`rounds` goes to a budget"),
        ({"rounds_density": (50,), "target_ms": None, "reward": "latency"}, "`rounds` goes to a budget"),
        ({"timing_rounds": 0}, "one round of timing"),
    ],
)
def test_rounds_that_go_nowhere_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SearchConfig(**{"target_ms": 1.0, **settings})


def test_a_front_in_rounds_is_refused(tmp_path: Path) -> None:
    for settings in ({"target_ms": 1.0, "rounds": 2}, {"speedup": 2, "rounds_density": (50.0,)}):
        with pytest.raises(UserError, match="`pareto` and `rounds`"):
            pareto_search(SearchConfig(**settings), 2, tmp_path, Console(quiet=True))
