"""What `lut check` finds in tables that were damaged, merged, or measured badly on purpose."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from amc_latency.device.base import Summary, Timing
from amc_latency.lut.audit.check import CheckReport, check
from amc_latency.lut.shapes.shape import NOOP, LayerShape, network_text
from amc_latency.lut.table.table import LatencyTable, TableError
from amc_latency.lut.table.table_text import header_lines
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.lut.scripted_device import IDENTITY, PROTOCOL, built, key_of

ROW = 8
"""Line of the first row: after six lines of header and the column names."""


def timing(key: str, us: float, index: int = 0, conditions: str = "", n: int = 5) -> Timing:
    summary = Summary(us, us, us, 0.0)
    return Timing(key, index, n, summary, summary, conditions=conditions)


def conv(c_in: int, c_out: int) -> str:
    return key_of("conv", c_in, c_out)


def phone(serial: str, *suspect: str) -> str:
    return json.dumps({"serial": serial, **({"suspect": suspect} if suspect else {})})


@pytest.fixture
def table(tmp_path: Path, request: pytest.FixtureRequest) -> LatencyTable:
    """Twelve layers on a staircase of 16, three equal rounds each, and the no-op: nothing wrong but no networks.

    Of the latest schema unless a parameter says which.
    """
    schema = getattr(request, "param", 3)
    (tmp_path / "t.tsv").write_text("\n".join(header_lines(IDENTITY, PROTOCOL, schema)) + "\n", encoding="utf-8")
    table = LatencyTable.open(tmp_path / "t.tsv")
    for index in range(3):
        table.append(timing(NOOP.text, 1.0, index))
        for c_out in range(8, 104, 8):
            table.append(timing(conv(8, c_out), 20.0 * -(-c_out // 16), index))
    table.close()
    return table


def found(report: CheckReport) -> dict[str, tuple[str, int]]:
    return {finding.what: (finding.severity, finding.count) for finding in report.findings}


def worst(report: CheckReport, what: str) -> str:
    return next(finding.worst for finding in report.findings if finding.what == what)


def edit(path: Path, line: int, change, right_check: bool = False) -> None:
    """Change a line of the file; its checksum stays unless it is to be right."""
    lines = path.read_bytes().split(b"\n")
    text, _, crc = lines[line - 1].rpartition(b"\t")
    changed = change(text)
    crc = f"{zlib.crc32(changed):08x}".encode() if right_check else crc
    lines[line - 1] = changed + b"\t" + crc
    path.write_bytes(b"\n".join(lines))


def test_a_sound_table_has_nothing_but_a_note_that_networks_are_lacking(table: LatencyTable) -> None:
    report = check(table.path)
    assert (report.ok, report.rows, report.damaged) == (True, 39, [])
    assert found(report) == {"not calibrated": ("note", 0)}


def test_a_whole_build_has_only_the_drift_that_its_device_was_given(tmp_path: Path) -> None:
    table, _ = built(tmp_path / "t.tsv")
    report = check(table.path)
    assert found(report) == {"drift between rounds": ("warning", 2)}
    # Rounds 0, 1, 2 take 1.05, 1 and 1.02 times as long.
    assert worst(report, "drift between rounds").startswith(f"round 1: {100 * (1 / 1.05 - 1):+.1f} %")


@pytest.mark.parametrize(("table", "cells"), [(2, 14), (3, 20)], indirect=["table"])
def test_all_damaged_rows_are_named_with_line_and_reason_and_the_rest_is_still_checked(
    table: LatencyTable, cells: int
) -> None:
    edit(table.path, ROW, lambda text: text.replace(b"1.00", b"7.00", 1))
    edit(table.path, ROW + 2, lambda text: text.replace(b"20.00", b"nan", 1))
    edit(table.path, ROW + 4, lambda text: text.replace(b"40.00", b"-40.00", 1), right_check=True)
    edit(table.path, ROW + 6, lambda text: text + b"\t9", right_check=True)
    edit(table.path, ROW + 8, lambda text: text.replace(b"conv", b"blur"), right_check=True)
    report = check(table.path)
    assert not report.ok
    assert [row.line for row in report.damaged] == [ROW, ROW + 2, ROW + 4, ROW + 6, ROW + 8]
    reasons = [row.reason for row in report.damaged]
    assert reasons[0] == "it does not match its checksum"
    assert reasons[1] == "it does not match its checksum; a time is negative or no number"
    assert reasons[2] == "a time is negative or no number"
    assert reasons[3] == f"it has {cells + 1} cells, not {cells}: a row of another schema?"
    assert "'blur' is none of conv, depthwise" in reasons[4]
    # 39 rows, of which five layers lost one of three rounds.
    assert report.rows == 39 - 5
    assert found(report)["damaged rows"] == ("error", 5)
    assert found(report)["incomplete"] == ("warning", 5)


def test_rows_at_two_reference_speeds_are_a_warning(table: LatencyTable) -> None:
    at = [json.dumps({"sentinel_us": 210.0, "reference_us": us}) for us in (200.0, 198.5)]
    for key in (NOOP.text, *(conv(8, c_out) for c_out in range(8, 104, 8))):
        for index in range(3):
            row = table.timing(key, index)
            assert row is not None
            table.append(replace(row, conditions=at[0]))
    assert "several reference speeds" not in found(check(table.path))
    for c_out in (8, 16):
        table.append(timing(conv(8, c_out), 20.0, 0, at[1]))
    table.append(timing(conv(8, 24), 40.0))
    table.append(Timing(conv(8, 104), 0, error="gone"))
    report = check(table.path)
    assert found(report)["several reference speeds"] == ("warning", 3)
    # 39 rows, of which three were timed again.
    assert worst(report, "several reference speeds") == (
        "36 rows at 200 us, 2 rows at 198.5 us, 1 rows at no reference, as the clock showed it"
    )


def test_a_torn_last_line_is_a_note(table: LatencyTable) -> None:
    whole = table.path.read_bytes()
    table.path.write_bytes(whole[:-10])
    report = check(table.path)
    assert report.ok
    assert found(report)["torn last line"] == ("note", 1)
    assert report.rows == 38


def test_a_table_of_the_future_and_a_file_that_is_none_are_errors(table: LatencyTable, tmp_path: Path) -> None:
    table.path.write_text(table.path.read_text().replace("schema 3", "schema 4", 1))
    report = check(table.path)
    assert (report.ok, report.device, found(report)) == (False, None, {"header": ("error", 1)})
    assert "'4', this is '3'" in report.findings[0].text
    (tmp_path / "notes.txt").write_text("hello\n")
    assert "not a latency table" in check(tmp_path / "notes.txt").findings[0].text
    with pytest.raises(TableError, match="no latency table"):
        check(tmp_path / "none.tsv")


def test_files_run_together_are_told_from_damaged_rows(table: LatencyTable) -> None:
    table.path.write_bytes(table.path.read_bytes() * 2)
    report = check(table.path)
    (row,) = report.damaged
    # 7 lines before the rows, 39 rows.
    assert (row.line, row.reason) == (47, "another table begins here")
    assert (found(report)["run together"], found(report)["duplicates"]) == (("error", 1), ("note", 39))
    assert "damaged rows" not in found(report)


def test_duplicates_that_contradict_are_counted_with_their_lines(table: LatencyTable) -> None:
    table.append(timing(conv(8, 8), 20.0, 1))
    table.append(timing(conv(8, 16), 22.0, 0))
    table.append(timing(conv(8, 24), 50.0, 2))
    table.append(Timing(conv(8, 32), 0, error="gone"))
    report = check(table.path)
    assert found(report)["duplicates"] == ("note", 1)
    assert found(report)["contradicting duplicates"] == ("warning", 2)
    # Round 2 is the third pass over 13 rows; its fourth row is that of 24 channels.
    assert worst(report, "contradicting duplicates").endswith(f"round 2, lines {ROW + 26 + 3}, 49: 40, 50 us")
    # The error is the latest row of its round, which then counts as not timed.
    assert found(report)["incomplete"] == ("warning", 1)


def test_a_row_far_off_its_other_rounds_is_a_warning_only_where_it_moves_the_figure(table: LatencyTable) -> None:
    table.append(timing(conv(8, 48), 90.0, 1))
    assert found(check(table.path))["rounds far off"] == ("note", 1)
    table.append(timing(conv(8, 96), 60.0, 2))
    report = check(table.path)
    assert found(report)["rounds far off"] == ("warning", 2)
    assert worst(report, "rounds far off") == f"'{conv(8, 96)}' round 2: 60 us, others 120, 120"


def test_a_layer_far_off_its_neighbours_is_found_and_a_staircase_is_not(table: LatencyTable) -> None:
    for index in range(3):
        table.append(timing(conv(8, 64), 160.0, index))
    report = check(table.path)
    # Its neighbours cost 80 and 100: 160 is 1.6 times the larger.
    assert found(report)["layers far off"] == ("warning", 1)
    assert worst(report, "layers far off") == f"'{conv(8, 64)}': 160 us, neighbours in channels 80 and 100"


@pytest.mark.parametrize(("factor", "expected"), [(1.01, None), (1.05, ("warning", 1)), (0.9, ("warning", 1))])
def test_drift_between_rounds(table: LatencyTable, factor: float, expected: tuple[str, int] | None) -> None:
    for c_out in range(8, 104, 8):
        table.append(timing(conv(8, c_out), 20.0 * -(-c_out // 16) * factor, 2))
    report = check(table.path)
    assert found(report).get("drift between rounds") == expected
    if expected:
        assert worst(report, "drift between rounds").startswith(f"round 2: {100 * (factor - 1):+.1f} % over 13")


def test_suspect_rows_are_counted_by_reason_whatever_its_figure(table: LatencyTable) -> None:
    for index, why in enumerate((["sentinel drift 8.1 %"], ["sentinel drift 9 %", "thermal status 2"])):
        table.append(timing(conv(8, 8), 20.0, index, phone("A", *why)))
    report = check(table.path)
    assert found(report)["suspect rows"] == ("warning", 2)
    text = next(finding.text for finding in report.findings if finding.what == "suspect rows")
    assert text.endswith("2 of them because of: sentinel drift .. %")
    assert worst(report, "suspect rows").endswith("round 1: sentinel drift 9 %, thermal status 2")


@pytest.mark.parametrize(("factor", "severity"), [(1.01, "note"), (1.1, "warning")])
def test_several_phones_and_how_they_differ(table: LatencyTable, factor: float, severity: str) -> None:
    for c_out in range(8, 104, 8):
        us = 20.0 * -(-c_out // 16)
        table.append(timing(conv(8, c_out), us, 0, phone("A")))
        table.append(timing(conv(8, c_out), us * factor, 1, phone("B")))
    report = check(table.path)
    assert found(report)["several devices"] == (severity, 2)
    assert worst(report, "several devices").startswith(f"B takes {factor:.3f} times as long as A")


def test_phones_with_no_layer_in_common_are_a_warning(table: LatencyTable) -> None:
    table.append(timing(conv(8, 8), 20.0, 0, phone("A")))
    table.append(timing(conv(8, 16), 20.0, 0, phone("B")))
    assert "no layer was timed by two" in worst(check(table.path), "several devices")


def test_errors_zeros_missing_no_op_and_an_empty_table(tmp_path: Path) -> None:
    table = LatencyTable.create(tmp_path / "t.tsv", IDENTITY, replace(PROTOCOL, rounds=1))
    assert found(check(table.path)) == {"empty": ("warning", 0)}
    table.append(Timing(conv(8, 8), 0, error="out of memory"))
    table.append(timing(conv(8, 16), 0.0))
    assert found(check(table.path)) == {
        "not timed": ("warning", 1),
        "no no-op": ("warning", 0),
        "zero times": ("warning", 1),
        "not calibrated": ("note", 0),
    }


def test_estimates_say_so(tmp_path: Path) -> None:
    table = LatencyTable.create(tmp_path / "t.tsv", replace(IDENTITY, estimated=True), replace(PROTOCOL, rounds=1))
    table.append(timing(conv(8, 8), 20.0))
    assert found(check(table.path)) == {"estimated": ("note", 1)}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_happens_to_the_bytes_the_check_answers(table: LatencyTable, data: st.DataObject) -> None:
    whole = table.path.read_bytes()
    try:
        place = data.draw(st.integers(0, len(whole) - 1))
        replaced = data.draw(st.binary(max_size=4))
        table.path.write_bytes(whole[:place] + replaced + whole[place + len(replaced) :])
        report = check(table.path)
        try:
            rows = len(LatencyTable.open(table.path).rows)
        except TableError:
            assert not report.ok
        else:
            assert report.ok
            assert report.rows == rows
    finally:
        table.path.write_bytes(whole)


def test_networks_need_more_rounds_than_layers(table: LatencyTable) -> None:
    network = network_text([LayerShape("conv", 8, 8, 4, 4), LayerShape("conv", 8, 16, 4, 4)])
    for index in range(table.protocol.rounds):
        table.append(timing(conv(8, 8), 20.0, index))
        table.append(timing(network, 50.0, index))
    report = check(table.path)
    assert found(report)["incomplete"] == ("warning", 1)
    assert worst(report, "incomplete").endswith(f"has {table.protocol.rounds}")
    for index in range(table.protocol.rounds, table.protocol.network_rounds):
        table.append(timing(network, 50.0, index))
    assert "incomplete" not in found(check(table.path))
