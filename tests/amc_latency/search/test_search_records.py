"""What a search is made of: every function that a record names is there, and one of one's own is a record more."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pkgutil import resolve_name

import numpy as np
import pytest
from amc_latency.lut.shapes.architecture import Architecture, Layer
from amc_latency.lut.shapes.shape import LayerShape

from amc_latency.data.load import SOURCES as DATA_SOURCES
from amc_latency.data.load import DataSource, Wanted, check_source, load_data
from amc_latency.data.splits import ImageData
from amc_latency.errors import UserError
from amc_latency.models.registry import SOURCES as MODEL_SOURCES
from amc_latency.models.registry import Source, build_model, known_models
from amc_latency.models.spec import ModelSpec
from amc_latency.search.config import SearchConfig
from amc_latency.search.config.amounts import Amount
from amc_latency.search.config.unused import unused
from amc_latency.search.costs.clamp import Clamp
from amc_latency.search.costs.costs import Counts, LatencyCosts, LayerCosts, PolicyCosts
from amc_latency.search.episodes.problem import AgentOptions, Choice, Problem, Session
from amc_latency.search.judge.judge import Judge
from amc_latency.search.judge.record import EpisodeRecord, best_of
from amc_latency.search.judge.rewards import make_reward
from amc_latency.search.judge.score import Score
from amc_latency.search.judge.weights import WeightJudge
from amc_latency.search.records import (
    AGENTS,
    BASELINES,
    BUDGETS,
    DAMAGES,
    PRUNINGS,
    REWARDS,
    AgentRecord,
    BaselineRecord,
    BudgetRecord,
)
from amc_latency.search.results.result import BudgetRow, Row
from amc_latency.search.steps.methods import check_agent, choose, search_episodes
from amc_latency.search.targets.budgets import Subject, budget_rows, clamp_of
from tests.amc_latency.search.targets.test_bounds import small_network

ARCHITECTURE = Architecture(
    (
        Layer(LayerShape("conv", 3, 16, 8, 8, kernel=3, padding=1), None, 0),
        Layer(LayerShape("conv", 16, 40, 8, 8, kernel=3, padding=1), 0, 1),
        Layer(LayerShape("linear", 40, 10), 1, None),
    ),
    (16, 40),
)
COSTS = LatencyCosts(ARCHITECTURE, ((4, 8, 16), (8, 24, 40)), lambda shape: shape.c_out / 100)


class ToyJudge:
    """Judges by arithmetic: each channel of the second group is worth two of the first."""

    @contextmanager
    def counting(self) -> Iterator[set[Counts]]:
        yield set()

    def __call__(self, counts: Counts, best: float = 0.0) -> Score:
        return Score((counts[0] + 2 * counts[1]) / 96, 0.0, 100)

    def choose(self, records: list[EpisodeRecord], limit_ms: float, reward: object) -> EpisodeRecord:
        return best_of(records, limit_ms)[0]


class Narrowing:
    """An agent of one's own: in each episode it wants less of the first group, and all of the second."""

    warmup = 0

    def __init__(self) -> None:
        self._wanted = 1.0

    def begin(self, clamp: Clamp) -> None:
        self._ratios = [1.0, self._wanted]

    def act(self, state: np.ndarray, age: int) -> float:
        return self._ratios.pop()

    def learn(self, states: list[np.ndarray], actions: list[float], rewards: list[float], age: int) -> None:
        self._wanted /= 2


def search_narrowing(session: Session) -> list[EpisodeRecord]:
    return session.episodes(Narrowing())


def choose_widest(problem: Problem, name: str, evaluations: int) -> Choice:
    return Choice(problem.clamp.costs.widest, 0)


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(AGENTS, "narrowing", AgentRecord(f"{__name__}:search_narrowing"))
    monkeypatch.setitem(BASELINES, "widest", BaselineRecord(f"{__name__}:choose_widest"))
    monkeypatch.setitem(BASELINES, "narrowing", BaselineRecord("amc_latency.search.steps.methods:choose_by_agent"))


def problem(target_ms: float) -> Problem:
    return Problem(Clamp(COSTS, target_ms), ToyJudge(), make_reward("error", COSTS), 0, 0.1)  # type: ignore[arg-type]


def test_an_agent_of_ones_own_searches(own: None) -> None:
    config = SearchConfig(target_ms=1.0, agent="narrowing", baselines="widest")
    # It sees no state, has no warm-up, and the settings of other agents are not for it.
    assert {"state", "warmup", "ppo_actors", "critic_action_layer"} <= unused(config).keys()
    records = search_episodes(problem(1.0), AgentOptions("narrowing", warm_start=False, episodes=3))
    # A hundredth of a millisecond a channel and 10 of the classifier's: 16 + 40 + 10, 8 + 40 + 10, 4 + 40 + 10.
    assert [record.counts for record in records] == [(16, 40), (8, 40), (4, 40)]
    assert [record.predicted_ms for record in records] == pytest.approx([0.66, 0.58, 0.54])
    assert choose(problem(1.0), "widest", 5) == Choice((16, 40), 0)
    assert choose(problem(0.6), "narrowing", 3).counts == (8, 40)


@dataclass(frozen=True)
class WithTraffic(SearchConfig):
    """A config that limits one thing more."""

    target_traffic: str | None = None

    @property
    def limits(self) -> dict[str, Amount]:
        return super().limits | ({} if self.target_traffic is None else {"target_traffic": self.target_traffic})


def traffic(subject: Subject) -> PolicyCosts:
    """Bytes that layers write."""
    latency = subject.latency
    return LayerCosts(latency.architecture, latency.choices, lambda shape: 4 * shape.c_out * shape.h_out * shape.w_out)


def uncut_traffic(subject: Subject) -> int:
    return 4 * sum(s.c_out * s.h_out * s.w_out for s in subject.original.graph.architecture.shapes())


def test_a_budget_of_ones_own_is_held_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    record = BudgetRecord(
        "target_traffic",
        f"{__name__}:traffic",
        f"{__name__}:uncut_traffic",
        "amc_latency.search.targets.budgets:by_costs",
    )
    monkeypatch.setitem(BUDGETS, "bytes written", record)
    network = small_network()
    costs = LatencyCosts(network.graph.architecture, ((3, 12), (4, 20), (6, 30)), lambda shape: 1.0)
    clamp = clamp_of(WithTraffic(target_traffic="50%"), Subject(network, network, costs), 5.0)
    # Two maps of 8x8, one of 2x2 that is pooled, and features.
    written = {c: 4 * (64 * (c[0] + c[1]) + 4 * c[1] + c[2] + 4) for c in itertools.product(*costs.choices)}
    limit = written[12, 20, 30] // 2
    assert [(each.text, each.limit) for each in clamp.budgets] == [(f"{limit:,} bytes written", limit)]
    assert {counts for counts in written if clamp.holds(counts)} == {c for c, each in written.items() if each <= limit}
    row = Row("ours", (12, 4, 6), 1.0, 1.0, None, 1, 1, 50.0, 50.0, "ours.tflite")
    assert budget_rows(clamp.budgets, row) == [BudgetRow("bytes written", limit, written[12, 4, 6])]


def test_what_weights_cannot_meet_is_refused() -> None:
    for wanted in ({"target_memory": 1e6}, {"target_macs": "50%"}, {"target_ms": 1.0}):
        with pytest.raises(UserError, match=r"smaller, not faster.*Give `target_params` or `target_bytes`, or prune"):
            replace(SearchConfig(target_params=5, prune="weights"), **wanted)  # type: ignore[arg-type]
    assert SearchConfig(target_params=5, target_bytes=5, prune="weights").limits == {
        "target_params": 5,
        "target_bytes": 5,
    }
    with pytest.raises(
        UserError, match=r"confidence.*leave `target_macs`, `target_params`, `target_bytes` and `target_m"
    ):
        SearchConfig(target_ms=1.0, target_memory="50%", confidence=0.9)


@pytest.mark.parametrize("call", [lambda: check_agent("ddgp"), lambda: SearchConfig(target_ms=1.0, agent="ddgp")])
def test_an_agent_that_is_none_is_refused(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=r"no agent is called 'ddgp'.*Did you mean 'ddpg'"):
        call()


def test_nothing_else_stands_for_an_unknown_name() -> None:
    with pytest.raises(UserError, match="no agent is called 'sb3'"):
        search_episodes(problem(1.0), AgentOptions("sb3", warm_start=False))
    with pytest.raises(UserError, match=r"no baseline is called 'unifrom'.*Did you mean 'uniform'"):
        choose(problem(1.0), "unifrom", 1)
    with pytest.raises(UserError, match=r"no reward is called 'lost'.*Did you mean 'loss'"):
        make_reward("lost", COSTS)
    with pytest.raises(UserError, match=r"no proxy of damage is called 'refitt'.*Did you mean 'refit'"):
        Judge.damages(None, "refitt", COSTS)  # type: ignore[arg-type]


def test_every_named_function_is_there() -> None:
    named = [record.run for record in AGENTS.values()]
    named += [record.choose for record in BASELINES.values()]
    named += [record.make for record in REWARDS.values()]
    named += [source.loader for source in DATA_SOURCES.values()]
    for source in MODEL_SOURCES.values():
        named += filter(None, (source.builder, source.describer, source.publisher, source.normaliser))
    for name in named:
        assert callable(resolve_name(name)), name
    named += [name for record in BUDGETS.values() for name in (record.costs, record.uncut, record.actual)]
    for pruning in PRUNINGS.values():
        named.append(pruning.strategy)
        assert not resolve_name(pruning.strategy).__abstractmethods__
    for record in DAMAGES.values():
        assert callable(getattr(Judge, record.method))
        assert callable(getattr(WeightJudge, record.method))
    settings = {field.name for field in fields(SearchConfig)}
    assert {option for record in AGENTS.values() for option in record.options} <= settings
    assert settings >= {record.field for record in BUDGETS.values()} | {n for p in PRUNINGS.values() for n in p.unused}
    # A field means one budget to each kind of pruning.
    for prune in PRUNINGS:
        own_fields = [record.field for record in BUDGETS.values() if prune in record.pruning]
        assert len(own_fields) == len(set(own_fields)) > 0


def test_the_records_load_no_torch() -> None:
    modules = ("search.config", "search.records", "models.registry", "data.load", "device.registry")
    program = "; ".join(f"import amc_latency.{module}" for module in modules)
    subprocess.run(
        [sys.executable, "-P", "-c", f"{program}; import sys; assert not {{'torch', 'gymnasium'}} & set(sys.modules)"],
        check=True,
    )


def build_small(spec: ModelSpec, name: str):  # type: ignore[no-untyped-def]
    from torch import nn

    return nn.Sequential(nn.Conv2d(spec.input[0], int(name), 3), nn.Flatten(), nn.Linear(int(name) * 36, spec.classes))


def load_part(wanted: Wanted) -> ImageData:
    data = load_data("bundled")
    return data.with_splits(*(split.take(int(wanted.place)) for split in data.splits))


def test_a_source_of_networks_or_images_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source("a test", f"{__name__}:build_small", names=(), prefix="small:", any_channels=True)
    monkeypatch.setitem(MODEL_SOURCES, "small", source)
    model = build_model(ModelSpec("small:5", input=(1, 8, 8), classes=3))
    # Weights and biases: 9 * 5 + 5, and 5 * 6 * 6 * 3 + 3.
    assert sum(each.numel() for each in model.parameters()) == 50 + 543
    assert "small:5" not in known_models()
    with pytest.raises(UserError, match="small:5 comes from a test: only width 1"):
        build_model(ModelSpec("small:5", width=0.5, input=(1, 8, 8), classes=3))
    monkeypatch.setitem(DATA_SOURCES, "part", DataSource(f"{__name__}:load_part", place="N"))
    assert len(load_data("part:7").train) == 7
    with pytest.raises(UserError, match=r'"prat".*did you mean "part:N"'):
        check_source("prat")
