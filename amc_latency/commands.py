"""What the commands do, one function each: cheap checks first, then the heavy imports, the networks and the images.

A typo costs a second that way. The calls of `amc_latency.api` have the same steps for what a program holds already.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amc_latency.arguments.settings import refuse_unused
from amc_latency.console import Console
from amc_latency.errors import OptionError
from amc_latency.search.config import SearchConfig, run_name

if TYPE_CHECKING:
    from amc_latency.device.kinds import PhoneOptions
    from amc_latency.export.export import ExportReport
    from amc_latency.export.options import ExportOptions
    from amc_latency.lut.table.table import LatencyTable
    from amc_latency.measuring.accuracy import AccuracyReport
    from amc_latency.measuring.config import AccuracyConfig, ProfileConfig
    from amc_latency.measuring.inspection import Inspection
    from amc_latency.measuring.prediction import Prediction
    from amc_latency.measuring.profiling import ProfileReport
    from amc_latency.models.known_networks import KnownNetwork
    from amc_latency.models.load import Network, NetworkOptions
    from amc_latency.training.finetune import FinetuneResult
    from amc_latency.training.loop import EpochReport
    from amc_latency.training.recipe import Recipe


def profile(
    config: ProfileConfig, network: NetworkOptions, phone: PhoneOptions, console: Console, given: Collection[str] = ()
) -> ProfileReport:
    """Time every layer shape that a search of the network can reach. What is `given` must mean something.

    Raises `UserError` for bad input, `JobError` for what could not be timed, and what device and table raise.
    """
    check_device_and_table(config.device, config.lut, makes_table=True)
    check_phone(phone)
    from amc_latency.measuring.opening import open_device
    from amc_latency.measuring.profiling import Grid, complete_table, open_table, plan_of
    from amc_latency.measuring.workers import settle_workers
    from amc_latency.models.load import load_network

    grid = Grid(config.min_keep, config.step, config.max_keep, config.precision)
    plan = plan_of(config.plan, config.goal)
    if config.device == "replay":
        refuse_unused(given, dict.fromkeys(("plan", "goal"), "a replayed table is not added to"))
    elif config.plan == "grid":
        refuse_unused(given, {"goal": "`plan='grid'` times all of it"})
    loaded = load_network(network)
    _say_untrained(loaded, console)
    with open_device(config.device, config.lut, phone, console, config.workers) as device:
        protocol = None if config.rounds is None else replace(device.protocol, rounds=config.rounds)
        if config.lut is not None and not config.lut.exists():
            console.say(f"there is no {config.lut} yet: a new table is begun")
        table = open_table(device, protocol, config.lut, create=True, writing=True)
        assert table is not None
        settle_workers(device, loaded.graph.architecture.shapes(), table.protocol, phone.force, console)
        return complete_table(loaded, device, table, grid, console, plan)


def predict(
    network: NetworkOptions,
    device: str | None,
    lut: Path | None,
    counts: tuple[int, ...] | None,
    estimate: bool,
    console: Console,
) -> tuple[Prediction, LatencyTable | None]:
    """What the network takes, and the table that says so: the one asked for, the device's, or none.

    Without a table, or by a device's own table that holds other networks, it is the MACs and parameters, and a note.
    Raises `UserError` for bad input, and `MissingShapeError` for a table that was asked for and can't answer.
    """
    if device is not None or lut is not None:
        # The table is read below, before any network is.
        check_device_and_table(device or "host", lut if estimate or device == "replay" else None, estimate)
    from amc_latency.lut.prediction.predict import MissingShapeError
    from amc_latency.lut.shapes.shape import network_text
    from amc_latency.measuring.estimating import estimate as estimate_network
    from amc_latency.measuring.estimating import estimate_hint
    from amc_latency.measuring.prediction import predict as predict_network
    from amc_latency.measuring.profiling import prediction_table
    from amc_latency.models.known_networks import known_network

    table = None if estimate else prediction_table(device, lut)
    if table is not None:
        console.detail(f"table {table.path.resolve()}, {table.row_count:,} rows")
    known = known_network(network)
    try:
        report = estimate_network(known, device, lut, counts) if estimate else predict_network(known, table, counts)
    except MissingShapeError as error:
        # A table that was asked for must answer, and one of this network; the one that lies there may be of others.
        if lut is not None or (table is not None and table.latency_us(network_text(known.graph.architecture.shapes()))):
            raise
        report = replace(predict_network(known, None, counts), note=str(error))
    _say_untrained(known, console)
    if report.predicted_ms is None:
        report = replace(report, note=f"{report.note}{estimate_hint(device)}")
    if report.note:
        console.warn(report.note)
    return report, None if report.table is None else table


def inspect(network: NetworkOptions, device: str | None, lut: Path | None, console: Console) -> Inspection:
    """What of a network can be cut; milliseconds are those of the device's table. Raises `UserError` for bad input."""
    check_device_and_table(device or "host", lut)
    from amc_latency.measuring.inspection import inspect as inspect_network
    from amc_latency.measuring.profiling import prediction_table
    from amc_latency.models.load import load_network

    table = prediction_table(device, lut)
    loaded = load_network(network)
    _say_untrained(loaded, console)
    report = inspect_network(loaded, table)
    if report.note:
        console.warn(report.note)
    return report


@dataclass(frozen=True)
class Outcome:
    """How a command ended whose result may be of several kinds."""

    result: Any
    text: Callable[[Any], None]
    """prints the result"""
    check: Callable[[Any], None] = lambda result: None
    """raises `JobError` where the result is not what was asked for"""


def search(
    options: Mapping[str, Any], out: Path | None, pareto: int | None, phone: PhoneOptions, console: Console
) -> Outcome:
    """The search with these `options`, by the names of `SearchConfig`; a front with `pareto`; or several rounds.

    Raises `UserError` for bad input, also for options that would change nothing, and what a search raises.
    """
    from amc_latency.search.config.unused import checked_config

    config = checked_config(options)
    folder = out or Path("runs") / run_name(config, pareto)
    check_phone(phone)
    check_search(config, folder / ("target-1" if pareto is not None else "round-1" if config.rounds > 1 else "."))
    if pareto is not None:
        from amc_latency.search.series.pareto import check_front, front_text, pareto_search

        return Outcome(pareto_search(config, pareto, folder, console, phone), front_text, check_front)
    from amc_latency.search.run import check_met

    if config.rounds > 1:
        from amc_latency.search.series.rounds import rounds_text, search_rounds

        rounds = search_rounds(config, folder, console, phone)
        return Outcome(rounds, rounds_text, lambda result: check_met(result.report))
    from amc_latency.search.results.report import search_text
    from amc_latency.search.run import search as run_search

    return Outcome(run_search(config, folder, console, phone), search_text, check_met)


def finetune(
    network: NetworkOptions,
    recipe: Recipe,
    teacher: str | None,
    out: Path,
    epochs: int,
    data: str,
    seed: int,
    accelerator: str | None,
    console: Console,
    on_epoch: Callable[[EpochReport], None] | None = None,
    min_accuracy: float | None = None,
) -> FinetuneResult:
    """Train a checkpoint for some more epochs, by the labels and a teacher.

    That is `teacher`, or the uncut network where the checkpoint lies in a search's run folder, or else the network
    itself as it was. Raises `UserError` for bad input, and what training raises.
    """
    check_out(out)
    check_accelerator(accelerator)
    from amc_latency.data.load import check_source
    from amc_latency.models.load import NetworkOptions
    from amc_latency.models.spec import names_own_file
    from amc_latency.search.results.folder import uncut_of

    check_source(data)
    searched = uncut_of(network) if teacher is None else None
    from amc_latency.training.finetune import Teacher, finetune_checkpoint

    taught_by = None if searched is None else Teacher(*searched)
    if teacher is not None:
        # What was trained from the user's own file is built by it.
        is_own = names_own_file(network.model) and Path(teacher).is_file()
        taught_by = Teacher(replace(network, weights=teacher) if is_own else NetworkOptions(teacher))
    return finetune_checkpoint(
        network, out, epochs, data, seed, on_epoch, console, recipe, taught_by, accelerator, min_accuracy
    )


def export(
    network: NetworkOptions,
    counts: tuple[int, ...] | None,
    options: ExportOptions,
    out: Path,
    console: Console,
    given: Collection[str] = (),
) -> ExportReport:
    """Write a network, cut to `counts` if they are given, as .tflite. Raises `UserError` and `ExportError`.

    With `data` the accuracy of the file and of PyTorch on its test images is told, and its train images give the ranges
    of what is quantised.
    """
    check_out(out, suffix=".tflite")
    from amc_latency.data.load import check_source
    from amc_latency.export.options import check_options

    if options.data is not None:
        check_source(options.data)
    check_options(options, given)
    from amc_latency.exporting import export_named
    from amc_latency.models.untrained import check_weights_said

    check_weights_said(network)
    report, takes = export_named(network, counts, options, out, console)
    if report.note:
        console.warn(report.note)
    console.say(takes)
    return report


def accuracy(config: AccuracyConfig, console: Console) -> AccuracyReport:
    """How many test images a .tflite itself gets right. Raises `UserError` and `BadModelError`."""
    from amc_latency.data.load import check_source
    from amc_latency.device.rounds.measure import read_model

    check_source(config.data)
    read_model(config.file)
    from amc_latency.measuring.accuracy import file_accuracy

    return file_accuracy(config, console)


def import_timings(
    logs: list[Path],
    out: Path,
    format: str,
    device: str,
    network: Mapping[str, Any],
    counts: tuple[int, ...] | None,
    force: bool,
    given: Collection[str] = (),
) -> Outcome:
    """Make a table of block tables, or of the op-profile logs of the network with these options. Raises `UserError`."""
    from amc_latency.measuring.importing import (
        block_import_text,
        holds_blocks,
        import_block_tables,
        import_into,
        import_text,
        named_model,
    )
    from amc_latency.models.load import NetworkOptions, load_network

    if holds_blocks(logs, format):
        of_networks = ("model", "width", "input", "classes", "channels", "force")
        refuse_unused(given, dict.fromkeys(of_networks, "block tables are of no network"))
        return Outcome(import_block_tables(logs, out, device, format), block_import_text)
    model = named_model(network.get("model"), logs)
    loaded = load_network(NetworkOptions(**{**network, "model": model}))
    return Outcome(import_into(loaded, counts, logs, out, device, force), import_text)


def check_phone(phone: PhoneOptions) -> None:
    """Raise `OptionError` for a file that is not there, before the phone is asked anything."""
    for name in ("runner_path", "library"):
        path = getattr(phone, name)
        if path is not None and not path.is_file():
            raise OptionError(name, f"{path} is no file")


def check_accelerator(name: str | None) -> None:
    """Raise `OptionError` for an accelerator of no kind that there is; whether it is there, PyTorch knows later."""
    from amc_latency.accelerator import Computing
    from amc_latency.arguments.settings import check_settings

    check_settings(Computing(name))


def check_out(path: Path, argument: str = "out", over_table: bool = False, suffix: str = "") -> None:
    """Raise `OptionError` for a file that cannot be made, before any work is done for it.

    A latency table is not replaced by something else, unless `over_table` says that its owner asks. With `suffix` the
    name must end in it.
    """
    from amc_latency.android_bench.safe.files import LONGEST_NAME
    from amc_latency.lut.table.table import is_table

    if too_long := next((part for part in path.parts if len(os.fsencode(part)) > LONGEST_NAME), None):
        raise OptionError(
            (argument,),
            f"`{argument}`: '{too_long[:40]}...' is longer than a name can be, {LONGEST_NAME} bytes: shorten it",
        )
    existing = next((parent for parent in path.absolute().parents if parent.exists()), None)
    if not path.name or (path.exists() and not path.is_file()):
        raise OptionError(argument, f"{path} is no file that can be replaced: name another")
    if suffix and path.suffix.lower() != suffix:
        raise OptionError(
            argument, f"{path}: what is written is a {suffix}: name it so, such as {path.with_suffix(suffix)}"
        )
    if not over_table and is_table(path):
        raise OptionError(argument, f"{path} is a latency table, whose timings would be lost: name another file")
    if existing is None or not existing.is_dir() or not os.access(existing, os.W_OK):
        raise OptionError(argument, f"{path} cannot be made: {existing} is no folder that can be written to")


def check_device_and_table(device: str, lut: Path | None, estimate: bool = False, makes_table: bool = False) -> None:
    """Raise what is wrong with a device, its table and whether it is estimated: unknown, not there, not readable.

    A table that is not there yet is right only for a command that makes it.
    """
    from amc_latency.lut.table.table import LatencyTable
    from amc_latency.measuring.estimating import estimate_device
    from amc_latency.measuring.opening import check_device

    if estimate:
        estimate_device(device, lut)
        return
    check_device(device, lut)
    if lut is None:
        return
    if makes_table and not lut.exists():
        check_out(lut, "table", over_table=True)
    else:
        LatencyTable.open(lut, writing=makes_table and device != "replay").close()


def check_search(config: SearchConfig, folder: Path) -> None:
    """The same for a search that is to lie in `folder`, and whether that, and the images, can be what they must be."""
    from amc_latency.data.load import check_source
    from amc_latency.search.results.folder import CONFIG, check_place

    check_place(folder)
    if config.unlabelled is None:
        check_source(config.data)
    elif not Path(config.unlabelled).is_dir():
        raise OptionError("unlabelled", f"{config.unlabelled}: no such folder")
    # A run folder holds a copy of its own table: of a finished search nothing else is read.
    if not (folder / CONFIG).exists():
        check_device_and_table(config.device, None if config.lut is None else Path(config.lut), config.estimate)


def _say_untrained(network: Network | KnownNetwork, console: Console) -> None:
    from amc_latency.models.untrained import no_weights_needed

    if not network.trained:
        console.say(no_weights_needed(network))
