"""Budgets in percent, and density schedules: what they come to, what they contradict, and what a run is called."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amc_latency.errors import UserError
from amc_latency.search.config import SearchConfig, config_of, run_name
from amc_latency.search.config.amounts import absolute, read_amount, read_milliseconds
from amc_latency.search.config.densities import parse_densities
from amc_latency.search.costs.costs import LatencyCosts
from amc_latency.search.results.folder import RunFolder
from amc_latency.search.targets.budgets import Subject, budgets_of, exported
from tests.amc_latency.search.targets.test_bounds import small_network


def test_an_amount_is_a_number_or_a_percentage() -> None:
    assert read_amount("6M", "target_macs") == 6e6
    assert read_amount(" 50 %", "target_macs") == "50%"
    assert read_amount("12.5%", "target_bytes") == "12.5%"
    assert absolute(1234.0, 10) == 1234
    for text in ("0%", "-5%", "100.1%", "nan%", "x%", "%", "5M%"):
        with pytest.raises(UserError, match=r"`target_params`: a percentage .* above 0 % and at most 100 %"):
            read_amount(text, "target_params")
        with pytest.raises(UserError, match="a percentage"):
            SearchConfig(target_params=text)
    with pytest.raises(UserError, match="a percentage"):
        SearchConfig(target_params="6M")
    with pytest.raises(UserError, match="a percentage is a speedup"):
        SearchConfig(target_ms="50%")  # type: ignore[arg-type]


@settings(deadline=None)
@given(st.integers(1, 100), st.integers(1, 10**10))
def test_whole_percentages_of_whole_numbers_are_exact(percent: int, uncut: int) -> None:
    assert int(absolute(f"{percent}%", uncut)) == percent * uncut // 100


def test_a_percentage_of_milliseconds_is_a_speedup() -> None:
    def asked(text: str, **others: Any) -> tuple[float | None, float | None]:
        config = config_of({"target_ms": read_milliseconds(text, "target_ms"), **others})
        return config.target_ms, config.speedup

    assert asked("50%") == (None, 2.0)
    assert asked("0.15") == (0.15, None)
    assert config_of({"speedup": 3.0}).speedup == 3.0
    with pytest.raises(UserError, match="one way"):
        asked("50%", speedup=2.0)
    with pytest.raises(UserError, match="`target_ms` is milliseconds such as 20, or a percentage"):
        asked("20ms")
    with pytest.raises(UserError, match="`target_ms`: a percentage"):
        asked("120%")


PARAMS = (108 + 12) + (2160 + 20) + (2400 + 30) + (120 + 4)
MACS = 8 * 8 * (108 + 2160) + 2400 + 120


def budgets(**wanted: Any) -> dict[str, int]:
    config, network = SearchConfig(step=1, **wanted), small_network()
    architecture = network.graph.architecture
    costs = LatencyCosts(architecture, ((3, 12), (4, 20), (6, 30)), lambda shape: 1.0)
    return {budget.name: budget.limit for budget in budgets_of(config, Subject(network, network, costs))}


def test_budgets_in_percent_are_of_the_uncut_network() -> None:
    whole = budgets(target_params="100%", target_bytes="100%", target_macs="100%")
    assert whole == {"parameters": PARAMS, "bytes": len(exported(small_network())), "MACs": MACS}
    half = budgets(target_params="50%", target_bytes="40%", target_macs="50%")
    assert half == {
        "parameters": PARAMS // 2,
        "bytes": 40 * whole["bytes"] // 100,
        "MACs": MACS // 2,
    }
    # While the second layer runs, 12 maps of 8x8 and 20; a flattened map is no other tensor.
    assert budgets(target_memory="50%", target_macs="50%")["bytes of activations"] == 4 * 8 * 8 * (12 + 20) // 2
    assert budgets(target_memory=5000.9) == {"bytes of activations": 5000}
    # In rounds: equal ratios, or as a schedule says, to the same end.
    first = budgets(target_params="25%", rounds=2)
    assert first["parameters"] == pytest.approx(PARAMS / 2, abs=1)
    densities = (50.0, 35.0, 25.0, 20.0)
    limits = [
        budgets(target_params="20%", rounds=4, round=number, rounds_density=densities)["parameters"]
        for number in range(1, 5)
    ]
    assert limits == [int(percent) * PARAMS // 100 for percent in densities]
    # 20.1 % in figures is about 20 %, and the last round takes it at its word; 25 % is not.
    near = round(0.201 * PARAMS)
    assert budgets(target_params=near, rounds=4, round=4, rounds_density=densities)["parameters"] == near
    with pytest.raises(UserError, match=r"is 25 % of the uncut network's .* and `rounds_density` ends at 20 %"):
        budgets(target_params=0.25 * PARAMS, rounds=4, round=4, rounds_density=densities)


@settings(deadline=None)
@given(st.lists(st.floats(0.1, 99.9), min_size=1, max_size=5, unique=True), st.floats(0.01, 1e9))
def test_milliseconds_follow_a_schedule(percents: list[float], original_ms: float) -> None:
    densities = tuple(sorted(percents, reverse=True))
    config = SearchConfig(speedup=100 / densities[-1], rounds=len(densities), rounds_density=densities)
    target_ms = config.target_of(original_ms)
    targets = [replace(config, round=i + 1).toward(target_ms, original_ms) for i in range(len(densities))]
    assert targets == pytest.approx([original_ms * percent / 100 for percent in densities])
    assert all(after < before for before, after in pairwise(targets))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"rounds_density": ()}, "not none"),
        ({"rounds_density": (50, 0)}, "above 0 and below 100, not 50,0"),
        ({"rounds_density": (100, 25)}, "above 0 and below 100"),
        ({"rounds_density": (35, 50, 25)}, "35,50,25 does not"),
        ({"rounds_density": (25, 25)}, "25,25 does not"),
        ({"rounds_density": (50, 25), "rounds": 3}, "is 2 rounds, not `rounds` 3"),
        ({"rounds_density": (50, 20), "rounds": 2}, r"ends at 20 % .* target is 25 %"),
        ({"rounds_density": (50, 25), "rounds": 2, "speedup": 2}, r"ends at 25 % .* target is 50 %"),
        ({"rounds_density": (50, 25), "rounds": 2, "target_bytes": "30%"}, r"ends at 25 % .* target is 30 %"),
    ],
)
def test_a_schedule_that_contradicts_itself_or_the_target_is_refused(wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SearchConfig(**{"target_macs": "25%", **wanted})


def test_rounds_and_target_follow_from_a_schedule() -> None:
    given: dict[str, Any] = {"rounds_density": parse_densities("50,35,25%,20"), "prune": "weights"}
    config = config_of(given)
    assert config.rounds == 4
    assert config.rounds_density == (50, 35, 25, 20)
    assert config.target_params == "20%"
    assert config_of({**given, "target_bytes": "20%"}).target_params is None
    with pytest.raises(UserError, match="needs a budget"):
        config_of({**given, "prune": "channels"})
    assert config_of({"target_params": "20%"}).rounds == 1
    with pytest.raises(UserError, match="`rounds_density` is a percentage for each round"):
        parse_densities("50;25")


def test_a_run_is_called_by_its_percentages_schedule_and_bounds(tmp_path: Path) -> None:
    config = SearchConfig(
        prune="weights",
        target_params="20%",
        rounds=2,
        rounds_density=(50.0, 20.0),
        min_keep={"conv": 0.2, "linear": 0.02},
        max_keep=0.9,
    )
    assert run_name(config) == "bundled-host-20pct-params-weights-density50-20-minconv0.2linear0.02-max0.9-seed0"
    assert run_name(SearchConfig(target_macs=6e6)) == "bundled-host-6e+06macs-seed0"
    # The folder remembers them as they were given: 50 % is another search than its number of parameters.
    folder = tmp_path / "run"
    RunFolder(folder, asdict(config)).start()
    RunFolder(tmp_path / "other", asdict(config))
    for other in ({"target_params": 150_000.0}, {"min_keep": {"conv": 0.2}}, {"rounds_density": (40.0, 20.0)}):
        with pytest.raises(UserError, match=f"belongs to a search with {next(iter(other))} = "):
            RunFolder(folder, asdict(replace(config, **other)))
    assert RunFolder(folder, asdict(config)).settings["rounds_density"] == [50.0, 20.0]
