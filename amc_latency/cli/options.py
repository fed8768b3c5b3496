"""What several commands share: options that are no field of theirs alone, and how a result is printed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from amc_latency.cli.signature import option
from amc_latency.console import Console, put
from amc_latency.search.config import SearchConfig

LutOption = Annotated[Path | None, option(SearchConfig, "lut")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="print one JSON object and nothing else", rich_help_panel="Output")
]
ChannelsOption = Annotated[
    str | None,
    typer.Option(
        "--channels", help="one count a coupled group in network order: 24,48,96,...", rich_help_panel="Network"
    ),
]
DataOption = Annotated[str, option(SearchConfig, "data")]
SeedOption = Annotated[int, option(SearchConfig, "seed")]
EstimateOption = Annotated[bool, option(SearchConfig, "estimate")]
AcceleratorOption = Annotated[str | None, option(SearchConfig, "accelerator")]
OutOption = Annotated[Path, typer.Option("--out", help="file to write", rich_help_panel="Output")]


def counts_of(channels: str | None) -> tuple[int, ...] | None:
    """What `--channels` says. Raises `UserError` for what is no list of counts."""
    from amc_latency.models.load import parse_counts

    return None if channels is None else parse_counts(channels)


def show(report: Any, as_json: bool, text: Callable[[Any], None], console: Console) -> None:
    """Print a result: its fields as JSON, or as `text` words it."""
    if getattr(report, "note", None):
        report = replace(report, note=console.words(report.note))
    if as_json:
        print_json(asdict(report))
    else:
        text(report)


def fields_text(report: Any) -> None:
    """A line a field."""
    for name, value in asdict(report).items():
        put(f"{name:20} {value}")


def print_json(value: Any) -> None:
    """One JSON object on standard output."""
    print(json.dumps(value))
