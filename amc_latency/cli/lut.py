"""`amc-latency lut ...`: the commands for latency tables."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from amc_latency.arguments.settings import refuse_unused
from amc_latency.cli.options import ChannelsOption, JsonOption, counts_of, print_json, show
from amc_latency.cli.signature import Given, command
from amc_latency.commands import check_out, import_timings
from amc_latency.console import Console, put
from amc_latency.models.load import NetworkOptions

lut_app = typer.Typer(help="Latency tables.", no_args_is_help=True)


@command(lut_app, "import", network=NetworkOptions)
def import_(
    console: Console,
    given: set[str],
    network: Given,
    logs: Annotated[
        list[Path], typer.Argument(help="op-profile logs of one network, or ProxylessNAS or OFA block tables")
    ],
    out: Annotated[Path, typer.Option("--out", help="latency table to make or add to")],
    channels: ChannelsOption = None,
    format: Annotated[
        Literal["auto", "op-profile", "proxylessnas", "ofa"], typer.Option("--format", help="what the files are")
    ] = "auto",
    device: Annotated[str, typer.Option("--device", help="whose timings these are")] = "imported",
    force: Annotated[bool, typer.Option("--force", help="take logs that look like another network's")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a latency table of op-profile logs or block tables that are there already, without any device."""
    outcome = import_timings(logs, out, format, device, network, counts_of(channels), force, given)
    show(outcome.result, as_json, outcome.text, console)


TableArgument = Annotated[Path, typer.Argument(metavar="TABLE", help="latency table")]


@command(lut_app, "show")
def show_(
    console: Console,
    given: set[str],
    table: TableArgument,
    kind: Annotated[str | None, typer.Option("--kind", help="the staircases of this kind of layer only")] = None,
    layer: Annotated[
        str | None, typer.Option("--layer", help="those whose title has this text, or of the layer with this key")
    ] = None,
    png: Annotated[Path | None, typer.Option("--png", help="draw them into this file")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="draw each into a file of its own in this folder")] = None,
    precision: Annotated[
        bool, typer.Option("--precision", help="how long layers take in each precision, against float32")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """What a table holds, and its staircases: latency over channels; the longest of each kind unless set."""
    from amc_latency.cli.lut_show import show_report, show_text, write_pictures
    from amc_latency.cli.lut_text import precision_text
    from amc_latency.lut.audit.precisions import precision_ratios
    from amc_latency.lut.audit.sweeps import staircases
    from amc_latency.lut.table.table import LatencyTable

    if precision:
        refuse_unused(
            given, dict.fromkeys(("layer", "png", "out"), "it is for staircases, which `precision` has none of")
        )
        show(precision_ratios(LatencyTable.open(table), kind), as_json, precision_text, console)
        return

    if png is not None:
        check_out(png, "png")
    opened = LatencyTable.open(table)
    chosen = staircases(opened, kind, layer)
    pictures = write_pictures(opened, chosen, png, out)
    if as_json:
        print_json(show_report(opened, chosen, pictures))
    else:
        show_text(opened, chosen, pictures)


@command(lut_app, "check")
def check_(console: Console, table: TableArgument, as_json: JsonOption = False) -> None:
    """Whether a table can be trusted: damage, duplicates, outliers, drift, what it was measured under."""
    from amc_latency.cli.lut_text import check_text
    from amc_latency.lut.audit.check import check

    report = check(table)
    show(report, as_json, check_text, console)
    if not report.ok:
        raise typer.Exit(1)


@command(lut_app, "diff")
def diff_(
    console: Console,
    first: Annotated[Path, typer.Argument(metavar="A", help="latency table")],
    second: Annotated[Path, typer.Argument(metavar="B", help="another, of a second device or runtime")],
    as_json: JsonOption = False,
) -> None:
    """Two tables side by side: ratio by kind, rank correlation, what stands out."""
    from amc_latency.cli.lut_text import diff_text
    from amc_latency.lut.audit.compare import diff
    from amc_latency.lut.table.table import LatencyTable

    show(diff(LatencyTable.open(first), LatencyTable.open(second)), as_json, diff_text, console)


@command(lut_app, "merge")
def merge_(
    console: Console,
    tables: Annotated[list[Path], typer.Argument(metavar="A B...", help="latency tables; the first one's rows win")],
    out: Annotated[Path, typer.Option("--out", help="the table to write")],
    force: Annotated[bool, typer.Option("--force", help="merge across headers that differ, and replace --out")] = False,
    as_json: JsonOption = False,
) -> None:
    """Several tables of one device, runtime and protocol as one."""
    from amc_latency.cli.lut_text import merge_text
    from amc_latency.lut.table.merge import merge

    check_out(out, over_table=True)
    show(merge(tables, out, force), as_json, merge_text, console)


@command(lut_app, "export")
def export_(
    table: TableArgument,
    csv: Annotated[str, typer.Option("--csv", metavar="FILE|-", help="file to write, - for standard output")],
    rows: Annotated[bool, typer.Option("--rows", help="a line a timing, not one a layer")] = False,
) -> None:
    """A table as CSV, for spreadsheets and data frames."""
    from amc_latency.android_bench.safe.files import replacing
    from amc_latency.lut.audit.export_csv import write_csv
    from amc_latency.lut.table.table import LatencyTable

    opened = LatencyTable.open(table)
    if csv == "-":
        if sys.stdout.isatty():
            page = io.StringIO(newline="\n")
            write_csv(opened, page, rows)
            put(page.getvalue().replace("\r\n", "\n").rstrip("\n"))
        else:
            write_csv(opened, sys.stdout, rows)
        return
    path = Path(csv)
    check_out(path, "csv")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        lines = write_csv(opened, file, rows)
    put(f"{path}: {lines:,} {'timings' if rows else 'layers and networks'}")
