"""Staircases are found in a table, with the steps that were put in, and drawn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from amc_latency.device.base import Summary, Timing
from amc_latency.lut.audit.overview import overview
from amc_latency.lut.audit.sweep_plot import png_plot, text_plot
from amc_latency.lut.audit.sweeps import Sweep, staircases, sweeps
from amc_latency.lut.shapes.shape import LayerShape
from amc_latency.lut.table.table import LatencyTable, TableError

from tests.lut.scripted_device import IDENTITY, PROTOCOL, key_of


def timing(key: str, us: float, index: int = 0) -> Timing:
    return Timing(key, index, 5, Summary(us, us, us, 0.0))


@pytest.fixture
def table(tmp_path: Path) -> LatencyTable:
    """Pointwise on steps of 32 at two input widths, depthwise, and a linear layer with two counts only."""
    table = LatencyTable.create(tmp_path / "t.tsv", IDENTITY, replace(PROTOCOL, rounds=1))
    for c_in, most in ((16, 256), (32, 264)):
        for c_out in range(8, most + 1, 8):
            table.append(timing(key_of("conv", c_in, c_out), 5.0 * c_in * -(-c_out // 32)))
    for c in range(8, 72, 8):
        table.append(timing(key_of("depthwise", c, c, kernel=3, padding=1), 2.0 * c))
        table.append(timing(key_of("depthwise", c, c, size=4, kernel=3, padding=1), 1.0 * c))
    for c_out in (10, 20):
        table.append(timing(f"linear 64x1x1>{c_out} k1 s1 p0 none float32", 3.0))
    return table


def titles(found: list[Sweep]) -> list[str]:
    return [sweep.title for sweep in found]


def test_the_longest_of_each_kind_and_its_steps(table: LatencyTable) -> None:
    conv, depthwise = staircases(table)
    assert conv.title == "conv 32x8x8>* k1 s1 p0 none float32"
    assert (len(conv.points), conv.points[40]) == (33, 5.0 * 32 * 2)
    assert conv.step == 32
    assert conv.jumps == [32 * step + 8 for step in range(1, 9)]
    assert depthwise.title.startswith("depthwise *x")
    assert (depthwise.step, depthwise.jumps) == (None, [])


def test_a_kind_a_title_or_a_layer_can_be_asked_for(table: LatencyTable) -> None:
    assert titles(staircases(table, kind="depthwise")) == [
        "depthwise *x4x4 k3 s1 p1 none float32",
        "depthwise *x8x8 k3 s1 p1 none float32",
    ]
    narrow = "conv 16x8x8>* k1 s1 p0 none float32"
    assert titles(staircases(table, layer="conv 16x")) == [narrow]
    assert titles(staircases(table, layer=narrow)) == [narrow]
    assert titles(staircases(table, layer=key_of("conv", 16, 24))) == [narrow]
    with pytest.raises(TableError, match="no sweep over channels of linear; it has some of: conv, depthwise, such as"):
        staircases(table, kind="linear")
    with pytest.raises(TableError, match="of conv '7x7'"):
        staircases(table, kind="conv", layer="7x7")


def test_sweeps_go_over_input_channels_too_and_name_their_layers(tmp_path: Path) -> None:
    table = LatencyTable.create(tmp_path / "t.tsv", IDENTITY, PROTOCOL)
    for c_in in (8, 16, 24):
        table.append(timing(key_of("conv", c_in, 64), c_in * 1.0))
    (sweep,) = sweeps(table)
    assert (sweep.title, sweep.over) == ("conv *x8x8>64 k1 s1 p0 none float32", "input channels")
    assert sweep.at(16).text == key_of("conv", 16, 64)
    assert dict(sweep.points) == {8: 8.0, 16: 16.0, 24: 24.0}
    # No staircase over output channels, and nothing was asked for: none.
    assert staircases(table) == []


def test_layers_that_cannot_have_one_channel_have_sweeps_too(tmp_path: Path) -> None:
    table = LatencyTable.create(tmp_path / "t.tsv", IDENTITY, PROTOCOL)
    for c in (16, 32, 48, 64):
        table.append(timing(LayerShape("grouped", c, c, 8, 8, 3, 1, 1, per_group=8).text, c * 1.0))
        table.append(timing(LayerShape("shuffle", c, c, 8, 8, parts=4).text, c * 2.0))
    found = staircases(table)
    assert titles(found) == [
        "grouped *x8x8 k3 s1 p1 g8 none float32",
        "shuffle *x8x8 k1 s1 p0 n4 none float32",
    ]
    assert dict(found[0].points) == {16: 16.0, 32: 32.0, 48: 48.0, 64: 64.0}
    assert found[0].at(48) == LayerShape("grouped", 48, 48, 8, 8, 3, 1, 1, per_group=8)


def test_a_plot_in_text_fits_80_columns_and_is_plain(table: LatencyTable) -> None:
    conv, depthwise = staircases(table)
    for staircase in (conv, depthwise):
        lines = text_plot(staircase).splitlines()
        assert max(map(len, lines)) <= 80
        assert "\x1b" not in "".join(lines)
    drawn = text_plot(conv)
    assert "conv 32x8x8>* k1 s1 p0 none float32, steps of 32" in drawn
    # The y axis goes from 5*32 to 5*32*9 us, the x axis to 264; eight steps are dotted lines.
    assert "\n 160┤" in drawn
    assert "\n1440┤" in drawn
    assert drawn.splitlines()[-2].split()[0] == "8"
    assert drawn.splitlines()[-2].split()[-1] == "264"
    assert all(line.count("┊") >= 4 for line in drawn.splitlines()[2:-3])
    assert "steps" not in text_plot(depthwise)


def test_drawing_twice_gives_the_same_picture(table: LatencyTable) -> None:
    conv, depthwise = staircases(table)
    first = text_plot(conv)
    text_plot(depthwise)
    assert text_plot(conv) == first


def test_a_png_grows_with_what_is_drawn(table: LatencyTable) -> None:
    one, two = png_plot(staircases(table)[:1], "one"), png_plot(staircases(table), "two")
    assert one.startswith(b"\x89PNG\r\n\x1a\n")
    widths, heights = zip(
        *((int.from_bytes(png[16:20]), int.from_bytes(png[20:24])) for png in (one, two)), strict=True
    )
    assert widths == (800, 800)
    assert heights == (360, 680)


def test_the_overview_counts_what_is_there(table: LatencyTable) -> None:
    table.append(timing(key_of("conv", 16, 8), 5.0 * 16 * 1.1, 1))
    table.append(timing(f"{key_of('conv', 16, 8)} + {key_of('conv', 8, 8)}", 99.0))
    table.append(Timing(key_of("add", 8, 8), 0, error="gone"))
    report = overview(table)
    # 32 and 33 pointwise, 2 x 8 depthwise, two linear, one network.
    assert report.layers == {"conv": 65, "depthwise": 16, "linear": 2}
    assert (report.networks, report.errors, report.rows) == (1, 1, 65 + 16 + 2 + 3)
    assert report.rounds == {1: 83, 2: 1}
    # Half of 10 % in the one layer with two rounds.
    assert report.spread_pct == {"median": 5.0, "p90": 5.0}
    assert (report.figures, report.suspect, report.measured_by, report.foreign) == ("measured", 0, {}, 0)


@pytest.mark.parametrize("title", ["a $\\q$ b", "$", "\ud800\x1b[2J", "\n" * 100])
def test_a_title_of_anything_is_drawn(table: LatencyTable, title: str) -> None:
    assert png_plot(staircases(table)[:1], title).startswith(b"\x89PNG")
