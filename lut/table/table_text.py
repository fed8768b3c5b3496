"""The latency table's text: its header and rows from values, and back with every check that a file needs."""

from __future__ import annotations

import io
import itertools
import json
import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from amc_latency.android_bench.safe.limits import FIGURE
from amc_latency.android_bench.safe.records import from_json, from_values
from amc_latency.device.base import DeviceIdentity, Protocol, Summary, Timing
from amc_latency.device.conditions import is_busy
from amc_latency.lut.shapes.shape import FRAME, frame_of, parse_network
from amc_latency.lut.table import row_conditions

SCHEMA = 3
_MOST_HEADER_LINES = 32
TITLE = "# amc-latency latency table, schema "
_HEADER_NAMES = ("device", "model", "runtime", "protocol", "check")
_ESTIMATED = "# figures: estimated, not measured"
"""A line that the header of a table of estimates has after `runtime`; others lack it."""
_YOUNGER_FIELDS = frozenset({"batch", "precision", "state", "frame_mb"})
"""Of the protocol: tables from before have their defaults."""
_STATES = {"warm": "hot", "flushed": "frame"}
"""What tables from before call a protocol's `l2`, and what that is as a `state`."""
_STATISTICS: dict[int, tuple[str, ...]] = {
    2: ("min_us", "median_us", "mean_us", "std_us"),
    3: ("min_us", "median_us", "mean_us", "std_us", "p10_us", "p90_us", "p99_us"),
}
"""What a row holds of each clock, by schema. A table keeps the schema that it began with."""


def columns(schema: int = SCHEMA) -> tuple[str, ...]:
    """The names of a row's cells."""
    figures = (f"{clock}_{name}" for clock in ("cpu", "wall") for name in _STATISTICS[schema])
    return ("key", "round", "n", *figures, "error", "conditions", "check")


_LONGEST_ERROR = 500


class TableError(ValueError):
    """A table that cannot be read, written or used here: what is wrong, where, and what to do."""


def missing_table(path: Path) -> TableError:
    """What to say where there is no file `path`: the tables beside it that are spelt much like it."""
    near = get_close_matches(path.name, [other.name for other in path.parent.glob("*.tsv")], n=3)
    hint = f"; did you mean {' or '.join(near)}? Or" if near else ":"
    return TableError(f"there is no latency table {path}{hint} make one with `amc-latency profile`")


def header_lines(identity: DeviceIdentity, protocol: Protocol, schema: int = SCHEMA) -> list[str]:
    """All lines before the first row, the column names last."""
    lines = [
        f"{TITLE}{schema}",
        f"# device: {_escape(identity.name)}",
        f"# model: {_escape(identity.model)}",
        f"# runtime: {_escape(identity.runtime)}",
        *([_ESTIMATED] if identity.estimated else []),
        f"# protocol: {json.dumps(asdict(protocol))}",
    ]
    return [*lines, f"# check: {_check(chr(10).join(lines).encode())}", "\t".join(columns(schema))]


def schema_of(lines: Sequence[bytes]) -> int:
    """The schema of a table's lines, whose header `parse_header` has read."""
    return int(lines[0].decode().removeprefix(TITLE))


def parse_header(path: Path, lines: list[bytes]) -> tuple[DeviceIdentity, Protocol]:
    """Who measured and how, from a file's lines. Raises `TableError`; `path` is for its message."""
    texts = [line.decode("utf-8", "replace") for line in lines[: len(_HEADER_NAMES) + 2]]
    if not texts or not texts[0].startswith(TITLE):
        raise TableError(f"{path} is not a latency table: it does not begin with '{TITLE}{SCHEMA}'")
    if texts[0].endswith("\r"):
        raise TableError(f"{path} has Windows line ends (CRLF), which a table never has: copy it anew, as it was")
    schema = texts[0].removeprefix(TITLE)
    if schema.isdecimal() and int(schema) > SCHEMA:
        raise TableError(
            f"{path} has table schema '{schema}', this is '{SCHEMA}': a newer amc-latency wrote it; update this one "
            "to read it"
        )
    if schema not in map(str, _STATISTICS):
        raise TableError(
            f"{path} has table schema '{texts[0].removeprefix(TITLE)}', this is '{SCHEMA}': "
            "name another `table`, or delete this one to start anew"
        )
    damaged = "pass another `table`, or delete the file and profile again"
    estimated = _ESTIMATED in texts
    texts = [line.decode("utf-8", "replace") for line in lines[: len(_HEADER_NAMES) + 2 + estimated]]
    checked = "\n".join(texts[: len(_HEADER_NAMES) + estimated]).encode()
    if estimated:
        texts.remove(_ESTIMATED)
    values = {}
    for number, name in enumerate(_HEADER_NAMES, start=1):
        prefix = f"# {name}: "
        if len(texts) <= number or not texts[number].startswith(prefix):
            found = f"'{texts[number][:80]}'" if len(texts) > number else "the end of the file"
            raise TableError(f"{path}, line {number + 1}: expected '{prefix.strip()}', found {found}: {damaged}")
        values[name] = texts[number].removeprefix(prefix)
    if values["check"] != _check(checked):
        raise TableError(f"{path}: the header does not match its checksum '{values['check'][:80]}': {damaged}")
    if len(texts) <= len(_HEADER_NAMES) + 1 or texts[-1] != "\t".join(columns(int(schema))):
        raise TableError(f"{path}, line {len(_HEADER_NAMES) + 2}: the column names are missing or others: {damaged}")
    try:
        device, model, runtime = (_unescape(values[name]) for name in ("device", "model", "runtime"))
        identity = DeviceIdentity(device, model, runtime, estimated)
        protocol_values = from_json(values["protocol"], dict[str, Any])
        l2 = protocol_values.get("l2")
        if isinstance(l2, str) and l2 in _STATES:
            protocol_values["state"] = _STATES[protocol_values.pop("l2")]
        known = {field.name for field in fields(Protocol)}
        if younger := set(protocol_values) - known:
            raise TableError(
                f"{path}: its protocol has {', '.join(sorted(younger))}, which this amc-latency does not know: "
                "a newer one wrote it; update this one to read it"
            )
        lacking = known - set(protocol_values) - _YOUNGER_FIELDS
        if lacking:
            raise ValueError(f"its protocol says nothing of {', '.join(sorted(lacking))}")
        protocol = from_values(protocol_values, Protocol)
    except TableError:
        raise
    except ValueError as error:
        raise TableError(f"{path}: the header cannot be read ({error}): {damaged}") from error
    return identity, protocol


def first_lines(data: bytes) -> list[bytes]:
    """The lines that a header is in, without their newlines."""
    return [line.removesuffix(b"\n") for line in itertools.islice(io.BytesIO(data), _MOST_HEADER_LINES)]


def row_line(timing: Timing, schema: int = SCHEMA) -> bytes:
    """A row's line, without its newline; what an older schema has no cell for is left out."""
    cells = [timing.workload, str(timing.round), str(timing.n)]
    for summary in (timing.cpu, timing.wall):
        values = [getattr(summary, name) if summary else None for name in _STATISTICS[schema]]
        # 10 ns: below what any clock resolves, and enough digits for the fastest layer.
        cells += ["" if value is None else f"{value:.2f}" for value in values]
    cells += [_escape((timing.error or "")[:_LONGEST_ERROR]), timing.conditions]
    text = "\t".join(cells).encode()
    return text + b"\t" + _check(text).encode()


@dataclass(slots=True)
class Row:
    """A row that was checked: the figure that counts, and its whole timing for those who ask."""

    line: bytes
    schema: int
    key: str
    round: int
    counted_us: float | None
    """None for an error, and for a row without the protocol's clock or statistic."""
    _timing: Timing | None = None

    @property
    def is_busy(self) -> bool:
        """Whether it was timed beside a neighbour."""
        # No key of a layer has a quotation mark, so this is in the conditions.
        return is_busy(self.line)

    @property
    def timing(self) -> Timing:
        """All that the row says."""
        if self._timing is None:
            self._timing = _timing_of(self.line.decode().split("\t"), self.schema)
        return self._timing

    @property
    def conditions(self) -> str:
        """What it was measured under."""
        # Two tabs before the checksum: there are none, as in most rows of an imported table.
        return "" if self.line[-10:-8] == b"\t\t" else self.line.rsplit(b"\t", 2)[1].decode()

    def line_of(self, schema: int) -> bytes:
        """The row's line, without its newline, in a table of that schema."""
        return self.line if self.schema == schema else row_line(self.timing, schema)


class RowReader:
    """Reads and checks the rows of one protocol. A table has thousands, so what is as usual is read in one stroke."""

    def __init__(self, protocol: Protocol, schema: int = SCHEMA) -> None:
        self._protocol = protocol
        self._schema = schema
        self._usual = re.compile(_usual_row(protocol, schema)).fullmatch
        self._frames: set[tuple[bytes, ...]] = set()
        """what is before, between and after the channels of keys that are known to be sound"""
        self._keys: dict[bytes, str] = {}
        """sound keys of other forms, such as those of networks"""

    def read(self, line: bytes) -> Row:
        """The row of a line without its newline. Raises `ValueError` that says why it is none."""
        found = self._usual(line)
        # The pattern has seen to it that the last eight are digits of a checksum.
        if not (found and line.isascii() and int(line[-8:], 16) == zlib.crc32(line[:-9])):
            return self._read_unusual(line)
        key, kind, _, size, _, rest, round_index, counted_us, conditions = found.groups()
        if conditions:
            row_conditions.read(conditions)
        text = key.decode() if (kind, size, rest) in self._frames else self._key(key)
        return Row(line, self._schema, text, int(round_index), float(counted_us))

    def _read_unusual(self, line: bytes) -> Row:
        """An error, a row without the figure that counts, numbers in another notation, or damage."""
        cells = _cells_of(line, self._schema)
        key = self._key(cells[0].encode())
        timing = _timing_of(cells, self._schema)
        if timing.conditions:
            row_conditions.read(timing.conditions)
        return Row(line, self._schema, key, timing.round, timing.counted_us(self._protocol), timing)

    def _key(self, key: bytes) -> str:
        text = self._keys.get(key)
        if text is None:
            text = key.decode()
            found = frame_of(text)
            frame = None if found is None else tuple(part.encode() for part in found[0])
            if frame not in self._frames:
                # Which raises for what is no key.
                parse_network(text)
                if frame is None:
                    self._keys[key] = text
                else:
                    self._frames.add(frame)
        return text


def _usual_row(protocol: Protocol, schema: int) -> bytes:
    """A pattern for rows as `row_line` writes them that hold the protocol's figure and no error.

    Its groups are the key, those of its `FRAME` where it has one, the round, the figure that counts and the conditions.
    """
    # Ranges and possessive counts: half a second less for 200,000 rows.
    figure = rb"[0-9]{1,14}+\.[0-9]{2}"  # fewer digits than `FIGURE` has
    counted = f"{protocol.clock}_{protocol.statistic}_us"
    cells = dict.fromkeys(columns(schema), rb"(?:%s)?" % figure)
    cells |= {
        "key": rb"(%s|[^\t]++)" % FRAME.encode(),
        "round": rb"([0-9]{1,9}+)",
        "n": rb"[0-9]{1,9}+",
        counted: rb"(%s)" % figure,
    }
    cells |= {"error": b"", "conditions": rb"([^\t]*+)", "check": rb"[0-9a-f]{8}"}
    return rb"\t".join(cells.values())


def _cells_of(line: bytes, schema: int) -> list[str]:
    text, _, check = line.rpartition(b"\t")
    if check != _check(text).encode():
        line.decode()  # if there is a byte that is no text, it is what the message names
        raise ValueError("it does not match its checksum")
    cells = text.decode().split("\t")
    expected = len(columns(schema))
    if len(cells) != expected - 1:
        raise ValueError(f"it has {len(cells) + 1} cells, not {expected}")
    return cells


def _timing_of(cells: list[str], schema: int) -> Timing:
    names = _STATISTICS[schema]
    end = 3 + 2 * len(names)
    round_index, n = int(cells[1]), int(cells[2])
    if round_index < 0 or n < 0:
        raise ValueError("a round and a count cannot be negative")
    if max(round_index, n) >= FIGURE:
        raise ValueError(f"a round or a count is {FIGURE:g} or more")
    cpu, wall = _summary_of(cells[3 : 3 + len(names)], names), _summary_of(cells[3 + len(names) : end], names)
    error = _unescape(cells[end]) or None
    if error is None and cpu is None and wall is None:
        raise ValueError("it has neither a timing nor an error")
    return Timing(cells[0], round_index, n, cpu, wall, error, cells[end + 1])


def _summary_of(cells: list[str], names: Sequence[str]) -> Summary | None:
    if not any(cells):
        return None
    values = [float(cell) if cell else None for cell in cells]
    if [value for value in values if value is not None and not 0 <= value < math.inf]:
        raise ValueError("a time is negative or no number")
    if [value for value in values if value is not None and value >= FIGURE]:
        raise ValueError(f"a time is {FIGURE:g} us or more")
    return Summary(**dict(zip(names, values, strict=True)))


def _escape(text: str) -> str:
    return text.encode("unicode_escape").decode("ascii")


def _unescape(text: str) -> str:
    found = text.encode("ascii").decode("unicode_escape")
    if "\\" in text:
        found.encode()  # half a surrogate pair is no text, and could never be shown
    return found


def _check(text: bytes) -> str:
    return f"{zlib.crc32(text):08x}"
