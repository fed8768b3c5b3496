"""What a timing on a phone was made under: kept with its row in the table."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass


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
        return json.dumps({name: value for name, value in asdict(self).items() if value not in (None, (), [])})


def measured_by(text: str) -> str | None:
    """Which phone measured the row with these conditions, where they say so."""
    found = re.search(r'"serial": "([^"\\]*)"', text)
    return found[1] if found else None


def suspicions(text: str) -> list[str]:
    """Why the row with these conditions cannot be trusted; empty for one that can."""
    if '"suspect"' not in text:
        return []
    return list(json.loads(text).get("suspect", []))
