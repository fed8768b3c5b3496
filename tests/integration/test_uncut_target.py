"""A target that the uncut network meets ends at once; one that it does not meet, or none, is searched for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from amc_latency.console import Console
from amc_latency.errors import UserError
from amc_latency.models.files.checkpoint import load_checkpoint
from amc_latency.models.files.weights import weights_digest
from amc_latency.models.load import load_network
from amc_latency.search.config import SearchConfig
from amc_latency.search.results.report import search_text
from amc_latency.search.results.result import SearchReport
from amc_latency.search.run import check_met, search
from amc_latency.search.series.pareto import front_text, pareto_search
from amc_latency.search.series.rounds import rounds_text, search_rounds
from tests.integration.searches import half_of_uncut_ms, slow_device
from tests.integration.test_search import BUNDLED

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def met(small: SearchConfig) -> SearchConfig:
    """A target that any network of these meets."""
    return replace(small, speedup=None, target_ms=50.0, agent=None, baselines="")


def run(folder: Path, config: SearchConfig) -> SearchReport:
    return search(config, folder, Console())


def test_nothing_is_searched(tmp_path: Path, met: SearchConfig, capsys: pytest.CaptureFixture[str]) -> None:
    report = run(tmp_path / "run", met)
    said = capsys.readouterr().err
    assert "the uncut network meets this already" in said
    assert met.model in said
    assert (report.met, report.episodes, report.evaluations, report.is_uncut) == (True, 0, 0, True)
    assert not (tmp_path / "run" / "events.jsonl").exists()
    check_met(report)
    original = load_network(met.network)
    assert {row.counts for row in report.rows} == {original.graph.architecture.group_channels}
    assert len({Path(row.tflite).read_bytes() for row in report.rows}) == 1
    saved, spec, _ = load_checkpoint(tmp_path / "run" / "model.safetensors")
    assert spec.channels == original.graph.architecture.group_channels
    assert weights_digest(saved) == weights_digest(load_checkpoint(Path(met.model))[0])
    search_text(report)
    shown = capsys.readouterr().out
    assert "the uncut network meets this: nothing was searched, cut or fine-tuned" in shown
    assert "target met on" in shown
    assert "uniform  " not in shown.split("channels kept")[0]
    assert run(tmp_path / "run", met) == report


def test_a_front_and_rounds_of_it_are_one_search(
    tmp_path: Path, met: SearchConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    front = pareto_search(met, 3, tmp_path / "front", Console(quiet=True))
    assert [(point.name, point.on_front) for point in front.points] == [("original", True)]
    assert front.missed_ms == []
    rounds = search_rounds(replace(met, rounds=3), tmp_path / "rounds", Console(quiet=True))
    assert len(rounds.rounds) == 1
    assert rounds.report.is_uncut
    front_text(front)
    rounds_text(rounds)
    assert "original" in capsys.readouterr().out


def test_another_budget_that_is_not_met_is_searched_for(tmp_path: Path, met: SearchConfig) -> None:
    report = run(tmp_path / "run", replace(met, target_macs=900_000, agent="random", episodes=2, warmup=0))
    assert report.episodes
    assert report.budgets[0].actual <= 900_000
    assert not report.is_uncut


def test_a_device_that_is_slower_than_its_table_is_searched_for(
    tmp_path: Path, met: SearchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    uncut_ms = 2 * half_of_uncut_ms(met)
    slow_device(monkeypatch, met, 1.1)
    report = run(tmp_path / "run", replace(met, target_ms=1.05 * uncut_ms, agent="random", episodes=4, warmup=0))
    assert not report.is_uncut
    assert report.met
    assert report.measured_ms <= 1.05 * uncut_ms


def test_a_reward_that_trades_is_searched_for(tmp_path: Path, met: SearchConfig) -> None:
    traded = replace(met, reward="latency", agent="random", episodes=2, warmup=0, baselines="")
    assert run(tmp_path / "run", traded).episodes == 2


REVERSED = """
from tests.integration.few_images import few_images

def reversed_classes():
    data = few_images()
    return {name: 9 - value if name.endswith("labels") else value for name, value in data.items()}
"""


def test_a_search_of_a_network_at_chance_is_refused_before_it_begins(tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text(REVERSED)
    config = replace(BUNDLED, data=f"{tmp_path / 'data.py'}:reversed_classes")
    with pytest.raises(
        UserError,
        match=r"The same answers in any order would get .*classes renumbered \(\d for \d.* it is right on 9\d\.\d %",
    ):
        run(tmp_path / "run", config)
    assert not (tmp_path / "run").exists()
