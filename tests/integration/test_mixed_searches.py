"""Whole searches that decide precisions: on an exact table in which int8 is quick, but for depthwise layers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from amc_latency.device.base import Protocol, Summary, Timing, Workload
from amc_latency.lut.building.build import Plan
from amc_latency.lut.prediction.predict import Predictor
from amc_latency.lut.shapes.mixed import mixed_shapes
from amc_latency.lut.shapes.shape import NOOP, LayerShape, parse_network
from amc_latency.lut.table.table import LatencyTable
from amc_latency.lut.tflite.run import tflite_ops

from amc_latency.console import Console
from amc_latency.errors import JobError, OptionError, UserError
from amc_latency.measuring.profiling import Grid, complete_table
from amc_latency.models.load import load_network
from amc_latency.quantize.architecture import mixed_architecture
from amc_latency.search.config import SearchConfig
from benchmarks.small_search import Arithmetic
from tests.integration.searches import events, run

BOTH = ("float32", "int8")


def layer_us(shape: LayerShape) -> float:
    """Half a microsecond, and one for each 10,000 multiply-accumulates, or 40,000 in int8, or values at a boundary."""
    if shape == NOOP:
        return 0.0
    if shape.kind in ("quantize", "dequantize"):
        return 0.5 + shape.c_in * shape.h * shape.w / 10_000
    return 0.5 + shape.macs / 10_000 * (0.25 if shape.precision == "int8" else 1.0)


class Mixed(Arithmetic):
    """Adds up `layer_us`."""

    def time_round(self, workloads: Sequence[Workload], protocol: Protocol, round_index: int) -> Iterator[Timing]:
        for workload in workloads:
            us = 1.0 + sum(map(layer_us, parse_network(workload.name)))
            yield Timing(workload.name, round_index, protocol.runs, Summary(us, us, us, 0), Summary(us, us, us, 0))


@pytest.fixture(scope="module")
def both(small: SearchConfig, tmp_path_factory: pytest.TempPathFactory) -> SearchConfig:
    """As `small`, but its table knows int8."""
    lut = tmp_path_factory.mktemp("mixed") / "mixed.tsv"
    device, network = Mixed(), load_network(small.network)
    with LatencyTable.create(lut, device.identity, Protocol(rounds=2)) as table:
        complete_table(network, device, table, Grid(precisions=BOTH), Console(quiet=True), Plan("grid"))
    return replace(small, lut=str(lut), baselines="uniform", images=60, episodes=3, warmup=2)


def test_a_table_of_both_precisions_predicts_mixed_networks(both: SearchConfig) -> None:
    network = load_network(both.network)
    architecture = network.graph.architecture
    predictor = Predictor(LatencyTable.open(Path(both.lut or "")))
    for number in range(2 ** len(architecture.layers)):
        precisions = [BOTH[number >> i & 1] for i in range(len(architecture.layers))]
        shapes = mixed_shapes(architecture, precisions)
        assert predictor.ms(shapes) == pytest.approx((1.0 + sum(map(layer_us, shapes))) / 1000, rel=5e-4)


@pytest.mark.parametrize("stages", ["quantize", "joint"])
def test_a_search_decides_precisions_and_ships_them(tmp_path: Path, both: SearchConfig, stages: str) -> None:
    # All int8 is about 2.5 times as fast at full width.
    report = run(tmp_path, replace(both, stages=stages, speedup=2 if stages == "quantize" else 4))
    assert report.met
    ours = report.rows[-1]
    assert "int8" in ours.precisions
    network = load_network(both.network)
    widths = network.graph.architecture.group_channels
    shapes = mixed_architecture(network.graph, BOTH).shapes(ours.counts)
    assert ours.predicted_ms == pytest.approx((1.0 + sum(map(layer_us, shapes))) / 1000, rel=5e-4)
    operators = tflite_ops(Path(ours.tflite).read_bytes())
    assert operators["QUANTIZE"] == sum(shape.kind == "quantize" for shape in shapes)
    policy = json.loads((tmp_path / "run" / "policy.json").read_text())
    assert policy["precisions"] == dict(zip(network.graph.layer_names, ours.precisions, strict=True))
    assert (policy["channels"] == list(widths)) == (stages == "quantize")
    # It goes on where it stopped, or only reads what is there.
    assert run(tmp_path, replace(both, stages=stages, speedup=2 if stages == "quantize" else 4)) == report
    assert len(events(tmp_path / "run")) >= 3


def test_a_search_on_a_table_without_int8_is_refused_before_anything_is_judged(
    tmp_path: Path, small: SearchConfig
) -> None:
    with pytest.raises(JobError, match=r"int8' is not in the latency table .* and with a `precision` of float32,int8"):
        run(tmp_path, replace(small, stages="joint"))
    assert not (tmp_path / "run" / "events.jsonl").exists()


def test_what_does_not_go_with_precisions_is_refused(small: SearchConfig) -> None:
    for options, named in (
        ({"target_memory": 1_000_000}, "target_memory"),
        ({"damage": "taylor"}, "damage"),
        ({"rounds": 2}, "rounds"),
        ({"precision": ("int8",)}, "precision"),
        ({"precision": ("float32", "int8", "int8")}, "precision"),
    ):
        with pytest.raises(OptionError) as refused:
            replace(small, stages="joint", **options)
        assert named in refused.value.fields
    with pytest.raises(UserError, match="int4"):
        replace(small, stages="joint", precision=("float32", "int4"))
    with pytest.raises(UserError, match="stages"):
        replace(small, stages="both")
