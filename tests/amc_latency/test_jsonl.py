"""Append-only JSON lines: a torn last line is dropped, a damaged one is an error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amc_latency.errors import UserError
from amc_latency.jsonl import append_line, read_lines

ROWS = [{"episode": 0, "counts": [8, 16]}, {"episode": 1, "note": "ü\n"}]


def write(path: Path) -> bytes:
    path.unlink(missing_ok=True)
    for row in ROWS:
        append_line(path, row)
    return path.read_bytes()


def test_what_was_appended_is_read(tmp_path: Path) -> None:
    write(tmp_path / "log")
    assert read_lines(tmp_path / "log") == ROWS
    assert read_lines(tmp_path / "none") == []


def test_a_torn_last_line_is_dropped_wherever_it_was_torn(tmp_path: Path) -> None:
    path = tmp_path / "log"
    whole = write(path)
    first = whole.index(b"\n") + 1
    for end in range(first, len(whole)):
        path.write_bytes(whole[:end])
        assert read_lines(path) == ROWS[:1]
        append_line(path, ROWS[1])
        assert path.read_bytes() == whole


@given(st.binary(max_size=40).filter(lambda line: b"\n" not in line and b"\r" not in line))
def test_a_damaged_line_is_named(line: bytes) -> None:
    try:
        valid = isinstance(json.loads(line), dict)
    except ValueError:
        valid = False
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        path.write_bytes(b'{"a": 1}\n' + line + b"\n")
        if valid:
            assert len(read_lines(path)) == 2
        else:
            with pytest.raises(UserError, match="line 2"):
                read_lines(path)
