"""Latency tables: damaged, and with other content under checksums that are right."""

from __future__ import annotations

import contextlib
import io
import json
import random
import zlib
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.attacks.commands import command
from benchmarks.attacks.harness import Attack, Case, Wrong
from benchmarks.attacks.mutate import NINES, damaged, odd_number, odd_place

if TYPE_CHECKING:
    from amc_latency.device.base import Timing
    from amc_latency.lut.table.table import LatencyTable

    from amc_latency.models.load import Network

_BY_COMMAND = 200
"""One case of so many is also given to the commands themselves, which costs as much as all the rest."""
_DEEP = "[" * 3000
_CONDITIONS: tuple[dict[str, Any], ...] = (
    {"sentinel_us": 61.5, "reference_us": 60.25, "sentinel_hot_us": 50.5, "reference_hot_us": 50.0},
    {"core": 1, "sentinel_us": 61.5, "reference_us": 60.25, "tries": 3, "suspect": ["speed wandered by 41 %"]},
    {"serial": "FA6AX0301", "khz_before": [1593600, None], "temperature_c": [31.5, 32.0], "suspect": ["drift 8.1 %"]},
    {"source": "a.log", "sha256": "ab" * 32, "format": "TFLite op profile", "ops": ["CONV_2D"]},
)
_WHOLE_CONDITIONS = (
    *('{"suspect": 1}', '["suspect"]', '{"suspect": [1]}', '{"from": {"name": ["u"]}}', _DEEP, "1", "{", "null"),
    *('{"from": 1}', '{"sha256": 1}', '{"suspect": "no"}', '{"suspect": {"a": "\\u001b[2J"}}', '"from"'),
    *('{"reference_us": ' + NINES + "}", '{"core": ' + "9" * 5000 + "}", '{"serial": "\\u001b[2J"}'),
)


def attacks() -> list[Attack]:
    """Raw damage, and structured."""
    return [
        Attack("tables, raw mutation", _raw, 40_000, 500),
        Attack("tables, checksums made right", _structured, 40_000, 500),
    ]


class _Base:
    """A small table that predicts a network, as bytes, and what it says."""

    def __init__(self, path: Path, network: Network) -> None:
        from amc_latency.device.base import DeviceIdentity, Protocol, Summary, Timing
        from amc_latency.lut.building.plan import uniform_counts
        from amc_latency.lut.shapes.shape import NOOP, network_text
        from amc_latency.lut.table.headers import header_of, marked
        from amc_latency.lut.table.table import LatencyTable

        from benchmarks.synthetic_device import layer_us

        identity = DeviceIdentity("host", "steps of arithmetic", "runtime 1")
        protocol = Protocol(rounds=2, clock="cpu", statistic="median", state="frame")
        architecture = network.graph.architecture
        choices = [tuple(range(1, full + 1)) for full in architecture.group_channels]
        self.shapes = architecture.shapes()
        layers = {NOOP: None}
        networks = []
        for share in (1.0, 0.8, 0.6, 0.4):
            shapes = architecture.shapes(uniform_counts(architecture, choices, share))
            layers |= dict.fromkeys(shapes)
            networks.append(shapes)
        with LatencyTable.create(path, identity, protocol) as table:
            keys = [(shape.text, layer_us(shape)) for shape in layers]
            keys += [(network_text(shapes), 1.1 * sum(map(layer_us, shapes)) + 5) for shapes in networks]
            for number, (key, us) in enumerate(keys):
                for index in range(2 if number % 3 else 1):
                    us = round(us * (1 + 0.001 * index), 2)
                    figures = Summary(us, us, us, 0.1, us, us, us)
                    conditions = json.dumps(_CONDITIONS[(number + index) % len(_CONDITIONS)])
                    timing = Timing(key, index, 10, figures, figures, conditions=conditions)
                    if number % 7 == 3:
                        other = replace(header_of(table).identity, model="another")
                        timing = marked(timing, header_of(table)._replace(identity=other))
                    table.append(timing)
            table.append(Timing(f"{keys[1][0]}", 5, error="LiteRT failed: no memory"))
        self.bytes = path.read_bytes()
        self.table = LatencyTable.open(path)
        self.timings = {(timing.workload, timing.round): timing for timing in self.table.rows}
        self.network = network
        self.path = path


def _prepare(folder: Path) -> _Base:
    from amc_latency.models.load import NetworkOptions, load_network

    return _Base(folder / "base.tsv", load_network(NetworkOptions("lenet5", weights="random")))


def _raw(folder: Path) -> Callable[[Case], None]:
    base = _prepare(folder)
    path = folder / "t.tsv"

    def try_case(case: Case) -> None:
        case.content = damaged(case.draw, base.bytes)
        path.write_bytes(case.content)
        table = _opened(path)
        if table is not None:
            for timing in table.rows:
                if base.timings.get((timing.workload, timing.round)) != timing:
                    raise Wrong(f"a row that was never written: {timing}")
            if (table.identity, table.protocol) != (base.table.identity, base.table.protocol):
                raise Wrong("a header that was never written")
        _use(case, path, table, base)

    return try_case


def _structured(folder: Path) -> Callable[[Case], None]:
    base = _prepare(folder)
    path = folder / "t.tsv"
    lines = base.bytes.split(b"\n")[:-1]
    first = next(i for i, line in enumerate(lines) if line.startswith(b"key\t")) + 1

    def try_case(case: Case) -> None:
        draw, changed = case.draw, list(lines)
        touched = set()
        for _ in range(draw.choice((1, 1, 2))):
            if draw.random() < 0.2:
                _other_header(draw, changed, first)
                touched = set(range(len(lines)))
            else:
                at = draw.randrange(first, len(lines))
                touched.add(at)
                changed[at] = _other_row(draw, changed[at])
        case.content = b"\n".join(changed) + b"\n"
        path.write_bytes(case.content)
        table = _opened(path)
        if table is not None:
            for at in range(first, len(lines)):
                cells = lines[at].split(b"\t")
                key = cells[0].decode(), int(cells[1])
                if at not in touched and table.timing(*key) not in (base.timings[key], *_of(changed, touched, table)):
                    raise Wrong(f"line {at + 1} was left alone, and reads as {table.timing(*key)}")
        _use(case, path, table, base)

    return try_case


def _of(changed: list[bytes], touched: set[int], table: LatencyTable) -> list[Timing | None]:
    """The timings of changed lines, which may have taken another line's key and round."""
    found = []
    for at in touched:
        with contextlib.suppress(ValueError, IndexError):
            cells = changed[at].decode().split("\t")
            found.append(table.timing(cells[0], int(cells[1])))
    return found


def _other_row(draw: random.Random, line: bytes) -> bytes:
    cells = line.decode().split("\t")[:-1]
    match draw.randrange(8):
        case 0:
            cells[draw.choice((1, 2))] = odd_number(draw)
        case 1:
            cells[draw.randrange(3, len(cells) - 2)] = odd_number(draw)
        case 2:
            # One size of the key.
            digits = [i for i, c in enumerate(cells[0]) if c.isdecimal()]
            at = draw.choice(digits)
            cells[0] = cells[0][:at] + odd_number(draw) + cells[0][at + 1 :]
        case 3:
            cells[-2] = draw.choice(("\\x1b[2J", "\\N{SNOWMAN}", "\\ud800", "\\", "x" * 5000, "a\\nb\\tc", "\\x9b31m"))
            cells[3:-2] = [""] * len(cells[3:-2]) if draw.random() < 0.7 else cells[3:-2]
        case 4:
            cells[-1] = draw.choice(_WHOLE_CONDITIONS)
        case _:
            record = json.loads(cells[-1]) if cells[-1] else dict(_CONDITIONS[1])
            cells[-1] = _dumped(odd_place(draw, record))
    text = "\t".join(cells).encode(errors="replace")
    return text + f"\t{zlib.crc32(text):08x}".encode()


def _other_header(draw: random.Random, lines: list[bytes], first: int) -> None:
    at = draw.randrange(1, 5)
    name, _, value = lines[at].decode().partition(": ")
    if name == "# protocol":
        try:
            record = json.loads(value)
        except ValueError:
            record = None
        if not isinstance(record, dict) or not record:  # changed before into what is none
            return
        rare = (_DEEP, "[]", "{}", "null", '{"rounds": 1}', "NaN")
        value = draw.choice(rare) if draw.random() < 0.1 else _dumped(odd_place(draw, record))
        if draw.random() < 0.4:
            key = draw.choice(list(record))
            rest = json.dumps({k: v for k, v in record.items() if k != key})
            value = rest[:-1] + f', "{key}": {odd_number(draw)}' + "}"
    else:
        value = draw.choice(("", "\\x1b[2J", "[/x]", "x" * 5000, "\\", "\\N{", "\\ud800", "a\\nb", "é", "\\u202eabc"))
    lines[at] = f"{name}: {value}".encode(errors="replace")
    lines[first - 2] = f"# check: {zlib.crc32(b'%s' % chr(10).encode().join(lines[: first - 2])):08x}".encode()


def _dumped(value: Any) -> str:
    try:
        return json.dumps(value)
    except (ValueError, RecursionError):
        # Python writes no integer of that many digits.
        return _DEEP


def _opened(path: Path) -> LatencyTable | None:
    from amc_latency.lut.table.table import LatencyTable, TableError

    try:
        return LatencyTable.open(path)
    except TableError:
        return None


def _use(case: Case, path: Path, table: LatencyTable | None, base: _Base) -> None:
    """All that the commands do with a table. A sum of figures that were allowed in is to be a figure too."""
    from amc_latency.lut.audit.check import check

    finite(asdict(check(path)))
    if table is None:
        return
    _look(case, table, base)
    if case.number % 8 == 0:
        _merge(path, base, case)
    if case.number % _BY_COMMAND == 0:
        _by_command(path, base, case.draw)


def _look(case: Case, table: LatencyTable, base: _Base) -> None:
    from amc_latency.lut.audit.export_csv import write_csv
    from amc_latency.lut.audit.sweeps import staircases
    from amc_latency.lut.prediction.predict import MissingShapeError
    from amc_latency.lut.table.table import TableError

    from amc_latency.cli.lut_show import show_report
    from amc_latency.measuring.prediction import predict

    with allowed():
        finite(show_report(table, staircases(table, None, None), []))
    with allowed():
        write_csv(table, io.StringIO(), rows=case.number % 2 == 0)
    try:
        report = predict(base.network, table, None)
    except (MissingShapeError, TableError):
        return
    finite(asdict(report))


def _merge(path: Path, base: _Base, case: Case) -> None:
    from amc_latency.lut.audit.compare import diff
    from amc_latency.lut.table.merge import merge
    from amc_latency.lut.table.table import LatencyTable

    out = case.folder / "merged.tsv"
    for pair in ((base.path, path), (path, base.path)):
        with allowed():
            finite(asdict(merge(pair, out, force=True)))
            LatencyTable.open(out)
        with allowed():
            finite(asdict(diff(*map(LatencyTable.open, pair))))


def _by_command(path: Path, base: _Base, draw: random.Random) -> None:
    command("lut", "check", path)
    command("lut", "show", path)
    command("lut", "show", path, "--json")
    command("lut", "merge", base.path, path, "--out", path.with_name("m.tsv"), "--force")
    command("lut", "diff", base.path, path)
    command("lut", "export", path, "--csv", path.with_suffix(".csv"), *(["--rows"] if draw.random() < 0.5 else []))
    command("predict", "--model", "lenet5", "--weights", "random", "--lut", path)


@contextlib.contextmanager
def allowed() -> Any:
    """What the command line words as a user's mistake is a right answer."""
    from amc_latency.errors import exit_code

    try:
        yield
    except Exception as error:
        if exit_code(error) is None:
            raise


def finite(report: Any) -> None:
    """Raise `Wrong` where a report has a number that JSON does not have."""
    try:
        json.dumps(report, allow_nan=False, default=str)
    except ValueError as error:
        if "JSON compliant" not in str(error):
            raise
        raise Wrong(f"a figure of the report is no finite number: {_where(report)}") from None


def _where(value: Any, name: str = "") -> str:
    if isinstance(value, dict):
        return next((found for key, item in value.items() if (found := _where(item, f"{name}.{key}"))), "")
    if isinstance(value, list | tuple):
        return next((found for i, item in enumerate(value) if (found := _where(item, f"{name}[{i}]"))), "")
    return f"{name} is {value}" if isinstance(value, float) and value - value != 0 else ""
