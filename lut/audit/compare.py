"""Two latency tables side by side: what another device or runtime makes faster, and whether it keeps the order."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from amc_latency.lut.table.headers import differences, foreign_text, header_of
from amc_latency.lut.table.measurements import NETWORK, kind_of
from amc_latency.lut.table.table import LatencyTable, TableError

MOST_DEVIATIONS = 10
_FEWEST_RANKED = 3


@dataclass(frozen=True)
class KindRatio:
    """How one kind of layer compares."""

    kind: str
    n: int
    median: float
    """second table's latency over the first's"""
    p10: float
    p90: float


@dataclass(frozen=True)
class Deviation:
    """A layer or network whose ratio is far from the median of all."""

    key: str
    first_us: float
    second_us: float
    ratio: float
    against_median: float
    """its ratio over the median ratio"""


@dataclass(frozen=True)
class DiffReport:
    """What two tables have in common and how they differ."""

    first: str
    second: str
    header: dict[str, tuple[object, object]]
    """fields of the headers that differ, with both values"""
    common: int
    only_first: int
    only_second: int
    kinds: list[KindRatio]
    ratio: float
    """median over all in common, second over first"""
    layer_rank_correlation: float | None
    """Spearman's; None for fewer than three layers or equal latencies"""
    network_rank_correlation: float | None
    deviations: list[Deviation]
    notes: list[str]


def diff(first: LatencyTable, second: LatencyTable) -> DiffReport:
    """Compare what both tables timed. Raises `TableError` if that is nothing."""
    first_us, second_us = _positive(first), _positive(second)
    common = [key for key in first_us if key in second_us]
    if not common:
        raise TableError(
            f"{first.path} and {second.path} have no layer and no network in common, so there is nothing to compare: "
            "profile the same model on both devices"
        )
    ratios = {key: second_us[key] / first_us[key] for key in common}
    by_kind: dict[str, list[str]] = defaultdict(list)
    for key in common:
        by_kind[kind_of(key)].append(key)
    layers = [key for key in common if key not in by_kind[NETWORK]]
    middle = float(np.quantile(list(ratios.values()), 0.5))
    deviations = sorted(ratios, key=lambda key: -abs(math.log(ratios[key] / middle)))
    return DiffReport(
        first=str(first.path),
        second=str(second.path),
        header=differences(header_of(first), header_of(second)),
        common=len(common),
        only_first=len(first_us) - len(common),
        only_second=len(second_us) - len(common),
        kinds=[_kind_ratio(kind, [ratios[key] for key in keys]) for kind, keys in sorted(by_kind.items()) if keys],
        ratio=middle,
        layer_rank_correlation=_rank_correlation([(first_us[key], second_us[key]) for key in layers]),
        network_rank_correlation=_rank_correlation([(first_us[key], second_us[key]) for key in by_kind[NETWORK]]),
        deviations=[
            Deviation(key, first_us[key], second_us[key], ratios[key], ratios[key] / middle)
            for key in deviations[:MOST_DEVIATIONS]
        ],
        notes=[text for table in (first, second) for text in _notes(table)],
    )


def _positive(table: LatencyTable) -> dict[str, float]:
    """A no-op that nobody timed stands as 0 in imported tables, and has no ratio."""
    figures = ((key, table.latency_us(key)) for key in table.keys)
    return {key: us for key, us in figures if us}


def _kind_ratio(kind: str, ratios: Sequence[float]) -> KindRatio:
    p10, median, p90 = (float(np.quantile(ratios, share)) for share in (0.1, 0.5, 0.9))
    return KindRatio(kind, len(ratios), median, p10, p90)


def _rank_correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    from scipy.stats import spearmanr

    # Equal latencies have no order to compare.
    if len(pairs) < _FEWEST_RANKED or any(len(set(side)) == 1 for side in zip(*pairs, strict=True)):
        return None
    return float(spearmanr(pairs).statistic)


def _notes(table: LatencyTable) -> list[str]:
    notes = [f"the figures of {table.path} are estimated, not measured"] if table.identity.estimated else []
    foreign = foreign_text(table)
    return [*notes, foreign] if foreign else notes
