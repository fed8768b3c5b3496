"""Whole searches in rounds, and of weights, of a small network on a replayed table."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from amc_latency.device.base import Device, Protocol, Summary, Timing, Workload
from amc_latency.lut.table.table import LatencyTable

from amc_latency.console import Console
from amc_latency.errors import UserError
from amc_latency.models.files.checkpoint import load_checkpoint
from amc_latency.models.load import load_network
from amc_latency.search import run as search_run
from amc_latency.search.config import SearchConfig
from amc_latency.search.judge.weights import weight_layers
from amc_latency.search.results.report import search_text
from amc_latency.search.run import check_met, search
from amc_latency.search.series.rounds import rounds_text, search_rounds


@pytest.fixture
def brief(small: SearchConfig) -> SearchConfig:
    """With fine-tuning."""
    return replace(small, agent="hill", warmup=0, episodes=3, images=50, baselines="uniform", finetune_epochs=1)


def test_rounds_prune_what_the_last_one_fine_tuned(
    tmp_path: Path, brief: SearchConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(brief, rounds=2)
    result = search_rounds(config, tmp_path / "run", Console(quiet=True))
    first, second = result.rounds
    report = result.report
    # Half of the time in two equal steps.
    assert second.target_ms == report.target_ms == report.original_ms / 2
    assert first.target_ms == pytest.approx(report.original_ms / 2**0.5)
    assert first.met
    assert second.met
    check_met(report)

    original, _, ours = report.rows
    before = json.loads((tmp_path / "run/round-1/report.json").read_text())["rows"]
    assert original.counts == tuple(before[0]["counts"])
    assert (original.accuracy, original.measured_ms) == (before[0]["accuracy"], before[0]["measured_ms"])
    assert original.macs == before[0]["macs"] > before[2]["macs"] > ours.macs
    assert original.held_back == before[0]["held_back"]
    left = tuple(before[2]["counts"])
    assert all(count <= most for count, most in zip(ours.counts, left, strict=True))
    assert load_checkpoint(tmp_path / "run/round-2/model.safetensors")[1].channels == ours.counts

    rounds_text(result)
    printed = capsys.readouterr().out
    assert all(f"{ms:.4f}" in printed for ms in (first.target_ms, first.measured_ms, second.measured_ms))
    # A finished one is only read, also where it was moved to.
    shutil.move(tmp_path / "run", tmp_path / "moved")
    again = search_rounds(config, tmp_path / "moved", Console(quiet=True))
    assert again.report.rows[2].counts == ours.counts
    assert [row["folder"] for row in json.loads((tmp_path / "moved/rounds.json").read_text())] == ["round-1", "round-2"]


def test_the_last_target_is_refused_before_the_first_round(tmp_path: Path, brief: SearchConfig) -> None:
    config = replace(brief, speedup=None, target_params=100, rounds=3)
    with pytest.raises(UserError, match="a budget of 100 parameters is out of reach"):
        search_rounds(config, tmp_path / "run", Console(quiet=True))
    assert not (tmp_path / "run").exists()


def test_pruned_weights_are_zeros_in_the_file_and_hold_its_budgets(
    tmp_path: Path, brief: SearchConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    budgets = {"target_params": 25_000, "target_bytes": 100_000}
    # By few steps: 32 an epoch move the packed size of so small a network by more than is allowed for.
    sparse = replace(brief, speedup=None, prune="weights", finetune_epochs=3, epoch_steps=1, **budgets)
    report = search(sparse, tmp_path / "run", Console(quiet=True))
    check_met(report)
    original, uniform, ours = report.rows
    content = Path(ours.tflite).read_bytes()
    assert [(row.name, row.limit) for row in report.budgets] == [("parameters", 25_000), ("bytes zipped", 100_000)]
    assert report.budgets[1].actual == report.zipped_bytes[2] == len(zlib.compress(content, 9)) <= 100_000
    # One of the two is nearly spent: a choice more of the smallest layers would still fit.
    assert max(row.actual / row.limit for row in report.budgets) > 0.95

    # No channel has gone, and fine-tuning has filled no zero.
    model, spec, _ = load_checkpoint(tmp_path / "run/model.safetensors")
    network = load_network(brief.network)
    assert spec == network.spec
    names = weight_layers(model, network.graph)
    kept = [int(model.get_parameter(f"{name}.weight").count_nonzero()) for name in names]
    assert kept == list(ours.counts)
    assert (model.state_dict()[f"{names[0]}.weight"] != network.model.state_dict()[f"{names[0]}.weight"]).any()
    weights, biases = weights_and_biases(content)
    assert sum(np.count_nonzero(weight) for weight in weights) == sum(kept)
    assert report.budgets[0].actual == sum(kept) + sum(bias.size for bias in biases) <= 25_000

    # Zeros take a runtime as long as anything else.
    assert ours.macs == original.macs == uniform.macs
    assert ours.predicted_ms == pytest.approx(original.predicted_ms, rel=1e-6)
    search_text(report)
    printed = capsys.readouterr().out
    assert f"zipped: original {report.zipped_bytes[0] / 1000:,.0f} kB" in printed
    assert f"weights kept: {kept[0]}," in printed


class ByContent(Device):
    """Times each file by what is in it, as no table can."""

    def __init__(self, lut: Path) -> None:
        self.identity = LatencyTable.open(lut).identity

    def time_round(self, workloads: Sequence[Workload], protocol: Protocol, round_index: int) -> Iterator[Timing]:
        for workload in workloads:
            us = content_us(workload.build())
            summary = Summary(us, us, us, 0.0)
            yield Timing(workload.name, round_index, 1, summary, summary)


def content_us(content: bytes) -> float:
    return 1000.0 + zlib.crc32(content) % 100_000


def test_every_file_of_pruned_weights_is_timed_itself(
    tmp_path: Path, brief: SearchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    lut = tmp_path / "table.tsv"
    lut.write_bytes(Path(brief.lut or "").read_bytes())
    monkeypatch.setattr(search_run, "open_device", lambda *_: ByContent(lut))
    sparse = replace(brief, speedup=None, prune="weights", target_params=130_000, lut=str(lut), finetune_epochs=0)
    rows = search(sparse, tmp_path / "run", Console(quiet=True)).rows
    assert len({row.measured_ms for row in rows}) == 3
    for row in rows:
        assert row.measured_ms == pytest.approx(content_us(Path(row.tflite).read_bytes()) / 1000)


def weights_and_biases(content: bytes) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Every constant float of a .tflite, by the number of its dimensions."""
    root = schema.Model.GetRootAs(content, 0)
    graph = root.Subgraphs(0)
    weights, biases = [], []
    for i in range(graph.TensorsLength()):
        tensor = graph.Tensors(i)
        data = root.Buffers(tensor.Buffer()).DataAsNumpy()
        if isinstance(data, np.ndarray) and tensor.Type() == schema.TensorType.FLOAT32:
            (weights if tensor.ShapeLength() > 1 else biases).append(data.view(np.float32))
    return weights, biases
