"""The latency table: one text file per device and protocol, to which each timing is appended as it comes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from android_bench.safe.files import read_bytes, regular_file
from android_bench.safe.limits import TABLE_BYTES
from device.base import DeviceIdentity, Protocol, Timing, differences
from device.conditions import calm_of
from lut.table_text import (
    SCHEMA,
    TITLE,
    Row,
    RowReader,
    TableError,
    header_lines,
    missing_table,
    parse_header,
    row_line,
    schema_of,
)


class TableWriteError(TableError):
    """A table that the disk or its permissions don't let us write."""


class LatencyTable:
    """Timings of one device under one protocol, keyed by `LayerShape.text` or `network_text(shapes)`.

    The latest row of a (key, round) counts. A last line without its newline was torn by a kill and is
    dropped. Every row ends in a checksum, so that a damaged digit is an error and not another latency.
    """

    def __init__(self, path: Path, identity: DeviceIdentity, protocol: Protocol, schema: int = SCHEMA) -> None:
        self.path = path
        self.identity = identity
        self.protocol = protocol
        self._rows: dict[str, dict[int, Row]] = {}
        self.schema = schema
        self._reader = RowReader(protocol, schema)
        self._descriptor: int | None = None
        self._stored = True

    @classmethod
    def create(cls, path: Path, identity: DeviceIdentity, protocol: Protocol) -> Self:
        """Start an empty table. Raises `TableError` where the file exists or cannot be written."""
        path = Path(path)
        partial = path.with_name(f"{path.name}.{os.getpid()}.new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # A header is never torn: the file gets its name only when it is complete.
            partial.write_text("\n".join(header_lines(identity, protocol)) + "\n", encoding="utf-8")
            # Not a rename: of two processes that start at once, one gets the name and the other an error.
            os.link(partial, path)
        except FileExistsError as error:
            raise TableError(f"{path} exists already: open it, or name another file") from error
        except OSError as error:
            raise TableWriteError(f"cannot create the latency table {path}: {error.strerror or error}") from error
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
        return cls(path, identity, protocol)

    @classmethod
    def open(
        cls,
        path: Path,
        expect_identity: DeviceIdentity | None = None,
        expect_protocol: Protocol | None = None,
    ) -> Self:
        """Read a table. Raises `TableError` for a damaged one, and for one of another device or protocol."""
        path = Path(path)
        try:
            data = read_bytes(path, TABLE_BYTES)
        except FileNotFoundError as error:
            raise missing_table(path) from error
        except OSError as error:
            raise TableError(f"cannot read the latency table {path}: {error.strerror or error}") from error
        lines = data[: data.rfind(b"\n") + 1].split(b"\n")[:-1]
        table = cls(path, *parse_header(path, lines), schema_of(lines))
        with _no_garbage_collection():
            table._read_rows(lines, len(header_lines(table.identity, table.protocol, table.schema)))
        table.expect(expect_identity, expect_protocol)
        return table

    @classmethod
    def open_or_create(cls, path: Path, identity: DeviceIdentity, protocol: Protocol) -> Self:
        """The table at `path`, of this device and protocol, or a new one. Raises `TableError`."""
        if Path(path).exists():
            return cls.open(path, identity, protocol)
        return cls.create(path, identity, protocol)

    def expect(self, identity: DeviceIdentity | None = None, protocol: Protocol | None = None) -> None:
        """Raises `TableError`, naming the field and both values, if device or protocol are others."""
        if identity is not None and self.identity.estimated and not identity.estimated:
            raise TableError(
                f"{self.path} holds estimates ({self.identity.runtime}), not timings of a device: "
                "only `predict --lut` reads it; name another --lut"
            )
        for wanted, own in ((identity, self.identity), (protocol, self.protocol)):
            for name, (theirs, ours) in differences(own, wanted).items() if wanted is not None else ():
                whose = "device" if own is self.identity else "protocol"
                raise TableError(
                    f"{self.path} was measured with {whose} {name} '{theirs}', this is '{ours}': "
                    "name another --lut, or delete this one to start anew"
                )

    @property
    def rows(self) -> list[Timing]:
        """The timings that count: the latest of each (key, round), errors included."""
        return [row.timing for rounds in self._rows.values() for row in rounds.values()]

    @property
    def keys(self) -> list[str]:
        """The keys with at least one timed round, in the order in which they first came."""
        return [key for key in self._rows if self.rounds_us(key)]

    @property
    def errors(self) -> dict[str, str]:
        """The keys of which no round could be timed, each with the error of its latest row."""
        return {
            key: list(rounds.values())[-1].timing.error or f"no {self.protocol.clock} clock"
            for key, rounds in self._rows.items()
            if not self.rounds_us(key)
        }

    def has(self, key: str, round_index: int) -> bool:
        """Whether that round of the key was timed. An error does not count."""
        row = self._rows.get(key, {}).get(round_index)
        return row is not None and row.counted_us is not None

    def missing(self, keys: Iterable[str], rounds: int | None = None) -> list[str]:
        """Those of `keys` that lack any of the first `rounds` rounds (the protocol's if not given)."""
        wanted = range(self.protocol.rounds if rounds is None else rounds)
        return [key for key in keys if not all(self.has(key, index) for index in wanted)]

    def timing(self, key: str, round_index: int) -> Timing | None:
        """The row of a key and round, if there is one."""
        row = self._rows.get(key, {}).get(round_index)
        return None if row is None else row.timing

    def latency_us(self, key: str) -> float | None:
        """The protocol's figure over all rounds, in microseconds; None for a key not timed."""
        rounds_us = self.rounds_us(key)
        return self.protocol.over_rounds(rounds_us) if rounds_us else None

    def rounds_us(self, key: str) -> list[float]:
        """The protocol's figure of each round that counts, in microseconds; empty for a key not timed.

        Rounds beside a neighbour are left out where there are enough others (`device.conditions.calm_of`).
        """
        rows = [row for row in self._rows.get(key, {}).values() if row.counted_us is not None]
        counted = calm_of(rows, [row.is_busy for row in rows])
        return [row.counted_us for row in counted if row.counted_us is not None]

    def append(self, timing: Timing) -> None:
        """Write one row and keep it. Raises `TableError` if it cannot be; all rows before then still stand."""
        line = row_line(timing, self.schema)
        try:
            row = self._reader.read(line)
        except ValueError as error:
            raise _damaged(f"cannot store in {self.path}", line, error) from error
        if self._stored:
            self._write(line + b"\n")
        self._keep(row)

    def save_as(self, path: Path) -> None:
        """Write what the table holds now, appended rows of a detached one too, to another file in one step.

        Raises `TableError` if that can't be done.
        """
        partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        try:
            with type(self).create(partial, self.identity, self.protocol) as copy:
                for timing in self.rows:
                    copy.append(timing)
            partial.replace(path)
        finally:
            # Still there only if the disk was full.
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)

    def detached(self) -> Self:
        """A copy, of the latest schema, that forgets what is appended to it: the file stays as it is."""
        copy = type(self)(self.path, self.identity, self.protocol)
        copy._rows = {key: dict(rounds) for key, rounds in self._rows.items()}
        copy._stored = False
        return copy

    def summary(self) -> dict[str, object]:
        """What the table holds, in plain values: device, protocol, how many layers, networks, rows, errors."""
        keys = self.keys
        networks = sum(" + " in key for key in keys)
        return {
            "path": str(self.path),
            **{f"device_{name}" if name == "name" else name: value for name, value in asdict(self.identity).items()},
            "protocol": asdict(self.protocol),
            "layers": len(keys) - networks,
            "networks": networks,
            "rows": sum(map(len, self._rows.values())),
            "errors": len(self.errors),
        }

    def close(self) -> None:
        """Let go of the file, so that another process may append. The next append takes it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            self.close()

    def _read_rows(self, lines: list[bytes], first: int) -> None:
        for number, line in enumerate(lines[first:], start=first + 1):
            try:
                row = self._reader.read(line)
            except ValueError as error:
                raise _damaged(f"{self.path}, line {number}", line, error) from error
            self._keep(row)

    def _keep(self, row: Row) -> None:
        rounds = self._rows.setdefault(row.key, {})
        rounds.pop(row.round, None)
        rounds[row.round] = row

    def _open_for_append(self) -> int:
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        try:
            # Two builds at once would also spoil each other's timings.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, _end_of_last_line(descriptor))
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def _write(self, line: bytes) -> None:
        """One whole line in one write: a kill leaves it there or torn at the end, never mixed with another.

        No fsync: a killed process loses nothing that it wrote, and a power cut costs seconds of timings,
        which the next run repeats; syncing each row would disturb the timings themselves.
        """
        try:
            if self._descriptor is None:
                self._descriptor = self._open_for_append()
            end = os.lseek(self._descriptor, 0, os.SEEK_END)
            try:
                if os.write(self._descriptor, line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._descriptor, end)
                raise
        except BlockingIOError as error:
            raise TableError(f"another process is writing {self.path}: wait for it, or pass another --lut") from error
        except OSError as error:
            raise TableWriteError(
                f"cannot write to the latency table {self.path}: {error.strerror or error}; "
                "the rows before are safe: set it right and run again to continue"
            ) from error


def _end_of_last_line(descriptor: int) -> int:
    """The size of the file without a last line that lacks its newline."""
    end = os.fstat(descriptor).st_size
    while end > 0:
        start = max(0, end - 65536)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Thousands of new rows, none of which is garbage, would have all of the process searched for some."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def is_table(path: Path) -> bool:
    """Whether the file begins as a latency table does."""
    try:
        with regular_file(path, TABLE_BYTES) as file:
            return file.read(len(TITLE)) == TITLE.encode()
    except OSError:
        return False


def _damaged(where: str, line: bytes, error: ValueError) -> TableError:
    if line.startswith(TITLE.encode()):
        return TableError(
            f"{where}: a second table begins here: two files were run together; part them, then `lut merge`"
        )
    quoted = line[:120].decode("utf-8", "replace") + ("..." if len(line) > 120 else "")
    return TableError(
        f"{where}: damaged row '{quoted}' ({error}): delete the line and profile again to time it anew; "
        "`amc-latency lut check` names all such lines"
    )
