"""The command line: each command parses its options, calls one function of the library, and prints what it returns."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer
from typer.main import get_command

from amc_latency import __version__, commands
from amc_latency.cli.lut import lut_app
from amc_latency.cli.options import (
    ChannelsOption,
    EstimateOption,
    JsonOption,
    LutOption,
    OutOption,
    counts_of,
    print_json,
    show,
)
from amc_latency.cli.signature import Given, QuietOption, VerboseOption, command
from amc_latency.cli.stopping import stop_by_signals
from amc_latency.cli.train import finetune, train
from amc_latency.cli.wording import Audience, Options
from amc_latency.console import Console, put
from amc_latency.device.kinds import PhoneOptions
from amc_latency.export.options import ExportOptions
from amc_latency.measuring.config import AccuracyConfig, BenchConfig, ProfileConfig
from amc_latency.models.load import NetworkOptions
from amc_latency.search.config import SearchConfig

app = typer.Typer(
    help="Compress a convolutional network for a device, by latency measured on that device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(lut_app, name="lut")
AnyDeviceOption = Annotated[
    str | None,
    typer.Option("--device", help="whose table: host unless set, or whoever measured --lut", rich_help_panel="Device"),
]


def _print_version(asked: bool) -> None:
    if asked:
        put(f"amc-latency {__version__}")
        raise typer.Exit


@app.callback()
def everywhere(
    context: typer.Context,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    """Compress a convolutional network for a device, by latency measured on that device."""
    context.ensure_object(Audience).hears(quiet, verbose)


@command(app)
def devices(
    addresses: Annotated[
        list[str] | None, typer.Argument(metavar="[HOST:PORT]...", help="phones in the network to ask as well")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Which devices there are, and what is attached now."""
    from amc_latency.measuring.devices import devices_report, devices_text

    report = devices_report(addresses or ())
    if as_json:
        print_json(report)
    else:
        devices_text(report)


@command(app, network=NetworkOptions, config=ProfileConfig, phone=PhoneOptions)
def profile(
    console: Console, given: set[str], network: Given, config: Given, phone: Given, as_json: JsonOption = False
) -> None:
    """Time every layer shape that a search of the model can reach: the device's latency table."""
    from amc_latency.measuring.report import profile_text

    options = ProfileConfig(**config), NetworkOptions(**network), PhoneOptions(**phone)
    show(commands.profile(*options, console, given), as_json, profile_text, console)


@command(app, network=NetworkOptions)
def predict(
    console: Console,
    network: Given,
    device: AnyDeviceOption = None,
    channels: ChannelsOption = None,
    lut: LutOption = None,
    estimate: EstimateOption = False,
    as_json: JsonOption = False,
) -> None:
    """A network's milliseconds from the latency table, layer by layer; without a table its MACs and parameters."""
    counts = counts_of(channels)
    report, table = commands.predict(NetworkOptions(**network), device, lut, counts, estimate, console)
    from amc_latency.measuring.report import prediction_text

    show(report, as_json, prediction_text, console)
    if table is not None and not as_json:
        how = "estimated for" if report.estimated else "measured on"
        put(f"by {report.table}, {how} {table.identity.text}")


@command(app, network=NetworkOptions)
def inspect(
    console: Console,
    network: Given,
    device: AnyDeviceOption = None,
    lut: LutOption = None,
    as_json: JsonOption = False,
) -> None:
    """What of a network can be cut: its layers, which channels move together and why, and what is left whole."""
    report = commands.inspect(NetworkOptions(**network), device, lut, console)
    from amc_latency.measuring.inspection import inspection_text

    show(report, as_json, inspection_text, console)


@command(app, options=SearchConfig, phone=PhoneOptions)
def search(
    console: Console,
    options: Given,
    phone: Given,
    pareto: Annotated[
        int | None,
        typer.Option(
            "--pareto",
            help="this many targets, from the one given up to the uncut network",
            rich_help_panel="Target",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="run folder; a search that is there goes on", rich_help_panel="Output"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Find the channel counts that meet the target with the least accuracy lost; cut, fine-tune, export, measure."""
    outcome = commands.search(options, out, pareto, PhoneOptions(**phone), console)
    show(outcome.result, as_json, outcome.text, console)
    outcome.check(outcome.result)


train(app)
finetune(app)


@command(app, network=NetworkOptions, options=ExportOptions)
def export(
    console: Console,
    given: set[str],
    network: Given,
    options: Given,
    out: OutOption,
    channels: ChannelsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a network as .tflite in a precision, and see how far its outputs are from PyTorch's."""
    counts = counts_of(channels)
    report = commands.export(NetworkOptions(**network), counts, ExportOptions(**options), out, console, given)
    from amc_latency.cli.export_text import export_text

    show(report, as_json, lambda report: export_text(report, out), console)


@command(app, config=AccuracyConfig)
def accuracy(
    console: Console,
    config: Given,
    file: Annotated[Path, typer.Argument(help="any .tflite that takes one image and returns a figure a class")],
    as_json: JsonOption = False,
) -> None:
    """How many test images a .tflite itself gets right, run by LiteRT."""
    report = commands.accuracy(AccuracyConfig(file, **config), console)
    from amc_latency.measuring.accuracy import accuracy_text

    show(report, as_json, accuracy_text, console)


@command(app, config=BenchConfig, phone=PhoneOptions)
def bench(
    console: Console,
    config: Given,
    phone: Given,
    file: Annotated[Path, typer.Argument(help="any .tflite")],
    as_json: JsonOption = False,
) -> None:
    """Time a .tflite on a device, alone or beside others."""
    options = PhoneOptions(**phone)
    commands.check_phone(options)
    from amc_latency.cli.bench_text import bench_text
    from amc_latency.measuring.bench import bench as run_bench
    from amc_latency.measuring.bench import check_speedup

    report = run_bench(BenchConfig(file, phone=options, **config), console)
    show(report, as_json, bench_text, console)
    check_speedup(report)


def spelled() -> Options:
    """The options of all commands by their parameters' names, which are those of the library's arguments."""
    found: dict[str, tuple[str, ...]] = {}
    groups = [get_command(app)]
    while groups:
        group = groups.pop()
        for each in getattr(group, "commands", {}).values():
            groups.append(each)
        for parameter in group.params:
            if parameter.param_type_name == "option" and parameter.name is not None:
                sides = [side for side in (parameter.opts, parameter.secondary_opts) if side]
                found.setdefault(parameter.name, tuple(side[0] for side in sides))
    return found


def main() -> None:
    """Run a command; a user's mistake exits with 2 and a failed job with 1, each with a message and no traceback.

    With --verbose a failed job's message comes after its traceback.
    """
    from amc_latency.cli.threads import share_cores
    from amc_latency.errors import error_text, exit_code

    share_cores()

    # Whatever ends a command, a phone is to be left as it was.
    stop_by_signals()
    audience = Audience(spelled)
    try:
        app(obj=audience)
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise
        if audience.verbose and code == 1:
            put("".join(traceback.format_exception(error)), file=sys.stderr)
        put(f"error: {audience.words(error_text(error))}", file=sys.stderr)
        sys.exit(code)
