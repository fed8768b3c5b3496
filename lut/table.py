"""The latency table: one text file per device and protocol, to which each timing is appended as it comes."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import zlib
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from types import TracebackType
from typing import Self

from device.base import DeviceIdentity, Protocol, Summary, Timing
from lut.shape import ShapeError, parse_network

SCHEMA = 2
TITLE = "# amc-latency latency table, schema "
_HEADER_NAMES = ("device", "model", "runtime", "protocol", "check")
_STATISTICS = ("min_us", "median_us", "mean_us", "std_us")
COLUMNS = (
    "key",
    "round",
    "n",
    *(f"cpu_{name}" for name in _STATISTICS),
    *(f"wall_{name}" for name in _STATISTICS),
    "error",
    "conditions",
    "check",
)
_LONGEST_ERROR = 500


class TableError(ValueError):
    """A table that cannot be read, written or used here: what is wrong, where, and what to do."""


class TableWriteError(TableError):
    """A table that the disk or its permissions don't let us write."""


class LatencyTable:
    """Timings of one device under one protocol, keyed by `LayerShape.text` or `network_text(shapes)`.

    The latest row of a (key, round) counts. A last line without its newline was torn by a kill and is
    dropped. Every row ends in a checksum, so that a damaged digit is an error and not another latency.
    """

    def __init__(self, path: Path, identity: DeviceIdentity, protocol: Protocol) -> None:
        self.path = path
        self.identity = identity
        self.protocol = protocol
        self._timings: dict[str, dict[int, Timing]] = {}
        self._descriptor: int | None = None
        self._stored = True

    @classmethod
    def create(cls, path: Path, identity: DeviceIdentity, protocol: Protocol) -> Self:
        """Start an empty table. Raises `TableError` where the file exists or cannot be written."""
        path = Path(path)
        header = _header_lines(identity, protocol)
        partial = path.with_name(f"{path.name}.{os.getpid()}.new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # A header is never torn: the file gets its name only when it is complete.
            partial.write_text("\n".join((*header, "\t".join(COLUMNS))) + "\n", encoding="utf-8")
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
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise TableError(f"there is no latency table {path}: make one with `amc-latency profile`") from error
        except OSError as error:
            raise TableError(f"cannot read the latency table {path}: {error.strerror or error}") from error
        lines = data[: data.rfind(b"\n") + 1].split(b"\n")[:-1]
        table = cls(path, *_parse_header(path, lines))
        first_row = len(_HEADER_NAMES) + 2
        known_keys: set[str] = set()
        for number, line in enumerate(lines[first_row:], start=first_row + 1):
            table._keep(_parse_row(path, number, line, known_keys))
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
        for wanted, own in ((identity, self.identity), (protocol, self.protocol)):
            for field in fields(own) if wanted is not None else ():
                theirs, ours = getattr(own, field.name), getattr(wanted, field.name)
                if theirs != ours:
                    whose = "device" if own is self.identity else "protocol"
                    raise TableError(
                        f"{self.path} was measured with {whose} {field.name} '{theirs}', this is '{ours}': "
                        "name another --lut, or delete this one to start anew"
                    )

    @property
    def rows(self) -> list[Timing]:
        """The timings that count: the latest of each (key, round), errors included."""
        return [timing for rounds in self._timings.values() for timing in rounds.values()]

    @property
    def keys(self) -> list[str]:
        """The keys with at least one timed round, in the order in which they first came."""
        return [key for key in self._timings if self._measured(key)]

    @property
    def errors(self) -> dict[str, str]:
        """The keys of which no round could be timed, each with the error of its latest row."""
        return {
            key: list(rounds.values())[-1].error or f"no {self.protocol.clock} clock"
            for key, rounds in self._timings.items()
            if not self._measured(key)
        }

    def has(self, key: str, round_index: int) -> bool:
        """Whether that round of the key was timed. An error does not count."""
        timing = self._timings.get(key, {}).get(round_index)
        return timing is not None and self._counts(timing)

    def missing(self, keys: Iterable[str], rounds: int | None = None) -> list[str]:
        """Those of `keys` that lack any of the first `rounds` rounds (the protocol's if not given)."""
        wanted = range(self.protocol.rounds if rounds is None else rounds)
        return [key for key in keys if not all(self.has(key, index) for index in wanted)]

    def timing(self, key: str, round_index: int) -> Timing | None:
        """The row of a key and round, if there is one."""
        return self._timings.get(key, {}).get(round_index)

    def latency_us(self, key: str) -> float | None:
        """The protocol's figure over all rounds, in microseconds; None for a key not timed."""
        measured = self._measured(key)
        if not measured:
            return None
        return self.protocol.over_rounds(timing.latency_us(self.protocol) for timing in measured)

    def append(self, timing: Timing) -> None:
        """Write one row and keep it. Raises `TableError` if it cannot be; all rows before then still stand."""
        line = _row_line(timing)
        parsed = _parse_row(self.path, 0, line, set())
        if self._stored:
            self._write(line + b"\n")
        self._keep(parsed)

    def merge(self, other: LatencyTable) -> int:
        """Append the rows of another table that this one lacks, and say how many; its own rows win.

        Raises `TableError` for a table of another device or protocol.
        """
        self.expect(other.identity, other.protocol)
        added = 0
        for timing in other.rows:
            known = timing.round in self._timings.get(timing.workload, {})
            if not known or (not self.has(timing.workload, timing.round) and other._counts(timing)):
                self.append(timing)
                added += 1
        return added

    def save_as(self, path: Path) -> None:
        """Write what the table holds now, appended rows of a detached one too, to another file in one step.

        Raises `TableError` if that can't be done.
        """
        partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        with type(self).create(partial, self.identity, self.protocol) as copy:
            for timing in self.rows:
                copy.append(timing)
        partial.replace(path)

    def detached(self) -> Self:
        """A copy that forgets what is appended to it: the file stays as it is."""
        copy = type(self)(self.path, self.identity, self.protocol)
        copy._timings = {key: dict(rounds) for key, rounds in self._timings.items()}
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
            "rows": len(self.rows),
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

    def _counts(self, timing: Timing) -> bool:
        return timing.counted_us(self.protocol) is not None

    def _measured(self, key: str) -> list[Timing]:
        return [timing for timing in self._timings.get(key, {}).values() if self._counts(timing)]

    def _keep(self, timing: Timing) -> None:
        rounds = self._timings.setdefault(timing.workload, {})
        rounds.pop(timing.round, None)
        rounds[timing.round] = timing

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


def _escape(text: str) -> str:
    return text.encode("unicode_escape").decode("ascii")


def _unescape(text: str) -> str:
    return text.encode("ascii").decode("unicode_escape")


def _check(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def _header_lines(identity: DeviceIdentity, protocol: Protocol) -> list[str]:
    lines = [
        f"{TITLE}{SCHEMA}",
        f"# device: {_escape(identity.name)}",
        f"# model: {_escape(identity.model)}",
        f"# runtime: {_escape(identity.runtime)}",
        f"# protocol: {json.dumps(asdict(protocol))}",
    ]
    return [*lines, f"# check: {_check(chr(10).join(lines))}"]


def _parse_header(path: Path, lines: list[bytes]) -> tuple[DeviceIdentity, Protocol]:
    texts = [line.decode("utf-8", "replace") for line in lines[: len(_HEADER_NAMES) + 2]]
    if not texts or not texts[0].startswith(TITLE):
        raise TableError(f"{path} is not a latency table: it does not begin with '{TITLE}{SCHEMA}'")
    if texts[0].endswith("\r"):
        raise TableError(f"{path} has Windows line ends (CRLF), which a table never has: copy it anew, as it was")
    if texts[0] != f"{TITLE}{SCHEMA}":
        raise TableError(
            f"{path} has table schema '{texts[0].removeprefix(TITLE)}', this is '{SCHEMA}': "
            "name another --lut, or delete this one to start anew"
        )
    damaged = "pass another --lut, or delete the file and profile again"
    values = {}
    for number, name in enumerate(_HEADER_NAMES, start=1):
        prefix = f"# {name}: "
        if len(texts) <= number or not texts[number].startswith(prefix):
            found = f"'{texts[number][:80]}'" if len(texts) > number else "the end of the file"
            raise TableError(f"{path}, line {number + 1}: expected '{prefix.strip()}', found {found}: {damaged}")
        values[name] = texts[number].removeprefix(prefix)
    if values["check"] != _check("\n".join(texts[: len(_HEADER_NAMES)])):
        raise TableError(f"{path}: the header does not match its checksum '{values['check'][:80]}': {damaged}")
    if len(texts) <= len(_HEADER_NAMES) + 1 or texts[-1] != "\t".join(COLUMNS):
        raise TableError(f"{path}, line {len(_HEADER_NAMES) + 2}: the column names are missing or others: {damaged}")
    try:
        identity = DeviceIdentity(*(_unescape(values[name]) for name in ("device", "model", "runtime")))
        protocol_values = json.loads(values["protocol"])
        lacking = {field.name for field in fields(Protocol)} - set(protocol_values)
        if lacking:
            raise ValueError(f"its protocol says nothing of {', '.join(sorted(lacking))}")
        protocol = Protocol(**protocol_values)
    except (ValueError, TypeError) as error:
        raise TableError(f"{path}: the header cannot be read ({error}): {damaged}") from error
    return identity, protocol


def _row_line(timing: Timing) -> bytes:
    cells = [timing.workload, str(timing.round), str(timing.n)]
    for summary in (timing.cpu, timing.wall):
        values = [getattr(summary, name) if summary else None for name in _STATISTICS]
        # 10 ns: below what any clock resolves, and enough digits for the fastest layer.
        cells += ["" if value is None else f"{value:.2f}" for value in values]
    cells += [_escape((timing.error or "")[:_LONGEST_ERROR]), timing.conditions]
    text = "\t".join(cells)
    return f"{text}\t{_check(text)}".encode()


def _parse_row(path: Path, number: int, line: bytes, known_keys: set[str]) -> Timing:
    try:
        text, _, check = line.decode("utf-8").rpartition("\t")
        if check != _check(text):
            raise ValueError("it does not match its checksum")
        cells = text.split("\t")
        if len(cells) != len(COLUMNS) - 1:
            raise ValueError(f"it has {len(cells) + 1} cells, not {len(COLUMNS)}")
        key, round_index, n = cells[0], int(cells[1]), int(cells[2])
        if key not in known_keys:
            parse_network(key)
            known_keys.add(key)
        if round_index < 0 or n < 0:
            raise ValueError("a round and a count cannot be negative")
        clocks = [_parse_summary(cells[start : start + 4]) for start in (3, 7)]
        error = _unescape(cells[11]) or None
        if error is None and clocks == [None, None]:
            raise ValueError("it has neither a timing nor an error")
        return Timing(key, round_index, n, clocks[0], clocks[1], error, cells[12])
    except (ValueError, ShapeError) as error:
        where = f"{path}, line {number}" if number else f"cannot store in {path}"
        quoted = line[:120].decode("utf-8", "replace") + ("..." if len(line) > 120 else "")
        raise TableError(
            f"{where}: damaged row '{quoted}' ({error}): delete the line and profile again to time it anew"
        ) from error


def _parse_summary(cells: list[str]) -> Summary | None:
    if not any(cells):
        return None
    values = [float(cell) if cell else None for cell in cells]
    if not all(value is None or (math.isfinite(value) and value >= 0) for value in values):
        raise ValueError("a time is negative or no number")
    return Summary(*values)
