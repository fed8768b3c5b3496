"""Op-profile logs of a whole network -> rows of a latency table. Logs say no shapes: ops are joined to layers in order.

A log is a round, and its file's sha256 says which: the same log is never added twice, and an import that was killed is
finished by the same call. Nothing takes an overhead off: an op's time holds none, so the no-op is 0 us.
"""

from __future__ import annotations

import itertools
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from amc_latency.device.base import DeviceIdentity, Protocol, Summary, Timing
from amc_latency.lut.imports.import_log import ImportLogError, OpLog, read_log
from amc_latency.lut.imports.op_join import Join, LayerOps
from amc_latency.lut.prediction.predict import MissingShapeError, Predictor
from amc_latency.lut.shapes.shape import NOOP, LayerShape, NetworkShape, network_text
from amc_latency.lut.table.row_conditions import sha256_of
from amc_latency.lut.table.table import LatencyTable

MODEL = "model not known"
"""Logs don't say what they were made on."""
_LARGEST_DIFFERENCE_PCT = 25.0
"""Of logs of one network on one device; those of a real phone differ by a few percent."""


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
    """What an import did, how far the logs differ, and how well the table predicted them."""

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
    check_device_name(device)
    logs = [read_log(path, shapes, names) for path in paths]
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
            _check_predicted(table, errors_pct)
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


def check_device_name(device: str) -> None:
    """Raises `ImportLogError` for what a table's header and a file's name cannot hold."""
    if not re.fullmatch("[A-Za-z0-9._-]+", device):
        raise ImportLogError(f"`device` {device!r} is no plain name: give letters, digits, '.', '_' and '-'")


def check_folder(out: Path) -> None:
    """Raises `ImportLogError` where the folder of a new table is missing."""
    if not out.absolute().parent.is_dir():
        raise ImportLogError(f"`out` {out} cannot be made: there is no folder {out.parent}")


def _check_inputs(logs: Sequence[OpLog], shapes: NetworkShape) -> None:
    takes = (1, shapes[0].h, shapes[0].w, shapes[0].c_in)
    for log in logs:
        if log.input not in (None, takes):
            raise ImportLogError(
                f"{log.path} has the input {_by(log.input)}, the network takes {_by(takes)}: of another network? "
                "Give its `model` and `input`, or `force`"
            )


def _by(sizes: Iterable[int] | None) -> str:
    return "x".join(map(str, sizes or ()))


def _check_sums(logs: Sequence[OpLog]) -> None:
    spread_pct = _spread_pct([log.profile.total_ms for log in logs])
    if spread_pct is not None and spread_pct > _LARGEST_DIFFERENCE_PCT:
        least, most = (pick(logs, key=lambda log: log.profile.total_ms) for pick in (min, max))
        raise ImportLogError(
            f"the op sums of these logs differ by {spread_pct:.0f} %, from {least.profile.total_ms:.3f} ms in "
            f"{least.path} to {most.profile.total_ms:.3f} ms in {most.path}: of more than one network? "
            "Import each network's with its `channels` or `width`, or give `force`"
        )


def _check_predicted(table: LatencyTable, errors_pct: Sequence[float]) -> None:
    mean_pct = statistics.fmean(errors_pct) if errors_pct else 0.0
    if mean_pct > _LARGEST_DIFFERENCE_PCT:
        raise ImportLogError(
            f"these logs are {mean_pct:.0f} % off what the table {table.path} holds for the same layers: "
            "of another network? Give its `channels` or `width`, another `out`, or `force`"
        )


def _protocol(logs: Sequence[OpLog]) -> Protocol:
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
    check_folder(out)
    if not out.exists():
        return LatencyTable.create(out, identity, protocol)
    table = LatencyTable.open(out, writing=True)
    for what, theirs, ours in (
        *((name, getattr(table.identity, name), getattr(identity, name)) for name in ("name", "model", "runtime")),
        *((name, getattr(table.protocol, name), getattr(protocol, name)) for name in ("clock", "statistic", "threads")),
    ):
        if theirs != ours:
            device = " (see `device`)" if what == "name" else ""
            raise ImportLogError(
                f"`out` {out} is a table of {what} '{theirs}', these logs are '{ours}'{device}: name another `out`"
            )
    return table


def _log_rounds(table: LatencyTable) -> dict[str, int]:
    """The round of each log that the table holds, by the log's sha256."""
    return {sha256: row.round for row in table.rows if (sha256 := _sha256(row))}


def _sha256(row: Timing) -> str | None:
    """Of the log that the row came from; None for the no-op, which came from none."""
    return sha256_of(row.conditions)


def _append(
    table: LatencyTable, logs: Sequence[OpLog], shapes: NetworkShape, rounds: Mapping[str, int]
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
                    "give the same `model` and `channels`, or another `out`"
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


def _timings(log: OpLog, shapes: NetworkShape, index: int) -> list[Timing]:
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


def _left_out(logs: Sequence[OpLog]) -> list[LeftOut]:
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
