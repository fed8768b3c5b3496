"""Several processes at one table: one writes, and what it timed is never lost."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from amc_latency.device.base import Summary, Timing
from amc_latency.lut.table.merge import merge
from amc_latency.lut.table.table import LatencyTable, TableError, TableWriteError

from tests.lut.scripted_device import IDENTITY, PROTOCOL, key_of

KEYS = [key_of("conv", 8, 8 * n) for n in range(1, 6)]
WRITER = """
import sys
from pathlib import Path
from amc_latency.device.base import Summary, Timing
from amc_latency.lut.table.table import LatencyTable, TableError
try:
    with LatencyTable.open(Path(sys.argv[1]), writing=True) as table:
        print("open", flush=True)
        for line in sys.stdin:
            table.append(Timing(line.strip(), 0, 5, Summary(2.0, 2.0, 2.0, 0.0)))
            print("written", flush=True)
except TableError as error:
    print(type(error).__name__, error, flush=True)
"""


class Writer:
    """A process that appends a row for each key that it is given."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def append(self, key: str) -> str:
        assert self.process.stdin is not None
        print(key, file=self.process.stdin, flush=True)
        return self.says()

    def end(self) -> str:
        """Close the table; what it says then."""
        return self.process.communicate(timeout=30)[0].strip()


@contextmanager
def writer(path: Path) -> Iterator[Writer]:
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Writer(process)
        finally:
            process.kill()


def make(path: Path, *keys: str) -> Path:
    with LatencyTable.create(path, IDENTITY, PROTOCOL) as table:
        for key in keys:
            table.append(Timing(key, 0, 5, Summary(1.0, 1.0, 1.0, 0.0)))
    return path


def rescued(folder: Path) -> list[str]:
    (path,) = folder.glob("*.rescued-*.tsv")
    return LatencyTable.open(path).keys


def test_a_table_that_is_written_is_nobody_elses(tmp_path: Path) -> None:
    path = make(tmp_path / "t.tsv", KEYS[0])
    a, b = make(tmp_path / "a.tsv", KEYS[1]), make(tmp_path / "b.tsv", KEYS[2])
    with writer(path) as other:
        assert other.says() == "open"
        with pytest.raises(TableError, match="another process is writing"):
            LatencyTable.open(path, writing=True)
        with pytest.raises(TableError, match="another process is writing"):
            merge([a, b], path, force=True)
        assert LatencyTable.open(path).keys == KEYS[:1]
        assert other.append(KEYS[3]) == "written"
        assert other.end() == ""
    assert LatencyTable.open(path).keys == [KEYS[0], KEYS[3]]
    merge([a, b], path, force=True)
    assert LatencyTable.open(path).keys == KEYS[1:3]


@pytest.mark.parametrize("how", ["replaced", "removed", "moved"])
def test_a_writer_whose_file_is_gone_keeps_all_rows_and_fails(tmp_path: Path, how: str) -> None:
    path, new = make(tmp_path / "t.tsv", KEYS[0]), make(tmp_path / "new.tsv", KEYS[4])
    with writer(path) as other:
        assert other.says() == "open"
        assert other.append(KEYS[1]) == "written"
        if how == "replaced":
            os.replace(new, path)
        elif how == "removed":
            path.unlink()
        else:
            path.rename(tmp_path / "moved.tsv")
        said = other.append(KEYS[2])
    assert said.startswith("TableWriteError")
    assert f"its 3 rows, those of this run too, are in {tmp_path / 't.rescued-1.tsv'}" in said
    assert rescued(tmp_path) == KEYS[:3]
    if how == "replaced":
        assert LatencyTable.open(path).keys == [KEYS[4]]


def test_a_file_that_goes_after_the_last_row_is_noticed_at_the_end(tmp_path: Path) -> None:
    path = make(tmp_path / "t.tsv")
    with writer(path) as other:
        assert other.says() == "open"
        assert other.append(KEYS[1]) == "written"
        path.unlink()
        assert other.end().startswith("TableWriteError")
    assert rescued(tmp_path) == [KEYS[1]]


def test_a_table_that_was_replaced_after_it_was_read_is_not_written(tmp_path: Path) -> None:
    path, new = make(tmp_path / "t.tsv", KEYS[0]), make(tmp_path / "new.tsv", KEYS[4])
    table = LatencyTable.open(path)
    os.replace(new, path)
    with pytest.raises(TableWriteError, match="another file than the one that was read"):
        table.append(Timing(KEYS[1], 0, 5, Summary(2.0, 2.0, 2.0, 0.0)))
    assert LatencyTable.open(path).keys == [KEYS[4]]


def test_rows_that_another_added_meanwhile_are_read_when_the_table_is_locked(tmp_path: Path) -> None:
    path = make(tmp_path / "t.tsv", KEYS[0])
    table = LatencyTable.open(path)
    with writer(path) as other:
        assert other.says() == "open"
        assert other.append(KEYS[1]) == "written"
        assert other.end() == ""
    assert table.keys == KEYS[:1]
    table.lock()
    assert table.keys == KEYS[:2]


def test_a_link_to_a_table_is_that_table(tmp_path: Path) -> None:
    path, link = make(tmp_path / "t.tsv", KEYS[0]), tmp_path / "link.tsv"
    link.symlink_to(path)
    with LatencyTable.open(link, writing=True) as table:
        table.append(Timing(KEYS[1], 0, 5, Summary(2.0, 2.0, 2.0, 0.0)))
    assert LatencyTable.open(path).keys == KEYS[:2]
    assert link.is_symlink()
