"""The table's file: what goes in comes out, and damage is an error or nothing at all."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from amc_latency.device.base import DeviceIdentity, Protocol, Summary, Timing
from amc_latency.lut.table.table import LatencyTable, TableError
from amc_latency.lut.table.table_text import header_lines
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.lut.scripted_device import IDENTITY, PROTOCOL, built, key_of

KEY = key_of("conv", 8, 16)
OTHER = key_of("depthwise", 8, 8, kernel=3, padding=1)


def timing(key: str = KEY, round_index: int = 0, us: float = 100.0) -> Timing:
    summary = Summary(us, us + 1, us + 2, 0.5, p90_us=us * 1.5)
    return Timing(key, round_index, 5, summary, summary)


@pytest.fixture
def table(tmp_path: Path) -> LatencyTable:
    return LatencyTable.create(tmp_path / "table.tsv", IDENTITY, PROTOCOL)


def test_a_table_reads_back_as_it_was_written(table: LatencyTable) -> None:
    cpu = Summary(12.34, 13.0, 13.25, 0.07)
    rows = [
        Timing(KEY, 0, 10, cpu, Summary(20.0, 21.0, 22.0, 1.0)),
        Timing(f"{KEY} + {OTHER}", 2, 10, cpu, None),
        Timing(OTHER, 1, error="a\ttab, a\nline, a \\ and an é"),
    ]
    for row in rows:
        table.append(row)
    again = LatencyTable.open(table.path, IDENTITY, PROTOCOL)
    assert again.rows == table.rows == rows
    assert again.identity == IDENTITY
    assert again.protocol == PROTOCOL
    assert again.errors == {OTHER: "a\ttab, a\nline, a \\ and an é"}


def test_the_file_is_text_with_a_line_a_row(table: LatencyTable) -> None:
    table.append(timing())
    lines = table.path.read_text().splitlines()
    assert lines[0] == "# amc-latency latency table, schema 3"
    assert lines[1:4] == ["# device: scripted", "# model: a model of arithmetic", "# runtime: runtime 1"]
    assert lines[6].split("\t")[:5] == ["key", "round", "n", "cpu_min_us", "cpu_median_us"]
    assert lines[6].split("\t")[5:10] == ["cpu_mean_us", "cpu_std_us", "cpu_p10_us", "cpu_p90_us", "cpu_p99_us"]
    assert lines[7].split("\t")[:10] == [KEY, "0", "5", "100.00", "101.00", "102.00", "0.50", "", "150.00", ""]
    assert len(lines) == 8


def test_hundredths_of_a_microsecond_are_what_is_kept_before_and_after_reading(table: LatencyTable) -> None:
    table.append(timing(us=1 / 3))
    assert table.latency_us(KEY) == 0.33
    assert LatencyTable.open(table.path).latency_us(KEY) == 0.33


@pytest.mark.parametrize(
    ("clock", "statistic", "expected"),
    [("cpu", "min", 1.0), ("cpu", "median", 4.0), ("wall", "min", 10.0), ("wall", "median", 40.0)],
)
def test_the_latency_is_the_protocols_figure_over_all_rounds(
    tmp_path: Path, clock: str, statistic: str, expected: float
) -> None:
    protocol = Protocol(clock=clock, statistic=statistic)  # type: ignore[arg-type]
    table = LatencyTable.create(tmp_path / "t.tsv", IDENTITY, protocol)
    for index, us in enumerate((1.0, 3.0, 9.0)):
        wall = Summary(10 * us, 10 * us + 10, 0, 0)
        table.append(Timing(KEY, index, 5, Summary(us, us + 1, us + 2, 0), wall))
    assert table.latency_us(KEY) == expected
    assert table.latency_us(OTHER) is None


def test_rounds_beside_a_neighbour_are_left_out_where_there_are_others(table: LatencyTable) -> None:
    for index, (us, conditions) in enumerate([(100.0, ""), (60.0, '{"busy": true}'), (104.0, '{"sentinel_us": 9}')]):
        table.append(replace(timing(KEY, index, us), conditions=conditions))
        table.append(replace(timing(OTHER, index, us), conditions=conditions if index else '{"busy": true}'))
    for found in (table, LatencyTable.open(table.path)):
        assert found.rounds_us(KEY) == [100.0, 104.0]
        assert found.rounds_us(OTHER) == [100.0, 60.0, 104.0]
        assert found.has(KEY, 1)


def test_the_latest_row_of_a_round_counts_and_an_error_is_not_measured(table: LatencyTable) -> None:
    table.append(Timing(KEY, 0, error="gone"))
    assert not table.has(KEY, 0)
    assert table.latency_us(KEY) is None
    assert table.errors == {KEY: "gone"}
    table.append(timing())
    for each in (table, LatencyTable.open(table.path)):
        assert each.has(KEY, 0)
        assert each.errors == {}
        assert len(each.rows) == 1


def test_missing_lists_keys_without_all_rounds(table: LatencyTable) -> None:
    for index in range(2):
        table.append(timing(round_index=index))
    assert table.missing([OTHER, KEY]) == [OTHER, KEY]
    assert table.missing([OTHER, KEY], rounds=2) == [OTHER]


def test_a_torn_last_row_is_ignored_on_reading_and_dropped_on_appending(table: LatencyTable) -> None:
    table.append(timing())
    table.append(timing(OTHER))
    table.close()
    whole = table.path.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for cut in range(last, len(whole)):
        table.path.write_bytes(whole[:cut])
        again = LatencyTable.open(table.path)
        assert [row.workload for row in again.rows] == [KEY]
        again.append(timing(OTHER))
        again.close()
        assert table.path.read_bytes() == whole


def test_a_damaged_row_is_named_with_its_line_and_quoted(table: LatencyTable) -> None:
    for key in (KEY, OTHER):
        table.append(timing(key))
    lines = table.path.read_text().splitlines()
    lines[7] = lines[7].replace("100.00", "10.00")
    table.path.write_text("\n".join(lines) + "\n")
    with pytest.raises(TableError, match=r"table\.tsv, line 8: damaged row 'conv 8x8x8>16.*profile again"):
        LatencyTable.open(table.path)


@pytest.mark.parametrize(
    ("replacement", "message"),
    [
        (("schema 3", "schema 4"), "has table schema '4', this is '3': a newer amc-latency wrote it"),
        (("schema 3", "schema 1"), "has table schema '1', this is '3': name another `table`"),
        (("schema 3", "schema 2"), "header does not match its checksum"),
        (("# amc", "amc"), "is not a latency table"),
        (("# runtime", "# run"), "line 4: expected '# runtime:'"),
        (("scripted", "phone"), "header does not match its checksum"),
        (("key\tround", "key\tlap"), "line 7: the column names"),
    ],
)
def test_a_damaged_header_is_refused(table: LatencyTable, replacement: tuple[str, str], message: str) -> None:
    table.append(timing())
    table.path.write_text(table.path.read_text().replace(*replacement, 1))
    with pytest.raises(TableError, match=message):
        LatencyTable.open(table.path)


HEADS = [f"# amc-latency latency table, schema {schema}\n".encode() for schema in (2, 3)]


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe\x00", *HEADS])
def test_what_is_no_table_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.tsv").write_bytes(content)
    with pytest.raises(TableError, match=r"t\.tsv"):
        LatencyTable.open(tmp_path / "t.tsv")


def test_no_file_and_a_folder_are_table_errors(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"there is no latency table .*amc-latency profile"):
        LatencyTable.open(tmp_path / "none.tsv")
    with pytest.raises(TableError, match="cannot read"):
        LatencyTable.open(tmp_path)


@pytest.mark.parametrize(
    ("identity", "protocol", "message"),
    [
        (replace(IDENTITY, name="b"), None, "device name 'scripted', this is 'b'"),
        (replace(IDENTITY, model="b"), None, "device model 'a model of arithmetic', this is 'b'"),
        (replace(IDENTITY, runtime="b"), None, "device runtime 'runtime 1', this is 'b'"),
        (None, replace(PROTOCOL, statistic="median"), "protocol statistic 'min', this is 'median'"),
        (IDENTITY, replace(PROTOCOL, threads=2, clock="wall"), "protocol threads '1', this is '2'"),
    ],
)
def test_a_table_of_another_device_or_protocol_is_refused(
    table: LatencyTable, identity: DeviceIdentity | None, protocol: Protocol | None, message: str
) -> None:
    with pytest.raises(TableError, match=f"{message}: name another `table`, or delete this one to start anew"):
        LatencyTable.open(table.path, identity, protocol)


def test_a_table_is_not_created_twice(table: LatencyTable) -> None:
    with pytest.raises(TableError, match="exists already"):
        LatencyTable.create(table.path, IDENTITY, PROTOCOL)
    table.close()
    assert LatencyTable.open_or_create(table.path, IDENTITY, PROTOCOL).rows == []


@pytest.mark.parametrize(
    "bad",
    [
        timing(us=float("nan")),
        timing(us=-1.0),
        timing(key="no shape"),
        timing(key=f"{KEY}\n{KEY}"),
        timing(round_index=-1),
        Timing(KEY, 0, 5),
    ],
)
def test_what_could_not_be_read_back_is_not_written(table: LatencyTable, bad: Timing) -> None:
    before = table.path.read_bytes()
    with pytest.raises(TableError, match="cannot store"):
        table.append(bad)
    assert table.path.read_bytes() == before
    assert table.rows == []


def test_a_copy_holds_what_the_table_holds_now(table: LatencyTable, tmp_path: Path) -> None:
    table.append(timing())
    table.append(Timing(OTHER, 0, error="gone"))
    detached = table.detached()
    detached.append(timing(OTHER, us=5))
    detached.save_as(tmp_path / "copy.tsv")
    copy = LatencyTable.open(tmp_path / "copy.tsv", IDENTITY, PROTOCOL)
    assert copy.rows == detached.rows
    assert copy.latency_us(OTHER) == 5
    assert table.latency_us(OTHER) is None
    assert sorted(os.listdir(tmp_path)) == ["copy.tsv", "table.tsv"]


def test_a_protocol_that_says_less_than_ours_is_refused(table: LatencyTable) -> None:
    lines = table.path.read_text().split("\n")
    lines[4] = lines[4].replace('"warmup": 3, ', "")
    lines[5] = f"# check: {zlib.crc32(chr(10).join(lines[:5]).encode()):08x}"
    table.path.write_text("\n".join(lines))
    with pytest.raises(TableError, match="its protocol says nothing of warmup"):
        LatencyTable.open(table.path)


def test_a_second_writer_is_turned_away(table: LatencyTable) -> None:
    table.append(timing())
    with pytest.raises(TableError, match="another process is writing"):
        LatencyTable.open(table.path).append(timing(OTHER))
    table.close()
    LatencyTable.open(table.path).append(timing(OTHER))
    assert len(LatencyTable.open(table.path).rows) == 2


def test_a_full_disk_keeps_the_rows_before(table: LatencyTable) -> None:
    table.append(timing())
    whole = table.path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        # The file may grow by part of a row: what a disk does as it fills up.
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 20, hard))
        with pytest.raises(TableError, match=r"cannot write to the latency table .* the rows before are safe"):
            table.append(timing(OTHER))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert table.path.read_bytes() == whole
    table.append(timing(OTHER))
    assert [row.workload for row in LatencyTable.open(table.path).rows] == [KEY, OTHER]


def test_no_table_is_left_where_none_could_be_written(tmp_path: Path) -> None:
    script = (
        "import resource, sys; from pathlib import Path; from amc_latency.lut.table.table import *\n"
        "from amc_latency.device.base import *\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))\n"
        "try: LatencyTable.create(Path(sys.argv[1]), DeviceIdentity('a', 'b', 'c'), Protocol())\n"
        "except TableError as error: print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "t.tsv")], capture_output=True, text=True, check=True
    )
    assert "cannot create the latency table" in run.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_summary_counts_layers_networks_and_errors(table: LatencyTable) -> None:
    table.append(timing())
    table.append(timing(f"{KEY} + {OTHER}"))
    table.append(Timing(OTHER, 0, error="gone"))
    summary = table.summary()
    assert [summary[name] for name in ("layers", "networks", "rows", "errors")] == [1, 1, 3, 1]
    assert summary["device_name"] == "scripted"


@pytest.fixture(scope="module")
def built_paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Full tables of schema 2 and 3."""
    paths = [tmp_path_factory.mktemp("mangled") / f"table{schema}.tsv" for schema in (2, 3)]
    paths[0].write_text("\n".join(header_lines(IDENTITY, PROTOCOL, 2)) + "\n", encoding="utf-8")
    assert [built(path)[0].schema for path in paths] == [2, 3]
    return paths


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mangled_table_is_an_error_or_holds_only_true_rows(
    built_paths: list[Path], tmp_path: Path, data: st.DataObject
) -> None:
    built_path = data.draw(st.sampled_from(built_paths))
    whole = built_path.read_bytes()
    true_rows = {(row.workload, row.round): row for row in LatencyTable.open(built_path).rows}
    mangled = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(mangled) - 1))
        match data.draw(st.sampled_from(("cut", "delete", "change", "insert", "repeat"))):
            case "cut":
                del mangled[max(at, 1) :]
            case "delete":
                del mangled[at : at + data.draw(st.integers(1, 200))]
            case "change":
                mangled[at] = data.draw(st.sampled_from(b"0123456789.\t\n-e\xff#"))
            case "insert":
                mangled[at:at] = data.draw(st.binary(max_size=5))
            case "repeat":
                mangled[at:at] = mangled[at : at + data.draw(st.integers(1, 200))]
        if not mangled:
            break
    path = tmp_path / "mangled.tsv"
    path.write_bytes(mangled)
    with contextlib.suppress(TableError):
        table = LatencyTable.open(path)
        assert_true_rows(table, true_rows)


def assert_true_rows(table: LatencyTable, true_rows: dict[tuple[str, int], Timing]) -> None:
    assert (table.identity, table.protocol) == (IDENTITY, PROTOCOL)
    for row in table.rows:
        assert true_rows[row.workload, row.round] == row


def test_opening_for_reading_leaves_the_file_alone(table: LatencyTable) -> None:
    table.append(timing())
    with table.path.open("ab") as file:
        file.write(b"torn")
    before = table.path.read_bytes()
    LatencyTable.open(table.path)
    assert table.path.read_bytes() == before
    assert os.listdir(table.path.parent) == ["table.tsv"]
