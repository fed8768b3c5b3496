"""What a table's row keeps beside its figures: what it was measured under, and whose it was before it was merged."""

from __future__ import annotations

import msgspec
from amc_latency.android_bench.safe.records import reader
from amc_latency.device import conditions
from amc_latency.device.base import Protocol


class Origin(msgspec.Struct, frozen=True):
    """The header of another table, from which the row came; fields that a later version adds are left out."""

    name: str
    model: str
    runtime: str
    protocol: Protocol
    estimated: bool = False


class RowConditions(conditions.RowConditions, frozen=True):
    """All of a row's conditions that anything is read from."""

    origin: Origin | None = msgspec.field(name="from", default=None)
    sha256: str | None = None
    """of the log or block table that the row came from"""


read = reader(RowConditions)
"""The conditions in a row's last cell, which must not be empty. Raises `RecordError`."""


def sha256_of(conditions: str) -> str | None:
    """Of the file that the row with these conditions came from; None for one that was measured."""
    return read(conditions).sha256 if conditions else None
