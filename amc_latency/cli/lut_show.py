"""`amc-latency lut show`: what a table holds, and its staircases as text and pictures."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from amc_latency.android_bench.safe.files import replacing
from amc_latency.cli.lut_text import overview_text
from amc_latency.console import put
from amc_latency.errors import OptionError, UserError
from amc_latency.lut.audit.overview import overview
from amc_latency.lut.audit.sweep_plot import MOST_IN_ONE, png_plot, text_plot
from amc_latency.lut.audit.sweeps import FEWEST_POINTS, Sweep
from amc_latency.lut.table.table import LatencyTable


def show_report(table: LatencyTable, chosen: Sequence[Sweep], pictures: Sequence[Path]) -> dict[str, Any]:
    """The overview's fields, each staircase's points, and the files written."""
    return {
        **asdict(overview(table)),
        "staircases": [
            {
                "title": sweep.title,
                "kind": sweep.shape.kind,
                "over": sweep.over,
                "step": sweep.step,
                "jumps": sweep.jumps,
                "points": [[count, us] for count, us in sorted(sweep.points.items())],
                "learned": [[count, round(us, 3)] for count, us in sorted(sweep.learned.items())],
            }
            for sweep in chosen
        ],
        "pictures": [str(path) for path in pictures],
    }


def show_text(table: LatencyTable, chosen: Sequence[Sweep], pictures: Sequence[Path]) -> None:
    """The overview, then a plot a staircase."""
    overview_text(overview(table))
    for sweep in chosen:
        # A frame of question marks is better than none.
        encoding = sys.stdout.encoding or "utf-8"
        put("\n" + text_plot(sweep).encode(encoding, "replace").decode(encoding))
    if not chosen:
        put(f"no staircase: no {FEWEST_POINTS} layers differ in their channels only")
    for path in pictures:
        put(f"wrote {path}")


def write_pictures(table: LatencyTable, chosen: Sequence[Sweep], png: Path | None, folder: Path | None) -> list[Path]:
    """One PNG with all staircases, a PNG each in `folder`, or both. Raises `UserError` where there is none to draw."""
    if (png or folder) and not chosen:
        raise UserError(
            f"{table.path} has no staircase to draw: no {FEWEST_POINTS} layers differ in their channels only"
        )
    if png and len(chosen) > MOST_IN_ONE:
        raise OptionError(
            "png",
            f"has room for {MOST_IN_ONE} plots, not {len(chosen)}: pick some by `layer`, or name `out`, a file each",
        )
    identity = table.identity
    title = ", ".join((identity.name, identity.model, identity.runtime))
    if identity.estimated:
        title += ": estimated, not measured"
    drawings: dict[Path, Sequence[Sweep]] = {}
    if png is not None:
        drawings[png] = chosen
    if folder is not None:
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--out {folder} is no folder: name another")
        drawings |= {folder / f"{_file_name(sweep)}.png": [sweep] for sweep in chosen}
    for path, drawn in drawings.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(png_plot(drawn, title))
    return list(drawings)


def _file_name(sweep: Sweep) -> str:
    return re.sub(r"[^a-z0-9]+", "-", sweep.title.replace("*", "n")).strip("-")
