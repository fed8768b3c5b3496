"""One thing that `lut check` found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """What is wrong or worth knowing, how often, the worst example, and what to do about it."""

    severity: Severity
    """error: the table cannot be used as it is; warning: figures may be off; note: worth knowing"""
    what: str
    count: int
    text: str
    worst: str = ""
    advice: str = ""
