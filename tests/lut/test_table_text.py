"""A table's lines: what is written reads back, and nothing else is taken for a row, however it was damaged."""

from __future__ import annotations

import gc
import json
import math
import statistics
import zlib
from collections import defaultdict
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_device import IDENTITY, PROTOCOL, key_of

from device.base import DeviceIdentity, Protocol, Summary, Timing
from lut.table import LatencyTable, TableError
from lut.table_text import RowReader, header_lines, parse_header, row_line

KEY = key_of("conv", 8, 16)
KEYS = (KEY, key_of("depthwise", 8, 8, kernel=3, padding=1), f"{KEY} + {KEY}")
PROTOCOLS = [
    Protocol(clock=clock, statistic=statistic)
    for clock, statistic in product(("cpu", "wall"), ("min", "median", "mean"))
]
CELLS = [KEY, "0", "5", "1.00", "2.00", "3.00", "0.50", "4.00", "5.00", "6.00", "0.70", "", '{"tries": 1}']
"""One row, as the columns have it, less its checksum."""

hundredths = st.integers(0, 10**9).map(lambda n: n / 100)
summaries = st.none() | st.builds(Summary, *[st.none() | hundredths] * 4)
text = st.text(st.characters(exclude_characters="\t\n", exclude_categories=["Cs"]), max_size=20)


def line_of(cells: list[str]) -> bytes:
    """A row with a checksum that is right, whatever the cells are."""
    joined = "\t".join(cells).encode()
    return joined + f"\t{zlib.crc32(joined):08x}".encode()


def with_cell(index: int, cell: str) -> bytes:
    return line_of([*CELLS[:index], cell, *CELLS[index + 1 :]])


def is_empty(summary: Summary | None) -> bool:
    return summary in (None, Summary(None, None, None, None))


@given(
    key=st.sampled_from(KEYS),
    round_index=st.integers(0, 2**40),
    n=st.integers(0, 2**40),
    clocks=st.tuples(summaries, summaries),
    error=st.none() | st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable()),
    conditions=text,
    protocol=st.sampled_from(PROTOCOLS),
)
def test_a_row_reads_back_with_the_figure_that_counts(
    key: str,
    round_index: int,
    n: int,
    clocks: tuple[Summary | None, Summary | None],
    error: str | None,
    conditions: str,
    protocol: Protocol,
) -> None:
    cpu, wall = (None if is_empty(summary) else summary for summary in clocks)
    timing = Timing(key, round_index, n, cpu, wall, error, conditions)
    line = row_line(timing)
    if error is None and cpu is None and wall is None:
        with pytest.raises(ValueError, match="neither a timing nor an error"):
            RowReader(protocol).read(line)
        return
    row = RowReader(protocol).read(line)
    counted = cpu if protocol.clock == "cpu" else wall
    figure = {"min": "min_us", "median": "median_us", "mean": "mean_us"}[protocol.statistic]
    assert row.timing == timing
    assert (row.key, row.round) == (key, round_index)
    assert row.counted_us == (None if error or counted is None else getattr(counted, figure))


@given(at=st.integers(0, len(line_of(CELLS)) - 1), byte=st.integers(0, 255))
def test_no_byte_of_a_row_can_change_unnoticed(at: int, byte: int) -> None:
    line = bytearray(line_of(CELLS))
    if line[at] == byte:
        return
    line[at] = byte
    with pytest.raises(ValueError, match=r"checksum|decode"):
        RowReader(PROTOCOL).read(bytes(line))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        *((with_cell(column, bad), "a time is negative or no number")
          for column in range(3, 11) for bad in ("nan", "-1.00", "inf", "1e999")),
        (with_cell(3, "fast"), "could not convert string to float: 'fast'"),
        (with_cell(1, "-1"), "cannot be negative"),
        (with_cell(2, "-1"), "cannot be negative"),
        (with_cell(1, "1.5"), "invalid literal"),
        (with_cell(0, "conv 8x8"), "'conv 8x8' is not a layer shape"),
        (with_cell(0, KEY.replace(">16", ">0")), "must be positive"),
        (with_cell(0, f"{KEY} + "), "'' is not a layer shape"),
        (line_of([*CELLS[:3], *[""] * 8, "", ""]), "neither a timing nor an error"),
        (line_of(CELLS[:-1]), "it has 13 cells, not 14"),
        (line_of([*CELLS, "more"]), "it has 15 cells, not 14"),
        (line_of(CELLS) + b"\r", "does not match its checksum"),
        (line_of(CELLS).upper(), "does not match its checksum"),
        (line_of(CELLS)[:-1], "does not match its checksum"),
        (line_of(CELLS)[:-9], "does not match its checksum"),
        (with_cell(12, "caf\xe9").replace("\xe9".encode(), b"\xe9"), "can't decode byte 0xe9"),
        (b"", "does not match its checksum"),
    ],
)  # fmt: skip
def test_each_damage_is_named_with_its_line_among_good_rows(tmp_path: Path, line: bytes, reason: str) -> None:
    path = tmp_path / "t.tsv"
    rows = [row_line(Timing(key, 0, 5, Summary(1.0, 2.0, 3.0, 0.5))) for key in KEYS]
    header = [text.encode() for text in header_lines(IDENTITY, PROTOCOL)]
    path.write_bytes(b"\n".join([*header, *rows, line, *rows]) + b"\n")
    with pytest.raises(TableError, match=rf"t\.tsv, line {len(header) + 4}: damaged row '") as caught:
        LatencyTable.open(path)
    assert reason in str(caught.value)
    assert gc.isenabled()
    path.write_bytes(b"\n".join([*header, *rows, line]))  # the same as a last line that was torn
    assert [row.workload for row in LatencyTable.open(path).rows] == list(KEYS)


@pytest.mark.parametrize(
    ("column", "cell", "us"), [(3, "1e2", 100.0), (3, "7", 7.0), (3, "0.125", 0.125), (3, "+2.5", 2.5), (1, "+0", 1.0)]
)
def test_numbers_in_another_notation_count_as_much(column: int, cell: str, us: float) -> None:
    row = RowReader(PROTOCOL).read(with_cell(column, cell))
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


SHIPPED = sorted((Path(__file__).resolve().parents[2] / "lut" / "tables").glob("*.tsv"))


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
