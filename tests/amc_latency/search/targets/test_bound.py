"""The bound that a probability asks for: of every policy that may win, against the target."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from amc_latency.lut.prediction.predict import Predictor
from amc_latency.lut.table.table import LatencyTable

from amc_latency.console import Console
from amc_latency.errors import UserError
from amc_latency.measuring.profiling import Grid
from amc_latency.models.load import Network, NetworkOptions, load_network
from amc_latency.search import run
from amc_latency.search.config import SearchConfig
from amc_latency.search.costs.clamp import Clamp
from amc_latency.search.costs.costs import predicted_costs
from amc_latency.search.judge.judge import Judge
from amc_latency.search.judge.score import Tested
from amc_latency.search.results.report import search_text
from amc_latency.search.solvers.baselines import random_policies, uniform_policies
from amc_latency.search.targets.bound import UpperBound
from amc_latency.training.outcome import Outcome
from tests.integration.test_search import FEWER_IMAGES

TABLE = Path(__file__).parents[4] / "lut" / "tables" / "host-epyc-zen4.tsv"
TARGET_MS = 0.15
NINE_OF_TEN = Tested(90.0, 10, None, Outcome(torch.zeros(10, dtype=torch.int64), torch.arange(10) < 9, None, 0.0))


@pytest.fixture(scope="module")
def network() -> Network:
    return load_network(NetworkOptions())


@pytest.fixture(scope="module")
def even(network: Network) -> UpperBound:
    """The bound that is as likely to be exceeded as not."""
    predictor = Predictor(LatencyTable.open(TABLE))
    costs = predicted_costs(network.graph.architecture, Grid().choices(network), predictor)
    return UpperBound(Clamp(costs, TARGET_MS), predictor, 0.5)


def bound_of(even: UpperBound, confidence: float) -> UpperBound:
    return UpperBound(even.clamp, even.predictor, confidence)


def test_the_bound_is_the_upper_end_of_twice_as_doubtful_an_interval(even: UpperBound) -> None:
    bound = bound_of(even, 0.95)
    for counts in random_policies(bound.clamp, 5, seed=1):
        interval_ms = bound.predictor.interval_ms(bound.clamp.costs.architecture.shapes(counts), 0.9)
        assert interval_ms is not None
        assert bound.ms(counts) == pytest.approx(interval_ms[1], rel=1e-6)


def test_the_widest_uniform_policy_under_its_bound_is_inside_the_limit(even: UpperBound) -> None:
    bound = bound_of(even, 0.95)
    start, limit_ms = bound.start(TARGET_MS), bound.limit_ms(TARGET_MS)
    assert start is not None
    assert limit_ms is not None
    assert bound.ms(start) <= TARGET_MS
    wider = uniform_policies(bound.clamp.costs)
    assert all(bound.ms(counts) > TARGET_MS for counts in wider[: wider.index(start)])
    assert bound.clamp.costs.ms(start) <= limit_ms < TARGET_MS
    # Policies right at the limit are about as fast as their own bound asks.
    for counts in random_policies(bound.clamp.with_target(limit_ms), 50, seed=2):
        assert bound.ms(counts) <= TARGET_MS * 1.003


def test_more_confidence_is_more_margin_and_even_odds_are_none(even: UpperBound) -> None:
    limits = [bound_of(even, confidence).limit_ms(TARGET_MS) for confidence in (0.5, 0.8, 0.95, 0.99)]
    assert None not in limits
    assert limits[0] == pytest.approx(TARGET_MS)
    assert limits == sorted(limits, reverse=True)
    assert len(set(limits)) == 4


def test_a_target_that_the_margin_makes_unreachable_names_one_that_is(even: UpperBound) -> None:
    bound = bound_of(even, 0.99)
    fastest_ms = bound.clamp.fastest_ms
    with pytest.raises(UserError, match=f"`confidence` 0.99.*predicted at {fastest_ms:.6g} ms") as refused:
        bound.check(fastest_ms * 1.001)
    named_ms = float(str(refused.value).split("stay under ")[1].split(" ms")[0])
    assert fastest_ms * 1.001 < named_ms < fastest_ms * 1.2
    bound.check(named_ms)
    assert bound.limit_ms(named_ms) == pytest.approx(fastest_ms, rel=1e-3)
    assert bound.limit_ms(fastest_ms * 1.001) is None


def test_a_table_with_one_network_gives_no_probability(even: UpperBound, network: Network) -> None:
    only = [network.graph.architecture.shapes()]
    with pytest.raises(UserError, match=r"1 whole networks of this kind, too few .* `margin_pct`"):
        UpperBound(even.clamp, Predictor(even.predictor.table, only), 0.95)


def test_an_estimate_gives_none_either(even: UpperBound, tmp_path: Path) -> None:
    measured = even.predictor.table
    with LatencyTable.create(
        tmp_path / "t.tsv", replace(measured.identity, estimated=True), measured.protocol
    ) as estimated:
        for timing in measured.rows:
            estimated.append(timing)
    with pytest.raises(UserError, match="estimated, not measured, and so cannot tell"):
        UpperBound(even.clamp, Predictor(estimated), 0.95)
    assert Predictor(estimated).interval_ms(even.clamp.costs.architecture.shapes()) is None


@pytest.mark.parametrize("confidence", [0.49, 1.0, -1.0, float("nan")])
def test_a_probability_that_is_none_is_refused(confidence: float) -> None:
    with pytest.raises(UserError, match="`confidence` is a probability"):
        SearchConfig(speedup=2, confidence=confidence)


@pytest.mark.slow
def test_a_search_holds_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, even: UpperBound
) -> None:
    # Most of the time of a short search, and nothing that is looked at here.
    monkeypatch.setattr(Judge, "tested", lambda *_: NINE_OF_TEN)
    monkeypatch.setattr(Judge, "file_tested", lambda *_: None)
    config = SearchConfig(
        speedup=2,
        device="replay",
        lut=str(TABLE),
        data=FEWER_IMAGES,
        agent="ddpg",
        warm_start=False,
        warmup=2,
        episodes=2,
        baselines="uniform",
        images=50,
        calibration_images=32,
        finetune_epochs=0,
        rounds=1,
        confidence=0.95,
    )
    report = run.search(config, tmp_path / "run", Console(quiet=True))
    ours = report.rows[-1]
    assert report.met
    assert report.bound_ms == pytest.approx(bound_of(even, 0.95).ms(ours.counts))
    assert report.predicted_ms < report.bound_ms <= report.target_ms
    search_text(report)
    assert f"{report.bound_ms:.4f} ms with a probability of 95 %" in capsys.readouterr().out
    # It is part of what a search is: another one asks for another folder, and the same one is only read.
    assert run.search(config, tmp_path / "run", Console(quiet=True)) == report
    with pytest.raises(UserError, match=r"confidence = 0\.95"):
        run.search(replace(config, confidence=0.9), tmp_path / "run", Console(quiet=True))
    fastest_ms = bound_of(even, 0.95).clamp.fastest_ms
    tight = replace(config, speedup=None, target_ms=fastest_ms * 1.001)
    with pytest.raises(UserError, match="out of reach with `confidence`"):
        run.search(tight, tmp_path / "tight", Console(quiet=True))
    assert not (tmp_path / "tight").exists()
