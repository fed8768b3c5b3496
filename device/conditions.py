"""What a timing was made under, on a phone, a GPU or a core of its own: kept with its row in the table."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, TypeVar

import msgspec
from amc_latency.android_bench.safe.limits import COUNT
from amc_latency.android_bench.safe.records import reader

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


T = TypeVar("T")


@dataclass(frozen=True)
class Conditions:
    """One row's circumstances; None is what the phone would not say."""

    serial: str
    build: str | None
    """the system's build fingerprint"""
    binary_sha256: str
    flags: str
    cores: tuple[int, ...]
    khz_before: tuple[int | None, ...]
    """each core's frequency right before the model"""
    khz_after: tuple[int | None, ...]
    temperature_c: tuple[float | None, float | None]
    """the hottest zone that counts, before and after the block"""
    battery_pct: int | None
    battery_c: float | None
    charging: bool | None
    thermal_status: int | None
    """of Android's thermal service, after the block: 0 is none, 6 shutdown"""
    sentinel_us: tuple[float | None, float | None]
    """the sentinel layer before and after the block"""
    delegated: bool | None
    """whether XNNPACK took every operator"""
    tries: int
    """how often it was timed until it could be trusted"""
    suspect: tuple[str, ...] = ()
    """why it cannot be trusted, if it was kept all the same"""
    time_s: int | None = None
    """the phone's clock after the block, seconds since 1970"""

    @property
    def text(self) -> str:
        """One line of JSON without what is unknown or empty; keys are this class's fields."""
        return conditions_text(self)


def conditions_text(conditions: DataclassInstance) -> str:
    """A row's conditions, a phone's or another device's, as one line of JSON without what is unknown or empty."""
    return json.dumps({name: value for name, value in asdict(conditions).items() if value not in (None, (), [])})


class RowConditions(msgspec.Struct, frozen=True):
    """What is read of a row's conditions again, whoever wrote them; all else is for people to look at."""

    serial: str | None = None
    core: Annotated[int, msgspec.Meta(ge=0, le=COUNT)] | None = None
    reference_us: float | None = None
    reference_hot_us: float | None = None
    sentinel_us: float | tuple[float | None, ...] | None = None
    suspect: tuple[str, ...] = ()
    busy: bool = False


_read = reader(RowConditions)


def read_conditions(text: str) -> RowConditions:
    """Raises `RecordError` for what are no conditions; a table has checked those of its rows when it was read."""
    return _read(text) if text else RowConditions()


def measured_by(text: str) -> str | None:
    """Which phone, or which core of this computer, measured the row with these conditions, where they say so."""
    found = read_conditions(text)
    return found.serial or (None if found.core is None else f"core {found.core}")


def reference_us(text: str) -> float | None:
    """What the sentinel takes at the speed at which the row with these conditions is given, if it is at any."""
    return read_conditions(text).reference_us or None


def reference_hot_us(text: str) -> float | None:
    """The same of its second run, back to back, where the row is of a state in which there is one."""
    return read_conditions(text).reference_hot_us or None


BUSY = "busy"
"""In a row's conditions: a neighbour slowed the sentinel in nearly all runs, set to reference speed only roughly."""
_LEAST_CALM = 2
_CALM_SHARE = 0.25


_IS_BUSY = f'"{BUSY}": true'


def is_busy(text: str | bytes) -> bool:
    """Whether the row with these conditions was timed beside a neighbour."""
    return _IS_BUSY in text if isinstance(text, str) else _IS_BUSY.encode() in text


def calm_of(items: Sequence[T], busy: Sequence[bool], least: int = _LEAST_CALM) -> list[T]:
    """The items that are not busy, if there are `least` and a quarter of all; else all."""
    calm = [item for item, is_one in zip(items, busy, strict=True) if not is_one]
    return calm if len(calm) >= max(least, _CALM_SHARE * len(items)) else list(items)


def commonest_suspicion(rows: Iterable[list[str]]) -> tuple[str, int] | None:
    """Of the reasons of many rows the commonest, and how often: `drift 8.1 %` and `drift 9 %` are one, `drift .. %`."""
    reasons = Counter(re.sub(r"[0-9.]+", "..", reason) for row in rows for reason in row)
    return reasons.most_common(1)[0] if reasons else None


def suspicions(text: str) -> list[str]:
    """Why the row with these conditions cannot be trusted; empty for one that can."""
    return list(read_conditions(text).suspect)
