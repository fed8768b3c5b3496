"""What the user may say of a phone. Light: command lines make their options of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class PhoneOptions:
    """What the user may say of a phone beyond its name; what `help` says of a field is what command lines print."""

    force: bool = field(
        default=False,
        metadata={
            "panel": "Device",
            "help": "take a phone that does not match the profile, or some of whose cores are offline",
        },
    )
    transport: Literal["auto", "direct", "server"] = field(
        default="auto",
        metadata={"panel": "Device", "help": "to a phone: our own connection, or a running adb server's"},
    )
    runner: Literal["auto", "benchmark_model", "amc_bench"] = field(
        default="auto", metadata={"panel": "Device", "help": "which program times on a phone; the profile's unless set"}
    )
    runner_path: Path | None = field(
        default=None,
        metadata={"panel": "Device", "help": "that program, built for the phone; found or built unless set"},
    )
    library: Path | None = field(
        default=None,
        metadata={
            "panel": "Device",
            "help": "libLiteRt.so for the phone, which amc_bench needs",
            "option": "--litert-library",
        },
    )
