"""The latency table: one text file per device and protocol, to which each timing is appended as it comes."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

from amc_latency.android_bench.safe.files import read_whole, regular_file, replacing
from amc_latency.android_bench.safe.limits import TABLE_BYTES
from amc_latency.device.base import DeviceIdentity, Protocol, Timing, differences
from amc_latency.device.conditions import calm_of
from amc_latency.lut.table.table_file import TableFile, TableGoneError, TableWriteError
from amc_latency.lut.table.table_text import (
    SCHEMA,
    TITLE,
    Row,
    RowReader,
    TableError,
    first_lines,
    header_lines,
    missing_table,
    parse_header,
    row_line,
    schema_of,
)


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
        self._file: TableFile | None = TableFile(path)
        """None for a copy that is in memory only"""

    @classmethod
    def create(cls, path: Path, identity: DeviceIdentity, protocol: Protocol) -> Self:
        """Start an empty table, to write. Raises `TableError` where the file exists or cannot be written."""
        table = cls(Path(path), identity, protocol)
        table._write_whole(table.path, new=True)
        table._file = TableFile(table.path, end=len(table._header))
        table.lock()
        return table

    @classmethod
    def open(
        cls,
        path: Path,
        expect_identity: DeviceIdentity | None = None,
        expect_protocol: Protocol | None = None,
        writing: bool = False,
    ) -> Self:
        """Read a table, and with `writing` `lock` it too.

        Raises `TableError` for a damaged one, and for one of another device or protocol.
        """
        path = Path(path)
        try:
            with regular_file(path, TABLE_BYTES) as file:
                status, data = os.fstat(file.fileno()), read_whole(file, path, TABLE_BYTES)
        except FileNotFoundError as error:
            raise missing_table(path) from error
        except OSError as error:
            raise TableError(f"cannot read the latency table {path}: {error.strerror or error}") from error
        end = data.rfind(b"\n") + 1
        # Not all lines at once: of what is no table they may be millions.
        lines = first_lines(data[:end])
        table = cls(path, *parse_header(path, lines), schema_of(lines))
        table._file = TableFile(path, status, end)
        with no_garbage_collection():
            table._read_rows(data[:end], len(header_lines(table.identity, table.protocol, table.schema)))
        table.expect(expect_identity, expect_protocol)
        if writing:
            table.lock()
        return table

    @classmethod
    def open_or_create(cls, path: Path, identity: DeviceIdentity, protocol: Protocol) -> Self:
        """The table at `path`, of this device and protocol, or a new one, to write. Raises `TableError`."""
        if Path(path).exists():
            return cls.open(path, identity, protocol, writing=True)
        return cls.create(path, identity, protocol)

    def expect(self, identity: DeviceIdentity | None = None, protocol: Protocol | None = None) -> None:
        """Raises `TableError`, naming the field and both values, if device or protocol are others."""
        if identity is not None and self.identity.estimated and not identity.estimated:
            raise TableError(
                f"{self.path} holds estimates ({self.identity.runtime}), not timings of a device: "
                "only a prediction, by `table`, reads it; name another `table`"
            )
        for wanted, own in ((identity, self.identity), (protocol, self.protocol)):
            for name, (theirs, ours) in differences(own, wanted).items() if wanted is not None else ():
                whose = "device" if own is self.identity else "protocol"
                raise TableError(
                    f"{self.path} was measured with {whose} {name} '{theirs}', this is '{ours}': "
                    "name another `table`, or delete this one to start anew"
                )

    @property
    def rows(self) -> list[Timing]:
        """The timings that count: the latest of each (key, round), errors included."""
        return [row.timing for row in self.lines()]

    def lines(self, key: str | None = None) -> Iterator[Row]:
        """As `rows`, or those of one key, each with what was read of it so far: reading all of it takes the longest."""
        of = self._rows.values() if key is None else [self._rows.get(key, {})]
        return (row for rounds in of for row in rounds.values())

    def lines_with(self, text: bytes) -> list[Row]:
        """Those of `lines` that have the text anywhere."""
        return [row for rounds in self._rows.values() for row in rounds.values() if text in row.line]

    @property
    def row_count(self) -> int:
        """How many `rows` there are."""
        return sum(map(len, self._rows.values()))

    def timed(self) -> dict[str, list[Row]]:
        """The rows that count and have a figure, of each key by round."""
        timed = {
            key: [rounds[index] for index in sorted(rounds) if rounds[index].counted_us is not None]
            for key, rounds in self._rows.items()
        }
        return {key: rows for key, rows in timed.items() if rows}

    @property
    def keys(self) -> list[str]:
        """The keys with at least one timed round, in the order in which they first came."""
        return [key for key in self._rows if self._is_timed(key)]

    @property
    def errors(self) -> dict[str, str]:
        """The keys of which no round could be timed, each with the error of its latest row."""
        return {
            key: list(rounds.values())[-1].timing.error or f"no {self.protocol.clock} clock"
            for key, rounds in self._rows.items()
            if not self._is_timed(key)
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

    def latencies_us(self) -> dict[str, float]:
        """`latency_us` of each of `keys`."""
        latencies_us: dict[str, float] = {}
        for key, rounds in self._rows.items():
            if len(rounds) == 1:
                # Whatever the statistic, of one round it is that.
                (row,) = rounds.values()
                us = row.counted_us
            else:
                us = self.latency_us(key)
            if us is not None:
                latencies_us[key] = us
        return latencies_us

    def rounds_us(self, key: str) -> list[float]:
        """The protocol's figure of each round that counts, in microseconds; empty for a key not timed.

        Rounds beside a neighbour are left out where there are enough others (`amc_latency.device.conditions.calm_of`).
        """
        rows = [row for row in self._rows.get(key, {}).values() if row.counted_us is not None]
        if len(rows) == 1:
            return [row.counted_us for row in rows if row.counted_us is not None]
        counted = calm_of(rows, [row.is_busy for row in rows])
        return [row.counted_us for row in counted if row.counted_us is not None]

    @classmethod
    def of_rows(cls, path: Path, identity: DeviceIdentity, protocol: Protocol, rows: Iterable[Row]) -> Self:
        """A table in memory only, of rows that were read already."""
        table = cls(path, identity, protocol)
        table._file = None
        for row in rows:
            table._keep(row)
        return table

    def append(self, timing: Timing) -> None:
        """Write one row and keep it. Raises `TableError` if it cannot be; all rows before then still stand."""
        line = row_line(timing, self.schema)
        try:
            row = self._reader.read(line)
        except ValueError as error:
            raise _damaged(f"cannot store in {self.path}", line, error) from error
        if self._file is not None:
            self.lock()
            with self._kept_elsewhere(row):
                self._file.append(line + b"\n")
        self._keep(row)

    def lock(self) -> None:
        """Keep others from writing the table until `close`; rows that they added since it was read are read now.

        Raises `TableError`, at once, if another process is writing it.
        """
        if self._file is None:
            return
        with self._kept_elsewhere():
            added = self._file.lock()
        for line in added.split(b"\n")[:-1]:
            try:
                self._keep(self._reader.read(line))
            except ValueError as error:
                raise _damaged(f"{self.path}, a line added just now", line, error) from error

    def save_as(self, path: Path, new: bool = False) -> None:
        """Write what the table holds now, appended rows of a detached one too, to another file in one step.

        A table that is replaced must not be written by others; with `new` there must be none. Raises `TableError` if
        that can't be done.
        """
        with contextlib.ExitStack() as stack:
            if not new and is_table(path):
                replaced = TableFile(path)
                stack.callback(replaced.close)
                replaced.lock()
            self._write_whole(path, new)

    def detached(self) -> Self:
        """A copy, of the latest schema, that forgets what is appended to it: the file stays as it is."""
        copy = type(self)(self.path, self.identity, self.protocol)
        copy._rows = {key: dict(rounds) for key, rounds in self._rows.items()}
        copy._file = None
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
            "rows": self.row_count,
            "errors": len(self.errors),
        }

    def close(self) -> None:
        """Let go of the file, so that another process may write. The next append takes it again.

        Raises `TableWriteError` if the file was removed or replaced meanwhile: where its rows are now.
        """
        if self._file is not None:
            try:
                with self._kept_elsewhere():
                    self._file.check()
            finally:
                self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            if self._file is not None:
                self._file.close()

    def _is_timed(self, key: str) -> bool:
        # No generator: this is asked of each of a hundred thousand keys.
        for row in self._rows[key].values():  # noqa: SIM110
            if row.counted_us is not None:
                return True
        return False

    def _read_rows(self, data: bytes, first: int) -> None:
        for number, line in enumerate(io.BytesIO(data), start=1):
            if number <= first:
                continue
            line = line[:-1]
            try:
                row = self._reader.read(line)
            except ValueError as error:
                raise _damaged(f"{self.path}, line {number}", line, error) from error
            self._keep(row)

    def _keep(self, row: Row) -> None:
        rounds = self._rows.get(row.key)
        if rounds is None:
            self._rows[row.key] = {row.round: row}
            return
        rounds.pop(row.round, None)
        rounds[row.round] = row

    @property
    def _header(self) -> bytes:
        return "\n".join([*header_lines(self.identity, self.protocol), ""]).encode()

    def _write_whole(self, path: Path, new: bool) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # A table is never torn: the file gets its name only when it is complete.
            with replacing(path, new) as temporary, temporary.open("wb") as file:
                file.write(self._header)
                for rounds in self._rows.values():
                    file.writelines(row.line_of(SCHEMA) + b"\n" for row in rounds.values())
        except FileExistsError as error:
            raise TableError(f"{path} exists already: open it, or name another file") from error
        except OSError as error:
            raise TableWriteError(
                f"cannot {'create' if new else 'write'} the latency table {path}: {error.strerror or error}"
            ) from error

    @contextlib.contextmanager
    def _kept_elsewhere(self, *more: Row) -> Iterator[None]:
        """Where the table's file is gone, all its rows and `more` are written to another, and the error says which."""
        try:
            yield
        except TableGoneError as error:
            assert self._file is not None
            self._file.close()
            for row in more:
                self._keep(row)
            raise TableWriteError(f"{error}: {self._rescue()}") from error

    def _rescue(self) -> str:
        for folder in (self.path.parent, Path(tempfile.gettempdir())):
            for number in range(1, 100):
                path = folder / f"{self.path.stem[:200]}.rescued-{number}.tsv"
                try:
                    self._write_whole(path, new=True)
                except TableWriteError:
                    break
                except TableError:
                    continue
                rows = self.row_count
                return f"its {rows:,} rows, those of this run too, are in {path}: `amc-latency lut merge` joins tables"
        return "its rows could not be kept elsewhere"


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
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
