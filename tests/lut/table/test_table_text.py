"""A table's lines: what is written reads back, and nothing else is taken for a row, however it was damaged."""

from __future__ import annotations

import gc
import json
import math
import statistics
import zlib
from collections import defaultdict
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Literal

import pytest
from amc_latency.device.base import DeviceIdentity, Protocol, Summary, Timing
from amc_latency.lut.table.table import LatencyTable, TableError
from amc_latency.lut.table.table_text import RowReader, header_lines, parse_header, row_line
from hypothesis import given
from hypothesis import strategies as st

from tests.lut.scripted_device import IDENTITY, PROTOCOL, key_of

KEY = key_of("conv", 8, 16)
KEYS = (KEY, key_of("depthwise", 8, 8, kernel=3, padding=1), f"{KEY} + {KEY}")
PROTOCOLS = [
    Protocol(clock=clock, statistic=statistic)
    for clock, statistic in product(("cpu", "wall"), ("min", "median", "mean"))
]
CPU, WALL = ["1.00", "2.00", "3.00", "0.50"], ["4.00", "5.00", "6.00", "0.70"]
CELLS = {
    2: [KEY, "0", "5", *CPU, *WALL, "", '{"tries": 1}'],
    3: [KEY, "0", "5", *CPU, "1.10", "2.50", "2.90", *WALL, "4.10", "5.50", "5.90", "", '{"tries": 1}'],
}
"""One row by schema, as the columns have it, less its checksum."""
SCHEMAS = sorted(CELLS)

hundredths = st.integers(0, 10**9).map(lambda n: n / 100)
summaries = st.none() | st.builds(Summary, *[st.none() | hundredths] * 7)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
conditions = st.just("") | st.dictionaries(texts.map("of {}".format), texts | st.integers()).map(json.dumps)


def line_of(cells: list[str]) -> bytes:
    """A row with a checksum that is right, whatever the cells are."""
    joined = "\t".join(cells).encode()
    return joined + f"\t{zlib.crc32(joined):08x}".encode()


def with_cell(index: int, cell: str, schema: int) -> bytes:
    """The row with one cell in place of another; a negative index counts from the last, the conditions."""
    cells = list(CELLS[schema])
    cells[index] = cell
    return line_of(cells)


def kept(summary: Summary | None, schema: int) -> Summary | None:
    """What a row of that schema has cells for."""
    if summary is not None and schema == 2:
        summary = replace(summary, p10_us=None, p90_us=None, p99_us=None)
    return None if summary == Summary(None, None, None, None) else summary


@given(
    schema=st.sampled_from(SCHEMAS),
    key=st.sampled_from(KEYS),
    round_index=st.integers(0, 2**40),
    n=st.integers(0, 2**40),
    clocks=st.tuples(summaries, summaries),
    error=st.none() | st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable()),
    conditions=conditions,
    protocol=st.sampled_from(PROTOCOLS),
)
def test_a_row_reads_back_with_the_figure_that_counts(
    schema: int,
    key: str,
    round_index: int,
    n: int,
    clocks: tuple[Summary | None, Summary | None],
    error: str | None,
    conditions: str,
    protocol: Protocol,
) -> None:
    line = row_line(Timing(key, round_index, n, *clocks, error, conditions), schema)
    cpu, wall = (kept(summary, schema) for summary in clocks)
    if error is None and cpu is None and wall is None:
        with pytest.raises(ValueError, match="neither a timing nor an error"):
            RowReader(protocol, schema).read(line)
        return
    row = RowReader(protocol, schema).read(line)
    counted = cpu if protocol.clock == "cpu" else wall
    figure = {"min": "min_us", "median": "median_us", "mean": "mean_us"}[protocol.statistic]
    assert row.timing == Timing(key, round_index, n, cpu, wall, error, conditions)
    assert (row.key, row.round) == (key, round_index)
    assert row.counted_us == (None if error or counted is None else getattr(counted, figure))


@given(schema=st.sampled_from(SCHEMAS), data=st.data(), byte=st.integers(0, 255))
def test_no_byte_of_a_row_can_change_unnoticed(schema: int, data: st.DataObject, byte: int) -> None:
    line = bytearray(line_of(CELLS[schema]))
    at = data.draw(st.integers(0, len(line) - 1))
    if line[at] == byte:
        return
    line[at] = byte
    with pytest.raises(ValueError, match=r"checksum|decode"):
        RowReader(PROTOCOL, schema).read(bytes(line))


def damages(schema: int, figures: int, columns: int) -> list[tuple[int, bytes, str]]:
    """Lines that are no rows, and why, for rows with so many figures and so many columns."""
    cells, line = CELLS[schema], line_of(CELLS[schema])
    lines = [
        *((with_cell(column, bad, schema), "a time is negative or no number")
          for column in range(3, 3 + figures) for bad in ("nan", "-1.00", "inf", "1e999")),
        (with_cell(3, "fast", schema), "could not convert string to float: 'fast'"),
        (with_cell(1, "-1", schema), "cannot be negative"),
        (with_cell(2, "-1", schema), "cannot be negative"),
        (with_cell(1, "1.5", schema), "invalid literal"),
        (with_cell(0, "conv 8x8", schema), "'conv 8x8' is not a layer shape"),
        (with_cell(0, KEY.replace(">16", ">0"), schema), "must be positive"),
        (with_cell(0, f"{KEY} + ", schema), "'' is not a layer shape"),
        (line_of([*cells[:3], *[""] * figures, "", ""]), "neither a timing nor an error"),
        (line_of(cells[:-1]), f"it has {columns - 1} cells, not {columns}"),
        (line_of([*cells, "more"]), f"it has {columns + 1} cells, not {columns}"),
        (line + b"\r", "does not match its checksum"),
        (line.upper(), "does not match its checksum"),
        (line[:-1], "does not match its checksum"),
        (line[:-9], "does not match its checksum"),
        (with_cell(-1, "caf\xe9", schema).replace("\xe9".encode(), b"\xe9"), "can't decode byte 0xe9"),
        (b"", "does not match its checksum"),
    ]  # fmt: skip
    return [(schema, damaged, reason) for damaged, reason in lines]


@pytest.mark.parametrize(
    ("schema", "line", "reason"),
    [
        *damages(2, figures=8, columns=14),
        *damages(3, figures=14, columns=20),
        (2, line_of(CELLS[3]), "it has 20 cells, not 14"),
        (3, line_of(CELLS[2]), "it has 14 cells, not 20"),
    ],
)
def test_each_damage_is_named_with_its_line_among_good_rows(
    tmp_path: Path, schema: int, line: bytes, reason: str
) -> None:
    path = tmp_path / "t.tsv"
    rows = [row_line(Timing(key, 0, 5, Summary(1.0, 2.0, 3.0, 0.5)), schema) for key in KEYS]
    header = [text.encode() for text in header_lines(IDENTITY, PROTOCOL, schema)]
    path.write_bytes(b"\n".join([*header, *rows, line, *rows]) + b"\n")
    with pytest.raises(TableError, match=rf"t\.tsv, line {len(header) + 4}: damaged row '") as caught:
        LatencyTable.open(path)
    assert reason in str(caught.value)
    assert gc.isenabled()
    path.write_bytes(b"\n".join([*header, *rows, line]))  # the same as a last line that was torn
    assert [row.workload for row in LatencyTable.open(path).rows] == list(KEYS)


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize(
    ("column", "cell", "us"), [(3, "1e2", 100.0), (3, "7", 7.0), (3, "0.125", 0.125), (3, "+2.5", 2.5), (1, "+0", 1.0)]
)
def test_numbers_in_another_notation_count_as_much(schema: int, column: int, cell: str, us: float) -> None:
    row = RowReader(PROTOCOL, schema).read(with_cell(column, cell, schema))
    assert (row.key, row.round, row.counted_us) == (KEY, 0, us)
    assert row.timing.conditions == '{"tries": 1}'


def test_a_header_of_estimates_says_so(tmp_path: Path) -> None:
    estimates = DeviceIdentity("pixel1", "a\tfitted\nmodel é", "", estimated=True)
    protocol = Protocol(batch=50, precision="tf32", state="frame", clock="wall")
    lines = header_lines(estimates, protocol)
    assert lines[4] == "# figures: estimated, not measured"
    assert parse_header(tmp_path, [line.encode() for line in lines]) == (estimates, protocol)
    with pytest.raises(TableError, match="header does not match its checksum"):
        parse_header(tmp_path, [line.encode() for line in lines if "figures" not in line])
    table = LatencyTable.create(tmp_path / "t.tsv", estimates, protocol)
    table.append(Timing(KEY, 0, 1, wall=Summary(4.0, 4.0, 4.0, 0.0)))
    assert LatencyTable.open(table.path).latency_us(KEY) == 4.0


def test_a_header_from_before_batch_and_precision_has_their_defaults(tmp_path: Path) -> None:
    lines = header_lines(IDENTITY, PROTOCOL)
    values = json.loads(lines[4].removeprefix("# protocol: "))
    lines[4] = "# protocol: " + json.dumps(
        {name: values[name] for name in values if name not in ("batch", "state", "frame_mb")}
    )
    lines[5] = f"# check: {zlib.crc32(chr(10).join(lines[:5]).encode()):08x}"
    assert parse_header(tmp_path, [line.encode() for line in lines]) == (IDENTITY, PROTOCOL)


def header_of_schema_2(protocol: dict[str, object]) -> list[str]:
    """The lines as the version before schema 3 wrote them, under that protocol."""
    lines = [
        "# amc-latency latency table, schema 2",
        "# device: scripted",
        "# model: a model of arithmetic",
        "# runtime: runtime 1",
        f"# protocol: {json.dumps(protocol)}",
    ]
    names = [f"{clock}_{name}_us" for clock in ("cpu", "wall") for name in ("min", "median", "mean", "std")]
    return [
        *lines,
        f"# check: {zlib.crc32(chr(10).join(lines).encode()):08x}",
        "\t".join(["key", "round", "n", *names, "error", "conditions", "check"]),
    ]


OLD_PROTOCOL = {
    "warmup": 3, "warmup_ms": 0.0, "runs": 5, "min_time_ms": 5.0, "max_runs": 1000, "rounds": 3, "threads": 1,
    "clock": "cpu", "statistic": "min", "timeout_s": 60.0, "batch": 1, "precision": "fp32",
}  # fmt: skip


@pytest.mark.parametrize(("l2", "state"), [("warm", "hot"), ("flushed", "frame")])
def test_what_was_called_l2_is_a_state(tmp_path: Path, l2: str, state: Literal["hot", "frame"]) -> None:
    path = tmp_path / "t.tsv"
    row = line_of(CELLS[2]).decode()
    path.write_text("\n".join([*header_of_schema_2({**OLD_PROTOCOL, "l2": l2}), row]) + "\n", encoding="utf-8")
    table = LatencyTable.open(path)
    assert (table.schema, table.identity, table.protocol) == (2, IDENTITY, replace(PROTOCOL, state=state))
    (timing,) = table.rows
    assert (timing.cpu, timing.wall) == (Summary(1.0, 2.0, 3.0, 0.5), Summary(4.0, 5.0, 6.0, 0.7))


def test_an_l2_of_no_known_name_is_refused(tmp_path: Path) -> None:
    lines = header_of_schema_2({**OLD_PROTOCOL, "l2": "cold"})
    with pytest.raises(TableError, match="its protocol has l2, which this amc-latency does not know"):
        parse_header(tmp_path, [line.encode() for line in lines])


def test_a_table_of_schema_2_stays_one_and_its_copy_is_of_schema_3(tmp_path: Path) -> None:
    path, copied = tmp_path / "t.tsv", tmp_path / "copy.tsv"
    before = "\n".join([*header_of_schema_2(OLD_PROTOCOL), line_of(CELLS[2]).decode()]) + "\n"
    path.write_text(before, encoding="utf-8")
    full = Summary(1.0, 2.0, 3.0, 0.5, 1.1, 2.5, 2.9)
    with LatencyTable.open(path) as table:
        table.append(Timing(KEYS[1], 0, 5, full, full))
        table.save_as(copied)
    appended = line_of([KEYS[1], "0", "5", *CPU, *CPU, "", ""]).decode()
    assert path.read_text(encoding="utf-8") == f"{before}{appended}\n"
    again, copy = LatencyTable.open(path), LatencyTable.open(copied)
    assert (again.schema, copy.schema) == (2, 3)
    assert again.rows == copy.rows == table.rows
    assert again.rows[1].cpu == Summary(1.0, 2.0, 3.0, 0.5)
    copy.append(Timing(KEYS[2], 0, 5, full, full))
    assert LatencyTable.open(copied).rows[2].cpu == full


SHIPPED = sorted((Path(__file__).resolve().parents[3] / "lut" / "tables").glob("*.tsv"))


@pytest.mark.parametrize("path", SHIPPED or [None], ids=lambda path: path.stem if path else "none")
def test_a_shipped_table_says_what_its_text_says(path: Path | None) -> None:
    if path is None:
        pytest.skip("NO TABLE SHIPS in lut/tables/*.tsv: none is read")
    lines = path.read_text(encoding="utf-8").splitlines()
    protocol = json.loads(next(line for line in lines if line.startswith("# protocol: ")).removeprefix("# protocol: "))
    names, *rows = (line.split("\t") for line in lines if not line.startswith("# "))
    column = names.index(f"{protocol['clock']}_{protocol['statistic']}_us")
    rounds: dict[str, dict[str, float]] = defaultdict(dict)
    for row in rows:
        rounds[row[0]][row[1]] = float(row[column] or math.nan)
    over_rounds = {"min": min, "median": statistics.median, "mean": statistics.fmean}[protocol["statistic"]]
    table = LatencyTable.open(path)
    assert len(table.rows) == len(rows) > 0
    assert f"# amc-latency latency table, schema {table.schema}" == lines[0]
    assert {key: table.latency_us(key) for key in table.keys} == {
        key: over_rounds(by_round.values()) for key, by_round in rounds.items()
    }
    assert all(table.rounds_us(key) == list(by_round.values()) for key, by_round in rounds.items())


def test_two_tables_in_one_file_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    header = [text.encode() for text in header_lines(IDENTITY, PROTOCOL)]
    row = row_line(Timing(KEYS[0], 0, 5, Summary(1.0, 2.0, 3.0, 0.5)))
    path.write_bytes(b"\n".join([*header, row, *header, row]) + b"\n")
    with pytest.raises(TableError, match=rf"t\.tsv, line {len(header) + 2}: a second table begins here"):
        LatencyTable.open(path)
