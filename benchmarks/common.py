"""What the benchmarks share: places, options, the machine that figures are of, and rows that a stopped run resumes.

Run each from the checkout, as `python -m benchmarks.NAME`.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[1]
BUNDLED_TABLE = ROOT / "lut" / "tables" / "host-epyc-zen4.tsv"

Value = TypeVar("Value")


def parser_of(text: str | None, json: bool = False) -> argparse.ArgumentParser:
    """A parser whose help is a module's docstring as it stands; with `--json` if that is asked for."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    if json:
        parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def csv_of(kind: Callable[[str], Value]) -> Callable[[str], list[Value]]:
    """A parser of comma-separated values."""
    return lambda text: [kind(part) for part in text.split(",")]


def machine() -> str:
    """Processor, cores, system and load in a line."""
    from amc_latency.device.host.host import cpu_model

    system = f"{platform.system()} {platform.release()}"
    return f"{cpu_model()}, {os.cpu_count()} cores, {system}, load {os.getloadavg()[0]:.1f}"


def versions(*packages: str) -> str:
    """Python's version and those of installed `packages` in a line."""
    return ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)])


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV, none if it is not there."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add a row to a CSV, with the header if it is the first."""
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if is_new:
            writer.writeheader()
        writer.writerow(row)
