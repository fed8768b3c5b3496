"""What a latency table holds, in figures."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from amc_latency.device.base import source_word
from amc_latency.device.conditions import measured_by, suspicions
from amc_latency.device.rounds.measure import spread_pct, statistic_text
from amc_latency.lut.table.headers import foreign_rows
from amc_latency.lut.table.measurements import NETWORK, kind_of
from amc_latency.lut.table.table import LatencyTable

_SHARES = (("median", 0.5), ("p90", 0.9))
"""Quantiles of how far a key's rounds lie apart."""


@dataclass(frozen=True)
class Overview:
    """A table's header and what stands under it."""

    table: str
    device: str
    model: str
    runtime: str
    figures: str
    """`measured` or `estimated`"""
    protocol: dict[str, Any]
    statistic: str
    """what a latency is, in words"""
    layers: dict[str, int]
    """by kind"""
    networks: int
    rows: int
    rounds: dict[int, int]
    """layers and networks by how many rounds of them were timed"""
    spread_pct: dict[str, float] | None
    """half the range of a layer's rounds, in percent of its latency: median and p90 over all; None for single rounds"""
    suspect: int
    errors: int
    """layers and networks that could not be timed"""
    measured_by: dict[str, int]
    """rows by phone, core or GPU, where they say it"""
    foreign: int
    """rows that came from tables with another header"""


def overview(table: LatencyTable) -> Overview:
    """Raises nothing: a table that could be read has these."""
    rounds_us = {key: table.rounds_us(key) for key in table.keys}
    kinds = Counter(map(kind_of, rounds_us))
    networks = kinds.pop(NETWORK, 0)
    spreads = [pct for each in rounds_us.values() if (pct := spread_pct(each, table.protocol)) is not None]
    spread = {name: round(float(np.quantile(spreads, share)), 3) for name, share in _SHARES if spreads}
    # Many rows have none, or the same.
    identity, conditions = table.identity, Counter(row.conditions for row in table.lines())
    by: Counter[str] = Counter()
    for each, rows in conditions.items():
        if who := measured_by(each):
            by[who] += rows
    return Overview(
        table=str(table.path),
        device=identity.name,
        model=identity.model,
        runtime=identity.runtime,
        figures=source_word(identity.estimated),
        protocol=asdict(table.protocol),
        statistic=statistic_text(table.protocol, table.protocol.rounds),
        layers=dict(sorted(kinds.items())),
        networks=networks,
        rows=table.row_count,
        rounds=dict(sorted(Counter(map(len, rounds_us.values())).items())),
        spread_pct=spread or None,
        suspect=sum(rows for each, rows in conditions.items() if suspicions(each)),
        errors=len(table.errors),
        measured_by=dict(by.most_common()),
        foreign=sum(foreign_rows(table).values()),
    )
