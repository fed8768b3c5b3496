"""A table in several precisions: what is timed, that it resumes, and that mixed networks are predicted by it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from amc_latency.device.base import Protocol, Timing, Workload
from amc_latency.lut.building.build import BuildReport, NetworkWorkload, Plan, build_table
from amc_latency.lut.building.plan import reachable_shapes, uniform_counts
from amc_latency.lut.prediction.predict import Predictor, missing_shapes
from amc_latency.lut.shapes.mixed import MixedArchitecture, mixed_shapes
from amc_latency.lut.shapes.precisions import precisions_of
from amc_latency.lut.shapes.shape import NetworkShape, network_text, parse_shape
from amc_latency.lut.table.table import LatencyTable

from tests.lut.scripted_device import IDENTITY, PROTOCOL, ScriptedDevice, all_choices, latency_us, small_architecture

ARCHITECTURE = small_architecture((64, 128, 256))
CHOICES = all_choices(ARCHITECTURE)
MIXED = MixedArchitecture(
    ARCHITECTURE, [precisions_of(layer.shape, ("int8", "float32")) for layer in ARCHITECTURE.layers]
)
VALUES = MIXED.choices(CHOICES)
FLOAT, INT8 = (tuple(each[place] for each in MIXED.allowed) for place in (-1, 0))


def networks(n: int, seed: int) -> list[NetworkShape]:
    """Random widths and precisions."""
    rng = random.Random(seed)
    found = []
    for _ in range(n):
        counts = [rng.choice(choices) for choices in CHOICES]
        found.append(mixed_shapes(ARCHITECTURE, [rng.choice(each) for each in MIXED.allowed], counts))
    return found


def uniform(precisions: Sequence[str]) -> list[NetworkShape]:
    counts = [uniform_counts(ARCHITECTURE, CHOICES, width) for width in (1, 0.7, 0.4)]
    return [mixed_shapes(ARCHITECTURE, precisions, each) for each in counts]


def build(path: Path, device: ScriptedDevice, plan: Plan, mixed: bool = True) -> tuple[LatencyTable, BuildReport]:
    table = LatencyTable.open_or_create(path, IDENTITY, PROTOCOL)
    searched, choices = (MIXED, VALUES) if mixed else (ARCHITECTURE, CHOICES)
    timed = uniform(FLOAT) + (uniform(INT8) + networks(4, 1) if mixed else [])
    whole = [NetworkWorkload(shapes, bytes) for shapes in timed]
    return table, build_table(device, table, searched, choices, whole, plan=plan)


@pytest.mark.parametrize("kind", ["learn", "grid"])
def test_networks_of_several_precisions_are_predicted(kind: str, tmp_path: Path) -> None:
    table, report = build(tmp_path / "t.tsv", ScriptedDevice(), Plan(kind, 0.01))  # type: ignore[arg-type]
    assert report.errors == {}
    assert missing_shapes(table, reachable_shapes(MIXED, VALUES)) == []
    predictor = Predictor(table)
    for network in networks(10, 2):
        assert predictor.calibration(network).networks == len(uniform(FLOAT) + uniform(INT8)) + 4
        assert 1000 * predictor.ms(network) == pytest.approx(latency_us(network_text(network)), rel=0.05)


def test_each_precision_has_steps_of_its_own(tmp_path: Path) -> None:
    table, _ = build(tmp_path / "t.tsv", ScriptedDevice(), Plan(goal=0.01))
    shapes = [parse_shape(key) for key in table.keys if " + " not in key]
    for precision in ("float32", "int8"):
        found = [shape for shape in shapes if (shape.kind, shape.precision) == ("conv", precision)]
        assert len({shape.c_out for shape in found if shape.h == 8}) > 7
    tensors = {(shape.kind, shape.h) for shape in shapes if "quantize" in shape.kind}
    assert tensors == {(kind, h) for kind in ("quantize", "dequantize") for h in (1, 8, 16)} | {("quantize", 32)}


class BrokenOff(ScriptedDevice):
    """Is gone after some timings."""

    left = 100

    def time_round(self, workloads: Sequence[Workload], protocol: Protocol, round_index: int) -> Iterator[Timing]:
        for timing in super().time_round(workloads, protocol, round_index):
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt
            yield timing


def test_a_build_that_broke_off_ends_in_the_same_table(tmp_path: Path) -> None:
    whole, _ = build(tmp_path / "whole.tsv", ScriptedDevice(), Plan(goal=0.01))
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "t.tsv", BrokenOff(), Plan(goal=0.01))
    table, report = build(tmp_path / "t.tsv", ScriptedDevice(), Plan(goal=0.01))
    assert {(row.workload, row.round) for row in table.rows} == {(row.workload, row.round) for row in whole.rows}
    assert report.timed == len(whole.rows) - 99


def test_a_float_table_is_extended_by_what_it_has_nothing_of(tmp_path: Path) -> None:
    table, _ = build(tmp_path / "t.tsv", ScriptedDevice(), Plan(goal=0.01), mixed=False)
    before = set(table.keys)
    device = ScriptedDevice()
    table, _ = build(tmp_path / "t.tsv", device, Plan("extend", 0.01))
    new = {name for name, _ in device.asked} - before
    assert all(key.endswith("int8") or " + " in key for key in new)
    reachable = [shape for shape in reachable_shapes(MIXED, VALUES) if shape.precision == "int8"]
    assert missing_shapes(table, reachable) == []
    assert 0 < sum(" + " not in key for key in new) < len(reachable) / 2
    # Once more there is nothing to do.
    again = ScriptedDevice()
    build(tmp_path / "t.tsv", again, Plan("extend", 0.01))
    assert again.asked == []
