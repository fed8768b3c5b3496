"""A latency table as CSV (RFC 4180), for spreadsheets and data frames."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Any, TextIO

from amc_latency.device.base import Summary, Timing, source_word
from amc_latency.device.conditions import measured_by, suspicions
from amc_latency.device.rounds.measure import summarise
from amc_latency.lut.shapes.shape import LayerShape, parse_network
from amc_latency.lut.table.headers import origin
from amc_latency.lut.table.measurements import NETWORK, timed_rows
from amc_latency.lut.table.table import LatencyTable

_SHAPE = tuple(field.name for field in fields(LayerShape))
_STATISTICS = tuple(field.name for field in fields(Summary))
LAYER_COLUMNS = (*_SHAPE, "latency_us", "rounds", "n", "spread_pct", "suspect", "figures", "error", "key")
ROW_COLUMNS = (
    *_SHAPE,
    *("round", "n", "latency_us"),
    *(f"{clock}_{name}" for clock in ("cpu", "wall") for name in _STATISTICS),
    *("suspect", "measured_by", "figures", "error", "conditions", "key"),
)
Row = dict[str, Any]


def write_csv(table: LatencyTable, file: TextIO, rows: bool = False) -> int:
    """Write a line a layer or network, or one a timing, and say how many. The file must not translate line ends."""
    written = 0
    # Quotes, commas and line ends in a cell are quoted, and lines end in CRLF, as RFC 4180 has it.
    writer = csv.DictWriter(file, ROW_COLUMNS if rows else LAYER_COLUMNS, restval="")
    writer.writeheader()
    for row in _timings(table) if rows else _layers(table):
        writer.writerow(row)
        written += 1
    return written


def _layers(table: LatencyTable) -> Iterator[Row]:
    """What could not be timed has a line too, with its error."""
    for key, timings in timed_rows(table).items():
        measured = summarise(timings, table.protocol)
        spread_pct = "" if measured.spread_pct is None else round(measured.spread_pct, 3)
        yield {
            **_shape(key),
            "latency_us": table.latency_us(key),
            "rounds": measured.rounds,
            "n": measured.n,
            "spread_pct": spread_pct,
            "suspect": sum(bool(suspicions(timing.conditions)) for timing in timings),
            "figures": _figures(table, timings),
        }
    for key, error in table.errors.items():
        yield {**_shape(key), "rounds": 0, "n": 0, "suspect": 0, "figures": _figures(table, []), "error": error}


def _timings(table: LatencyTable) -> Iterator[Row]:
    for timing in table.rows:
        summaries = {"cpu": timing.cpu, "wall": timing.wall}
        yield {
            **_shape(timing.workload),
            "round": timing.round,
            "n": timing.n,
            "latency_us": _cell(timing.counted_us(table.protocol)),
            **{
                f"{clock}_{name}": _cell(value)
                for clock, summary in summaries.items()
                if summary is not None
                for name, value in asdict(summary).items()
            },
            "suspect": "; ".join(suspicions(timing.conditions)),
            "measured_by": _cell(measured_by(timing.conditions)),
            "figures": _figures(table, [timing]),
            "error": _cell(timing.error),
            "conditions": timing.conditions,
        }


def _shape(key: str) -> Row:
    shapes = parse_network(key)
    return {**(asdict(shapes[0]) if len(shapes) == 1 else {"kind": NETWORK}), "key": key}


def _figures(table: LatencyTable, timings: list[Timing]) -> str:
    headers = [header for timing in timings if (header := origin(timing)) is not None]
    estimated = table.identity.estimated or any(header.identity.estimated for header in headers)
    return source_word(estimated)


def _cell(value: object) -> object:
    return "" if value is None else value
