"""Merging tables: whose rows win, what does not mix, and what a forced merge leaves to be seen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from amc_latency.device.base import DeviceIdentity, Protocol, Summary, Timing
from amc_latency.lut.audit.check import check
from amc_latency.lut.table.headers import (
    Header,
    differences,
    foreign_rows,
    foreign_text,
    holds_estimates,
    marked,
    origin,
)
from amc_latency.lut.table.merge import merge
from amc_latency.lut.table.table import LatencyTable, TableError
from amc_latency.lut.table.table_text import header_lines
from hypothesis import given
from hypothesis import strategies as st

from tests.lut.scripted_device import IDENTITY, PROTOCOL, key_of

A, B, C = (key_of("conv", 8, c_out) for c_out in (8, 16, 24))


def timing(key: str, us: float, index: int = 0, conditions: str = "") -> Timing:
    return Timing(key, index, 5, Summary(us, us, us, 0.0), None, conditions=conditions)


def made(path: Path, *rows: Timing, identity: DeviceIdentity = IDENTITY, protocol: Protocol = PROTOCOL) -> Path:
    with LatencyTable.create(path, identity, protocol) as table:
        for row in rows:
            table.append(row)
    return path


def test_rows_of_the_first_table_win_and_contradictions_are_counted(tmp_path: Path) -> None:
    first = made(tmp_path / "a", timing(A, 10.0), timing(B, 20.0), Timing(C, 0, error="gone"))
    second = made(tmp_path / "b", timing(A, 10.0), timing(B, 30.0), timing(C, 40.0), timing(A, 11.0, 1))
    third = made(tmp_path / "c", timing(A, 5.0), timing(C, 41.0, 0))
    before = [path.read_bytes() for path in (first, second, third)]
    report = merge([first, second, third], tmp_path / "out")
    assert [(one.added, one.alike, one.contradictions, one.unlike) for one in report.merged] == [
        (2, 1, 1, {}),
        (0, 0, 2, {}),
    ]
    assert report.worst is not None
    assert (report.worst.key, report.worst.kept_us, report.worst.dropped_us) == (A, 10.0, 5.0)
    merged = LatencyTable.open(tmp_path / "out", IDENTITY, PROTOCOL)
    assert {(row.workload, row.round): row.latency_us(PROTOCOL) for row in merged.rows} == {
        (A, 0): 10.0,
        (B, 0): 20.0,
        (C, 0): 40.0,
        (A, 1): 11.0,
    }
    assert report.rows == 4
    assert [path.read_bytes() for path in (first, second, third)] == before


def test_tables_of_two_schemas_merge_into_one_of_the_latest(tmp_path: Path) -> None:
    full = Summary(1.0, 2.0, 3.0, 0.5, 1.1, 2.5, 2.9)
    old = tmp_path / "old"
    old.write_text("\n".join(header_lines(IDENTITY, PROTOCOL, 2)) + "\n", encoding="utf-8")
    with LatencyTable.open(old) as table:
        table.append(Timing(A, 0, 5, full, full))
    new = made(tmp_path / "new", Timing(B, 0, 5, full, full))
    for paths in ([old, new], [new, old]):
        merge(paths, tmp_path / "out", force=True)
        merged = LatencyTable.open(tmp_path / "out")
        rows = {row.workload: row for row in merged.rows}
        assert merged.schema == 3
        assert rows[B].cpu == full
        assert rows[A].cpu == replace(full, p10_us=None, p90_us=None, p99_us=None)


@pytest.mark.parametrize(
    ("identity", "protocol", "said"),
    [
        ({"name": "pixel1"}, {}, "device 'scripted' and 'pixel1'"),
        ({"model": "other"}, {}, "model 'a model of arithmetic' and 'other'"),
        ({"runtime": "runtime 2"}, {}, "runtime 'runtime 1' and 'runtime 2'"),
        ({"estimated": True}, {}, "estimated 'False' and 'True'"),
        ({}, {"threads": 4, "clock": "wall"}, "threads '1' and '4'; clock 'cpu' and 'wall'"),
        ({}, {"statistic": "median"}, "statistic 'min' and 'median'"),
    ],
)
def test_headers_that_differ_do_not_mix_unless_forced(
    tmp_path: Path, identity: dict, protocol: dict, said: str
) -> None:
    first = made(tmp_path / "a", timing(A, 10.0))
    other, way = replace(IDENTITY, **identity), replace(PROTOCOL, **protocol)
    second = made(tmp_path / "b", timing(A, 12.0), timing(B, 20.0), identity=other, protocol=way)
    with pytest.raises(TableError, match=f"don't mix: {said}. `force`"):
        merge([first, second], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    report = merge([first, second], tmp_path / "out", force=True)
    assert list(report.merged[0].unlike) == [{"name": "device"}.get(name, name) for name in (*identity, *protocol)]
    merged = LatencyTable.open(tmp_path / "out", IDENTITY, PROTOCOL)
    assert foreign_rows(merged) == {Header(other, way): 1}
    assert merged.latency_us(A) == 10.0
    assert said in str(foreign_text(merged))
    assert holds_estimates(merged) is bool(identity.get("estimated"))
    finding = next(one for one in check(tmp_path / "out").findings if one.what == "rows of another header")
    assert (finding.severity, finding.count, finding.worst) == ("warning", 1, said)


def test_where_a_row_came_from_survives_a_second_merge_and_ends_at_home(tmp_path: Path) -> None:
    pixel = replace(IDENTITY, name="pixel1")
    host = made(tmp_path / "a", timing(A, 10.0))
    phone = made(tmp_path / "b", timing(B, 20.0, conditions='{"serial": "X"}'), identity=pixel)
    merge([host, phone], tmp_path / "ab", force=True)
    third = made(tmp_path / "c", timing(C, 30.0), identity=replace(IDENTITY, name="third"))
    merge([third, tmp_path / "ab"], tmp_path / "cab", force=True)
    names = {
        row.workload: None if (header := origin(row)) is None else header.identity.name
        for row in LatencyTable.open(tmp_path / "cab").rows
    }
    assert names == {C: None, A: "scripted", B: "pixel1"}
    merge([phone, tmp_path / "ab"], tmp_path / "bab", force=True)
    # The phone's own row is under its own header again; the other came from the host.
    assert sum(foreign_rows(LatencyTable.open(tmp_path / "bab")).values()) == 1
    row = LatencyTable.open(tmp_path / "ab").timing(B, 0)
    assert row is not None
    assert json.loads(row.conditions)["serial"] == "X"


def test_rows_without_the_figure_that_counts_are_kept_and_told(tmp_path: Path) -> None:
    first = made(tmp_path / "a", timing(A, 10.0))
    wall = Timing(B, 0, 5, None, Summary(None, None, 20.0, None))
    second = made(tmp_path / "b", wall, protocol=replace(PROTOCOL, clock="wall", statistic="mean"))
    report = merge([first, second], tmp_path / "out", force=True)
    assert (report.merged[0].added, report.merged[0].unusable) == (1, 1)
    merged = LatencyTable.open(tmp_path / "out")
    assert merged.latency_us(B) is None
    assert merged.timing(B, 0).wall == wall.wall


def test_the_output_is_no_input_and_is_replaced_only_by_force(tmp_path: Path) -> None:
    first, second = made(tmp_path / "a", timing(A, 10.0)), made(tmp_path / "b", timing(B, 20.0))
    out = made(tmp_path / "out", timing(C, 30.0))
    (tmp_path / "link").symlink_to(first)
    for path in (first, second, tmp_path / "link"):
        with pytest.raises(TableError, match="is one of the tables to merge"):
            merge([first, second], path, force=True)
    with pytest.raises(TableError, match="exists already"):
        merge([first, second], out)
    assert LatencyTable.open(out).keys == [C]
    merge([first, second], out, force=True)
    assert LatencyTable.open(out).keys == [A, B]
    with pytest.raises(TableError, match="at least two"):
        merge([first], tmp_path / "one")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "link", "out"]


@given(
    st.builds(DeviceIdentity, st.text(), st.text(), st.text(), st.booleans()),
    st.builds(
        Protocol, rounds=st.integers(1, 9), timeout_s=st.floats(0.1, 99), statistic=st.sampled_from(["min", "mean"])
    ),
    st.sampled_from(["", '{"serial": "X"}']),
)
def test_a_marked_row_tells_the_whole_header(identity: DeviceIdentity, protocol: Protocol, conditions: str) -> None:
    header = Header(identity, protocol)
    row = marked(timing(A, 1.0, conditions=conditions), header)
    assert origin(row) == header
    assert origin(timing(A, 1.0, conditions=conditions)) is None
    assert marked(row, Header(IDENTITY, PROTOCOL)) == row
    assert not set("\t\n") & set(row.conditions)
    assert differences(header, header) == {}
