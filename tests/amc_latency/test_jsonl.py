"""Append-only JSON lines: a torn last line is dropped, a damaged one is an error."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from amc_latency.android_bench.safe.records import exactly
from hypothesis import given
from hypothesis import strategies as st

from amc_latency.errors import JobError, UserError
from amc_latency.jsonl import append_line, drop_torn_line, read_lines

Counts = tuple[int, ...]


@dataclass(frozen=True)
class Row:
    number: int
    ms: float
    note: str
    good: bool
    counts: Counts
    spread: float | None = None


ROWS = [Row(0, 0.5, "ü\n", True, (8, 16)), Row(1, 2, "", False, (), 0.25)]


def write(path: Path) -> bytes:
    path.unlink(missing_ok=True)
    for row in ROWS:
        append_line(path, row)
    return path.read_bytes()


def test_what_was_appended_is_read(tmp_path: Path) -> None:
    write(tmp_path / "log")
    assert read_lines(tmp_path / "log", Row) == ROWS
    assert read_lines(tmp_path / "none", Row) == []


def test_a_torn_last_line_is_dropped_wherever_it_was_torn(tmp_path: Path) -> None:
    path = tmp_path / "log"
    whole = write(path)
    first = whole.index(b"\n") + 1
    for end in range(first, len(whole)):
        path.write_bytes(whole[:end])
        assert read_lines(path, Row) == ROWS[:1]
        assert path.read_bytes() == whole[:end], "who reads changes nothing"
        drop_torn_line(path)
        append_line(path, ROWS[1])
        assert path.read_bytes() == whole


@given(st.binary(max_size=40).filter(lambda line: b"\n" not in line and b"\r" not in line))
def test_a_damaged_line_is_named(line: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        append_line(path, ROWS[0])
        with path.open("ab") as file:
            file.write(line + b"\n")
        with pytest.raises(UserError, match="line 2 is damaged"):
            read_lines(path, Row)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("number", None),
        ("number", 1.5),
        ("number", True),
        ("ms", "0.5"),
        ("ms", float("nan")),
        ("note", 3),
        ("good", 1),
        ("counts", 8),
        ("counts", [8, "16"]),
        ("spread", "x"),
    ],
)
def test_a_field_of_another_type_is_named(name: str, value: Any) -> None:
    row = json.loads(json.dumps(asdict(ROWS[1])))
    assert exactly(row, Row) == ROWS[1]
    assert exactly({**row, "spread": None}, Row).spread is None
    with pytest.raises(ValueError, match=rf"`\$\.{name}(\[\d\])?`"):
        exactly({**row, name: value}, Row)


def test_fields_too_many_or_too_few_are_named() -> None:
    row = asdict(ROWS[0])
    with pytest.raises(ValueError, match="more"):
        exactly({**row, "more": 1}, Row)
    del row["ms"]
    with pytest.raises(ValueError, match="ms"):
        exactly(row, Row)
    with pytest.raises(ValueError, match="no object"):
        exactly([], Row)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("content", [None, b"no line end", b"{}\n", b"whole\ntorn"])
def test_a_link_is_neither_cut_nor_added_to(tmp_path: Path, content: bytes | None) -> None:
    elsewhere = tmp_path / "elsewhere"
    if content is not None:
        elsewhere.write_bytes(content)
    link = tmp_path / "log"
    link.symlink_to(elsewhere)
    for use in (drop_torn_line, lambda path: read_lines(path, Row)):
        with pytest.raises(UserError, match="log is a link"):
            use(link)
    with pytest.raises(JobError, match="cannot write"):
        append_line(link, ROWS[0])
    assert (elsewhere.read_bytes() if elsewhere.exists() else None) == content


@pytest.mark.timeout(20)
def test_what_came_in_place_of_a_log_is_not_written_to(tmp_path: Path) -> None:
    path = tmp_path / "log"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(JobError, match="is no regular file"):
        append_line(path, ROWS[0])
    os.close(reader)
    with pytest.raises(JobError, match="cannot write"):  # and without a reader it is not waited for
        append_line(path, ROWS[0])
