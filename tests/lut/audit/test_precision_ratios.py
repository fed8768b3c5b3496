"""How long layers take in a precision against float32, from a table of arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from amc_latency.device.base import DeviceIdentity, Protocol, Summary, Timing
from amc_latency.lut.audit.precisions import precision_ratios
from amc_latency.lut.shapes.shape import NOOP
from amc_latency.lut.table.table import LatencyTable, TableError

NOOP_US = 1.0
CONV, DEPTHWISE = "conv 8x8x8>{} k1 s1 p0 relu6 {}", "depthwise {0}x8x8>{0} k3 s1 p1 none {1}"


def made(path: Path, net_us: Mapping[str, float]) -> LatencyTable:
    """A table of layers that take so long beside the fixed overhead."""
    with LatencyTable.create(path, DeviceIdentity("host", "a model", "runtime 1"), Protocol(rounds=1)) as table:
        for key, us in {NOOP.text: 0.0, **net_us}.items():
            summary = Summary(*[NOOP_US + us] * 3, 0.0)
            table.append(Timing(key, 0, 5, summary, summary))
    return table


@pytest.fixture
def table(tmp_path: Path) -> LatencyTable:
    net_us = {}
    for c in (8, 16, 24):
        net_us |= {CONV.format(c, "float32"): 2.0 * c, CONV.format(c, "int8"): 0.5 * c}
        net_us |= {DEPTHWISE.format(c, "float32"): 1.0 * c, DEPTHWISE.format(c, "int8"): 2.0 * c + (c == 16)}
    # In one precision alone: no other tells it.
    net_us |= {"linear 8x1x1>4 k1 s1 p0 none int8": 3.0, "linear 8x1x1>5 k1 s1 p0 none float32": 3.0}
    net_us |= {f"quantize {c}x5x5>{c} k1 s1 p0 none int8": 0.2 * c for c in (40, 80)}
    return made(tmp_path / "t.tsv", net_us)


def test_ratios_are_of_what_layers_take_without_the_overhead(table: LatencyTable) -> None:
    found = precision_ratios(table)
    assert [(row.kind, row.shape, row.precision, row.n) for row in found.kinds] == [
        ("conv", None, "int8", 3),
        ("depthwise", None, "int8", 3),
    ]
    conv, depthwise = found.kinds
    assert (conv.float32_us, conv.us, conv.ratio) == pytest.approx((2.0 * 48, 0.5 * 48, 0.25))
    assert (depthwise.ratio, depthwise.least, depthwise.most) == pytest.approx((97 / 48, 2.0, 33 / 16))
    # The slowest first.
    assert [row.shape for row in found.shapes] == ["depthwise *x8x8 k3 s1 p1 none", "conv *x8x8>* k1 s1 p0 relu6"]


def test_boundaries_are_by_a_thousand_values(table: LatencyTable) -> None:
    [row] = precision_ratios(table).boundaries
    assert (row.shape, row.n) == ("quantize *x5x5 k1 s1 p0 none int8", 2)
    assert row.per_thousand_us == pytest.approx(0.2 * 40 / (40 * 25 / 1000))


def test_one_kind_alone(table: LatencyTable) -> None:
    assert [row.kind for row in precision_ratios(table, "depthwise").shapes] == ["depthwise"]


def test_a_layer_between_timed_ones_is_read_off_its_staircase(tmp_path: Path) -> None:
    counts = (8, 16, 24, 32, 48, 64)
    net_us = {CONV.format(c, "float32"): 2.0 * c for c in counts} | {CONV.format(c, "int8"): 1.0 * c for c in counts}
    del net_us[CONV.format(32, "int8")]
    [row] = precision_ratios(made(tmp_path / "t.tsv", net_us)).shapes
    assert row.n == len(counts)
    assert row.ratio == pytest.approx(0.5, abs=0.05)


def test_a_table_of_one_precision_says_how_to_get_others(tmp_path: Path) -> None:
    table = made(tmp_path / "t.tsv", {CONV.format(8, "float32"): 2.0})
    with pytest.raises(
        TableError, match="no layers but in float32: `amc-latency profile` with a `precision` of float32,int8"
    ):
        precision_ratios(table)
