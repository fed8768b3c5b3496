"""Reading a table's file without stopping at the first damaged row: what `lut check` looks at."""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from pathlib import Path

from amc_latency.android_bench.safe.files import read_bytes
from amc_latency.android_bench.safe.limits import TABLE_BYTES
from amc_latency.lut.table.headers import Header
from amc_latency.lut.table.table import TableError, no_garbage_collection
from amc_latency.lut.table.table_text import TITLE, Row, RowReader, columns, first_lines, parse_header, schema_of

JOINT = "another table begins here"
_QUOTED = 120
_MOST_DAMAGED = 10_000
"""Damaged lines that are kept; of a file with more, it is enough to know that it has them."""


@dataclass(frozen=True)
class DamagedRow:
    """A line that no table can hold, and why."""

    line: int
    reason: str
    text: str
    """its beginning"""


@dataclass(frozen=True)
class Scan:
    """All that a table's file holds, superseded rows too."""

    header: Header
    rows: list[tuple[int, Row]]
    """with the number of their line"""
    damaged: list[DamagedRow]
    torn_bytes: int
    """of a last line without its newline, which a kill leaves and the next append removes"""


def scan(path: Path) -> Scan:
    """Raises `TableError` for a file that cannot be read or has no header of this schema."""
    try:
        data = read_bytes(Path(path), TABLE_BYTES)
    except OSError as error:
        raise TableError(f"cannot read the latency table {path}: {error.strerror or error}") from error
    end = data.rfind(b"\n") + 1
    lines = first_lines(data[:end])
    header = Header(*parse_header(path, lines))
    schema = schema_of(lines)
    reader = RowReader(header.protocol, schema)
    names = "\t".join(columns(schema)).encode()
    with no_garbage_collection():
        rows, damaged = _read(reader, data[:end], lines.index(names) + 1, names)
    return Scan(header, rows, damaged, len(data) - end)


def _read(
    reader: RowReader, data: bytes, first_row: int, names: bytes
) -> tuple[list[tuple[int, Row]], list[DamagedRow]]:
    """The rows and the damaged lines after the header, which has so many lines, the last of them the column `names`."""
    rows: list[tuple[int, Row]] = []
    damaged: list[DamagedRow] = []
    for number, ended in enumerate(io.BytesIO(data), start=1):
        line = ended[:-1]
        if number <= first_row:
            continue
        if len(damaged) == _MOST_DAMAGED:
            damaged.append(
                _damaged(number, line, f"{_MOST_DAMAGED:,} lines before it are no rows: it is the last looked at")
            )
            break
        if line.startswith(TITLE.encode()):
            damaged.append(_damaged(number, line, JOINT))
        elif line.startswith(b"# ") or line == names:
            continue
        else:
            try:
                rows.append((number, reader.read(line)))
            except ValueError as error:
                damaged.append(_damaged(number, line, _reason(reader, line, str(error))))
    return rows, damaged


def _damaged(number: int, line: bytes, reason: str) -> DamagedRow:
    text = line[:_QUOTED].decode("utf-8", "replace") + ("..." if len(line) > _QUOTED else "")
    return DamagedRow(number, reason, text)


def _reason(reader: RowReader, line: bytes, reason: str) -> str:
    """What is wrong with a row; that the checksum is another hides what was damaged, so the rest is read as well."""
    text, _, check = line.rpartition(b"\t")
    right_check = f"{zlib.crc32(text):08x}".encode()
    if check == right_check:
        return f"{reason}: a row of another schema?" if " cells, " in reason else reason
    try:
        reader.read(text + b"\t" + right_check)
    except ValueError as error:
        return f"{reason}; {error}" if str(error) != reason else reason
    return reason
