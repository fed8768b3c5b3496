"""Op-profile logs of a whole network -> rows of a latency table. Logs say no shapes: ops are joined to layers in order.

A log is a round, and its file's sha256 says which: the same log is never added twice, and an import that was killed is
finished by the same call. Nothing takes an overhead off: an op's time holds none, so the no-op is 0 us.
"""

from __future__ import annotations

import codecs
import hashlib
import itertools
import json
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from android_bench.counts import parse_counts
from android_bench.op_profile import Op, OpProfile, parse_op_profile
from android_bench.runner import ParseError
from device.base import DeviceIdentity, Protocol, Summary, Timing
from lut.op_join import Join, JoinError, LayerOps, join
from lut.predict import MissingShapeError, Predictor
from lut.shape import NOOP, LayerShape, NetworkShape, network_text
from lut.table import LatencyTable

MODEL = "model not known"
"""Logs don't say what they were made on."""
_LARGEST_DIFFERENCE_PCT = 25.0
"""Of logs of one network on one device; those of a real phone differ by a few percent."""


class ImportLogError(ValueError):
    """A log that cannot be imported, or not into this table: what is wrong, where, and what to do."""


@dataclass(frozen=True)
class ImportedLog:
    """One log of an import."""

    path: str
    ops_ms: float
    """all its ops, also those left out"""
    network_ms: float | None
    """the whole network, as the log's own count line has it; None for a profile without that"""
    runs: int | None
    rows: int
    """rows added; 0 for a log that the table held already"""


@dataclass(frozen=True)
class LeftOut:
    """Ops that no layer shape stands for."""

    op: str
    count: int
    """a log"""
    share_pct: float
    """of all ops' time"""


@dataclass(frozen=True)
class ImportReport:
    """What an import did, how far the logs differ, and how well the table foretold them."""

    table: str
    device: str
    logs: list[ImportedLog]
    rows_added: int
    layers: int
    shapes: int
    """distinct ones among the layers"""
    left_out: list[LeftOut]
    ops_ms: float
    """mean over the logs of the sum of all ops"""
    layers_ms: float
    """the network's layers as the table has them now, summed"""
    network_ms: float | None
    """mean over the logs of the whole network's own timing"""
    spread_pct: float | None
    """of the logs' op sums, largest less smallest, in percent of their mean; None with one log"""
    layer_spread_pct: float | None
    """the same of each layer, averaged"""
    known: int
    """shapes of these logs that the table could tell before it held them"""
    known_mean_error_pct: float | None
    known_max_error_pct: float | None


def import_logs(
    paths: Sequence[Path],
    shapes: NetworkShape,
    names: Sequence[str],
    out: Path,
    device: str = "imported",
    force: bool = False,
) -> ImportReport:
    """Add op-profile logs of the network of these layers, named `names`, to the table `out`, made if there is none.

    Every log is read and joined before anything is written. `force` takes logs that only look like another network's,
    by their input or their times. Raises `ImportLogError` for a log that cannot be read, is of another network or of
    another format than the first, and for a table of something else; and `TableError`.
    """
    if not re.fullmatch("[A-Za-z0-9._-]+", device):
        raise ImportLogError(f"--device {device!r} is no plain name: give letters, digits, '.', '_' and '-'")
    logs = [_read(path, shapes, names) for path in paths]
    for log in logs[1:]:
        if log.what != logs[0].what:
            raise ImportLogError(
                f"{log.path} is {log.what} and {logs[0].path} is {logs[0].what}: give each kind its own table"
            )
    distinct = list({log.sha256: log for log in logs}.values())
    if not force:
        _check_inputs(distinct, shapes)
        _check_sums(distinct)
    with _open(out, DeviceIdentity(device, MODEL, logs[0].runtime), _protocol(logs)) as table:
        rounds = _log_rounds(table)
        errors_pct = _errors_pct(table, [log.join for log in distinct if log.sha256 not in rounds])
        # Logs of this call were compared with each other: one that was killed can be finished.
        if not force and rounds.keys() - {log.sha256 for log in distinct}:
            _check_foretold(table, errors_pct)
        added = _append(table, distinct, shapes, rounds)
        rows_added = sum(added.values())
        layers_ms = Predictor(table).raw_ms(shapes)
    network_ms = [log.network_ms for log in distinct if log.network_ms is not None]
    return ImportReport(
        table=str(table.path),
        device=", ".join((table.identity.name, table.identity.model, table.identity.runtime)),
        logs=[
            ImportedLog(
                path=str(log.path),
                ops_ms=log.profile.total_ms,
                network_ms=log.network_ms,
                runs=log.runs,
                # Of a log that is named twice, the first is the one that was added.
                rows=added.pop(log.sha256, 0),
            )
            for log in logs
        ],
        rows_added=rows_added,
        layers=len(shapes),
        shapes=len(set(shapes)),
        left_out=_left_out(distinct),
        ops_ms=statistics.fmean(log.profile.total_ms for log in distinct),
        layers_ms=layers_ms,
        network_ms=statistics.fmean(network_ms) if network_ms else None,
        spread_pct=_spread_pct([log.profile.total_ms for log in distinct]),
        layer_spread_pct=_layer_spread_pct([log.join for log in distinct]),
        known=len(errors_pct),
        known_mean_error_pct=statistics.fmean(errors_pct) if errors_pct else None,
        known_max_error_pct=max(errors_pct, default=None),
    )


@dataclass(frozen=True)
class _Log:
    path: Path
    sha256: str
    input: tuple[int, ...] | None
    """batch, height, width, channels, where the log says them of a single input"""
    profile: OpProfile
    join: Join
    runtime: str
    threads: int
    warmup: int
    """runs, as the log counts them"""

    @property
    def what(self) -> str:
        """What all logs of a table have in common."""
        return f"a {self.runtime} of {self.threads} thread{'s' if self.threads > 1 else ''}"

    @property
    def runs(self) -> int | None:
        """Counted runs; None where the log has the profile alone, as a CSV file does."""
        return self.profile.run.n if self.profile.run else None

    @property
    def network_ms(self) -> float | None:
        """The whole network's mean, of the counted runs."""
        return self.profile.run.mean_us / 1000 if self.profile.run else None

    def conditions(self, ops: Iterable[Op] | None = None) -> str:
        """What a row keeps of where it came from, as JSON."""
        values: dict[str, object] = {"source": self.path.name, "sha256": self.sha256, "format": self.runtime}
        if ops is not None:
            values["ops"] = [op.name for op in ops]
        return json.dumps(values)


def _read(path: Path, shapes: NetworkShape, names: Sequence[str]) -> _Log:
    if not path.is_file():
        raise ImportLogError(f"there is no log {path}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImportLogError(f"cannot read the log {path}: {error.strerror or error}") from error
    text = _text(path, data)
    if not re.search(r"= Run Order =+\s*$", text, re.MULTILINE):
        raise ImportLogError(f"{path} has no op profile: was it made with --enable_op_profiling=true?")
    try:
        profile = parse_op_profile(text)
        joined = join(profile.ops, shapes, names)
        counts = parse_counts(text)
    except (ParseError, JoinError) as error:
        raise ImportLogError(f"{path}: {_printable(str(error))}") from error
    input_shape = re.search(r"Input shapes: \[([0-9]{1,6}(?:, ?[0-9]{1,6}){3})\]", text)
    threads = re.search(r"Num threads: \[([1-9][0-9]{0,2})\]", text)
    return _Log(
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        input=tuple(map(int, input_shape[1].split(","))) if input_shape else None,
        profile=profile,
        join=joined,
        runtime=_runtime(text, profile),
        threads=int(threads[1]) if threads else 1,
        warmup=counts[0].n if len(counts) > 1 else 0,
    )


def _text(path: Path, data: bytes) -> str:
    if not data.strip():
        raise ImportLogError(f"{path} is empty")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ImportLogError(f"{path} is not text in UTF-8 but in UTF-16: save it as UTF-8")
    text = data.decode("utf-8", "replace")
    garbage = sum(c == "\ufffd" or not (c.isprintable() or c.isspace()) for c in text)
    # A stray byte, of a name or of a terminal's colours, makes no log unreadable.
    if b"\0" in data or garbage > len(text) / 10:
        raise ImportLogError(f"{path} is not text: give what benchmark_model printed")
    return text


def _printable(message: str) -> str:
    """A message without what a log's names may bring into it."""
    return "".join(c for c in message if c.isprintable() and c != "\ufffd")[:500]


def _check_inputs(logs: Sequence[_Log], shapes: NetworkShape) -> None:
    takes = (1, shapes[0].h, shapes[0].w, shapes[0].c_in)
    for log in logs:
        if log.input not in (None, takes):
            raise ImportLogError(
                f"{log.path} has the input {_by(log.input)}, the network takes {_by(takes)}: of another network? "
                "Give its --model and --input, or --force"
            )


def _by(sizes: Iterable[int] | None) -> str:
    return "x".join(map(str, sizes or ()))


def _check_sums(logs: Sequence[_Log]) -> None:
    spread_pct = _spread_pct([log.profile.total_ms for log in logs])
    if spread_pct is not None and spread_pct > _LARGEST_DIFFERENCE_PCT:
        least, most = (pick(logs, key=lambda log: log.profile.total_ms) for pick in (min, max))
        raise ImportLogError(
            f"the op sums of these logs differ by {spread_pct:.0f} %, from {least.profile.total_ms:.3f} ms in "
            f"{least.path} to {most.profile.total_ms:.3f} ms in {most.path}: of more than one network? "
            "Import each network's with its --channels or --width, or give --force"
        )


def _check_foretold(table: LatencyTable, errors_pct: Sequence[float]) -> None:
    mean_pct = statistics.fmean(errors_pct) if errors_pct else 0.0
    if mean_pct > _LARGEST_DIFFERENCE_PCT:
        raise ImportLogError(
            f"these logs are {mean_pct:.0f} % off what the table {table.path} holds for the same layers: "
            "of another network? Give its --channels or --width, another --out, or --force"
        )


def _runtime(text: str, profile: OpProfile) -> str:
    """What ran, as far as a log shows it."""
    if profile.delegated:
        # Only LiteRT's own profile names the delegate with the type.
        litert = profile.ops[0].node_type.startswith("Delegate/")
        return f"{'LiteRT' if litert else 'TFLite'} XNNPACK op profile"
    return f"TFLite {'2018 ' if 'benchmark_tflite_model' in text else ''}op profile"


def _protocol(logs: Sequence[_Log]) -> Protocol:
    """How the logs were made, at least. Rounds are the table's logs, as many as come: 1 is the least there is."""
    runs = [log.runs or 1 for log in logs]
    return Protocol(
        warmup=min(log.warmup for log in logs),
        runs=min(runs),
        min_time_ms=0.0,
        max_runs=max(runs),
        rounds=1,
        threads=logs[0].threads,
        clock="wall",
        statistic="mean",
    )


def _open(out: Path, identity: DeviceIdentity, protocol: Protocol) -> LatencyTable:
    if not out.absolute().parent.is_dir():
        raise ImportLogError(f"--out {out} cannot be made: there is no folder {out.parent}")
    if not out.exists():
        return LatencyTable.create(out, identity, protocol)
    table = LatencyTable.open(out)
    for what, theirs, ours in (
        *((name, getattr(table.identity, name), getattr(identity, name)) for name in ("name", "model", "runtime")),
        *((name, getattr(table.protocol, name), getattr(protocol, name)) for name in ("clock", "statistic", "threads")),
    ):
        if theirs != ours:
            device = " (see --device)" if what == "name" else ""
            raise ImportLogError(
                f"--out {out} is a table of {what} '{theirs}', these logs are '{ours}'{device}: name another --out"
            )
    return table


def _log_rounds(table: LatencyTable) -> dict[str, int]:
    """The round of each log that the table holds, by the log's sha256."""
    return {sha256: row.round for row in table.rows if (sha256 := _sha256(row))}


def _sha256(row: Timing) -> str | None:
    """Of the log that the row came from; None for the no-op, which came from none."""
    return json.loads(row.conditions)["sha256"] if row.conditions else None


def _append(
    table: LatencyTable, logs: Sequence[_Log], shapes: NetworkShape, rounds: Mapping[str, int]
) -> dict[str, int]:
    """Add what the table lacks of the logs, and say how many rows that was, by the log's sha256."""
    following = itertools.count(max(rounds.values(), default=-1) + 1)
    timings = {
        log.sha256: _timings(log, shapes, rounds[log.sha256] if log.sha256 in rounds else next(following))
        for log in logs
    }
    for log in logs:
        keys = {timing.workload for timing in timings[log.sha256]}
        for row in table.rows:
            if _sha256(row) == log.sha256 and row.workload not in keys:
                raise ImportLogError(
                    f"{log.path} is in {table.path} already, as another network (one with '{row.workload[:80]}'): "
                    "give the same --model and --channels, or another --out"
                )
    if table.latency_us(NOOP.text) is None:
        table.append(Timing(NOOP.text, 0, wall=Summary(None, None, 0.0, None)))
    added = {}
    for sha256, rows in timings.items():
        lacking = [timing for timing in rows if not table.has(timing.workload, timing.round)]
        for timing in lacking:
            table.append(timing)
        added[sha256] = len(lacking)
    return added


def _timings(log: _Log, shapes: NetworkShape, index: int) -> list[Timing]:
    """A row a distinct shape, the mean of its occurrences, and one of the whole network."""
    run, n = log.profile.run, log.runs or 0
    rows = [
        Timing(
            workload=shape.text,
            round=index,
            n=n,
            wall=Summary(None, None, statistics.fmean(layer.us for layer in layers), None),
            conditions=log.conditions(op for layer in layers for op in layer.ops),
        )
        for shape, layers in _by_shape([log.join]).items()
    ]
    if len(shapes) > 1 and run is not None:
        wall = Summary(run.min_us, run.median_us, run.mean_us, run.std_us)
        rows.append(Timing(network_text(shapes), index, n, wall=wall, conditions=log.conditions()))
    return rows


def _by_shape(joins: Iterable[Join]) -> dict[LayerShape, list[LayerOps]]:
    layers = defaultdict(list)
    for one in joins:
        for layer in one.layers:
            layers[layer.shape].append(layer)
    return layers


def _errors_pct(table: LatencyTable, joins: Sequence[Join]) -> list[float]:
    """How far the table is off, for each distinct shape of the logs that it can tell, in percent of what they say."""
    predictor = Predictor(table)
    errors = []
    for shape, layers in _by_shape(joins).items():
        measured_us = statistics.fmean(layer.us for layer in layers)
        try:
            predicted_us = predictor.layer_us(shape)
        except MissingShapeError:
            continue
        if measured_us > 0:
            errors.append(100 * abs(predicted_us / measured_us - 1))
    return errors


def _left_out(logs: Sequence[_Log]) -> list[LeftOut]:
    total_ms = sum(log.profile.total_ms for log in logs)
    times_ms: dict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    for log in logs:
        for op in log.join.left_out:
            times_ms[op.node_type] += op.avg_ms
            counts[op.node_type] += 1
    return [LeftOut(op, round(counts[op] / len(logs)), 100 * ms / total_ms) for op, ms in times_ms.items()]


def _spread_pct(values: Sequence[float]) -> float | None:
    mean = statistics.fmean(values)
    return 100 * (max(values) - min(values)) / mean if len(values) > 1 and mean > 0 else None


def _layer_spread_pct(joins: Sequence[Join]) -> float | None:
    spreads = [_spread_pct([layer.us for layer in layers]) for layers in zip(*(j.layers for j in joins), strict=True)]
    known = [spread for spread in spreads if spread is not None]
    return statistics.fmean(known) if known else None
