"""Who measured a table, how two such headers differ, and what a row keeps of one when it moves to another's table."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from typing import Any, NamedTuple

from amc_latency.android_bench.safe.records import from_json
from amc_latency.device import base
from amc_latency.device.base import DeviceIdentity, Protocol, Timing
from amc_latency.lut.table import row_conditions
from amc_latency.lut.table.table import LatencyTable

_FROM = "from"
_MOST_NAMED = 4


class Header(NamedTuple):
    """What must be alike for rows to stand in one table."""

    identity: DeviceIdentity
    protocol: Protocol


def header_of(table: LatencyTable) -> Header:
    """The header that all rows of the table are under, but those that `origin` tells another of."""
    return Header(table.identity, table.protocol)


def differences(one: Header, other: Header) -> dict[str, tuple[object, object]]:
    """The fields in which two headers differ, with both values; `device` is the identity's name."""
    unlike = base.differences(one.identity, other.identity) | base.differences(one.protocol, other.protocol)
    return {"device" if name == "name" else name: both for name, both in unlike.items()}


def differences_text(unlike: dict[str, tuple[object, object]]) -> str:
    """The first differing fields in a line, each with both values."""
    texts = [f"{name} '{a}' and '{b}'" for name, (a, b) in unlike.items()]
    more = len(texts) - _MOST_NAMED
    return "; ".join(texts[:_MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")


def marked(timing: Timing, header: Header) -> Timing:
    """The row with a note of the header that it was measured under; one that has such a note keeps it."""
    if origin(timing) is not None:
        return timing
    conditions = from_json(timing.conditions, dict[str, Any]) if timing.conditions else {}
    conditions[_FROM] = {**asdict(header.identity), "protocol": asdict(header.protocol)}
    return replace(timing, conditions=json.dumps(conditions))


def origin(timing: Timing) -> Header | None:
    """The header that the row was measured under, where it is not its table's own."""
    # Most rows have no such note, and reading JSON costs more than looking for its name.
    if f'"{_FROM}"' not in timing.conditions:
        return None
    found = row_conditions.read(timing.conditions).origin
    if found is None:
        return None
    return Header(DeviceIdentity(found.name, found.model, found.runtime, found.estimated), found.protocol)


def foreign_rows(table: LatencyTable) -> Counter[Header]:
    """How many rows came from each other header, by merging with force."""
    own = header_of(table)
    marked_rows = (row.timing for row in table.lines_with(f'"{_FROM}"'.encode()))
    return Counter(header for timing in marked_rows if (header := origin(timing)) is not None and header != own)


def holds_estimates(table: LatencyTable) -> bool:
    """Whether any figure in the table may be one that nobody measured."""
    return table.identity.estimated or any(header.identity.estimated for header in foreign_rows(table))


def foreign_text(table: LatencyTable) -> str | None:
    """In a sentence, how many rows are not of the table's header and what differs; None where all are."""
    foreign = foreign_rows(table)
    if not foreign:
        return None
    (worst, _), *_ = foreign.most_common(1)
    return (
        f"{sum(foreign.values()):,} rows of {table.path} were measured otherwise than its header says "
        f"({differences_text(differences(header_of(table), worst))})"
    )
