"""The library: from a network to its compressed file in a handful of calls; the command line has the same steps.

What goes wrong by bad input is a `UserError`, what failed though its input was good a `JobError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from torch import Tensor, nn

from amc_latency.arguments.settings import check_names, made, names_of, read_options
from amc_latency.arguments.typed import typed
from amc_latency.commands import check_out, check_phone
from amc_latency.console import Console
from amc_latency.device.kinds import PhoneOptions
from amc_latency.errors import UserError
from amc_latency.export.choose import export_with
from amc_latency.export.export import ExportReport
from amc_latency.export.options import CALIBRATION_IMAGES
from amc_latency.export.quantised.calibration import Calibration, check_calibration
from amc_latency.export.quantised.export import calibration_of, source_of
from amc_latency.export.quantised.policy import check_io, is_quantised
from amc_latency.exporting import expected_of, export_network, wanted_pixels
from amc_latency.lut.table.table import LatencyTable
from amc_latency.measuring.accuracy import AccuracyReport, file_accuracy
from amc_latency.measuring.bench import BenchReport
from amc_latency.measuring.bench import bench as time_file
from amc_latency.measuring.config import AccuracyConfig, BenchConfig, ProfileConfig
from amc_latency.measuring.estimating import estimate_device
from amc_latency.measuring.opening import open_device
from amc_latency.measuring.prediction import Prediction
from amc_latency.measuring.prediction import predict as predict_network
from amc_latency.measuring.profiling import Grid, complete_table, open_table, plan_of
from amc_latency.models.load import Network, NetworkOptions, cut_to, load_network
from amc_latency.models.own_module import from_checkpoint, module_of, network_of
from amc_latency.prune.keep import KeepBound
from amc_latency.search.config import SearchConfig, run_name
from amc_latency.search.results.result import SearchReport
from amc_latency.task import ImageTask, Task

if TYPE_CHECKING:
    from amc_latency.data import ImageData
    from amc_latency.device.base import Device

AnyPath = str | PathLike[str]
Counts = tuple[int, ...]


@dataclass(frozen=True)
class SearchResult:
    """What a search ended with."""

    network: Network
    """cut and, where the task trains, trained; `network.model` is an `nn.Module`"""
    report: SearchReport
    """its figures beside the original's and the uniform width's"""
    folder: Path
    """where it wrote its log, its checkpoint, its files and `report.html`"""

    @property
    def tflite(self) -> Path:
        """The file that was timed."""
        return Path(self.report.tflite)

    @property
    def met(self) -> bool:
        """Whether all budgets were met, milliseconds by the upper end of their interval; `report.verdict` says more."""
        return self.report.met


def network(
    model: str | nn.Module,
    example_input: Tensor | None = None,
    *,
    checkpoint: AnyPath | None = None,
    normalisation: str | None = None,
    width: float | None = None,
    classes: int | None = None,
    weights: str | None = None,
) -> Network:
    """A network to compress: an `nn.Module` as it is, or one by name.

        net = amc.network(model, torch.randn(1, 3, 224, 224))
        net = amc.network("torchvision:resnet50", weights="DEFAULT")

    A module is copied: what becomes of it later changes nothing here. It may be on a GPU, in train mode, compiled or
    wrapped, and takes one image [N, C, H, W]; it returns tensors, alone or in tuples, lists and dicts.
    `checkpoint` is what a search of this module saved, `model.safetensors`; `normalisation` is what its weights expect
    of pixels, for an `ImageTask`. Of a named one, `example_input` says the size of its images, and the others what the
    options of the command line say. Raises UserError for what can't be loaded, traced or found.
    """
    if not isinstance(model, str):
        if example_input is None:
            raise UserError("example_input is missing: give a tensor like those that the module takes, [N, C, H, W]")
        if (width, classes, weights) != (None, None, None):
            raise UserError("width, classes and weights are for a network by name; a module has its own")
        pixels = typed("normalisation", str | None, normalisation)
        return network_of(model, example_input, pixels, typed("checkpoint", Path | None, checkpoint))
    if checkpoint is not None:
        raise UserError("checkpoint is for a module; a network by name is loaded by its checkpoint's path as the name")
    size = None
    if example_input is not None:
        from amc_latency.models.own_module import input_of

        size = "x".join(map(str, input_of(example_input)))
    named = {"width": width, "input": size, "classes": classes, "weights": weights, "normalisation": normalisation}
    return load_network(made(NetworkOptions, {"model": model, **named}, "network"))


def device(
    name: str = "host", *, table: AnyPath | None = None, estimate: bool = False, quiet: bool = False, **options: Any
) -> Device:
    """The device called `name`: `host`, a phone's profile, `cuda`, HOST:PORT of a phone, or `replay` of a `table`.

        with amc.device("pixel1", force=True) as phone:
            ...

    With `estimate` a cost model answers for a phone that nobody has at hand, and needs no table.
    `options` are of phones, the fields of `PhoneOptions`: `force`, `transport`, `runner` and so on. Raises UserError
    for a name that nothing has or that can't be estimated, DeviceError for a device that isn't there.
    """
    name, path = typed("name", str, name), typed("table", Path | None, table)
    phone = _phone(options, "device")
    if not typed("estimate", bool, estimate):
        return open_device(name, path, phone, Console(quiet=quiet))
    if options:
        raise UserError(f"{', '.join(options)}: for a phone that is there, which an estimate stands in for")
    return estimate_device(name, path)


def profile(
    net: Network,
    on: Device,
    *,
    table: AnyPath | None = None,
    step: int = 8,
    min_keep: KeepBound | None = None,
    max_keep: KeepBound | None = None,
    goal: str = "0.5%",
    plan: Literal["learn", "grid"] = "learn",
    precision: Sequence[str] | str = "float32",
    rounds: int | None = None,
    quiet: bool = False,
) -> LatencyTable:
    """The device's latency table with all that a search of `net` can reach: what is missing is timed, and written.

        table = amc.profile(net, phone)

    `table` is a path, the user's own place for this device unless given. A call that was broken off goes on where it
    stopped. `goal` is the error of layers to stop at; with the `plan` "grid" all is timed. `step`, `min_keep` and
    `max_keep` are the grid of channel counts; with `precision` "float32,int8" layers are timed in both, and what stands
    between them.
    Raises JobError where a layer could not be timed, and what device and table raise.
    """
    bounds = {"min_keep": min_keep, "max_keep": max_keep, "step": step, "precision": precision}
    config = made(ProfileConfig, {**bounds, "goal": goal, "plan": plan, "rounds": rounds}, "profile")
    protocol = None if config.rounds is None else replace(on.protocol, rounds=config.rounds)
    found = open_table(on, protocol, typed("table", Path | None, table), create=True)
    assert found is not None
    grid = Grid(config.min_keep, config.step, config.max_keep, config.precision)
    complete_table(net, on, found, grid, Console(quiet=quiet), plan_of(config.plan, config.goal))
    return found


def predict(net: Network, table: LatencyTable | AnyPath, channels: Sequence[int] | None = None) -> Prediction:
    """What `net` takes, layer by layer, cut to `channels` a coupled group if they are given; nothing is run.

        amc.predict(net, table).predicted_ms

    Raises UserError for counts that don't fit, TableError for a table that can't be read.
    """
    return predict_network(net, _table(table), typed("channels", Counts | None, channels))


def search(
    net: Network,
    on: Device,
    table: LatencyTable | AnyPath | None = None,
    *,
    task: Task | ImageTask,
    out: AnyPath | None = None,
    quiet: bool = False,
    **options: Any,
) -> SearchResult:
    """Find how many channels each layer keeps, cut, train, export and time, under `target_ms` or another budget.

        result = amc.search(net, phone, table, task=task, target_ms=20)
        result.network.model, result.report.measured_ms, result.met

    `options` are the fields of `SearchConfig`: a budget (`target_ms`, `speedup`, `target_macs`, ...), `seed`, `agent`,
    `episodes`, `baselines` and so on; text is read as on the command line, such as `target_macs="6M"`. One that would
    change nothing beside the others or beside the task is refused. With `rounds` each prunes what the one before left,
    and the last one's result is given. `out` is the run folder, under `runs` unless given: a call that was broken off
    goes on there, and a finished search is only read. A target that was not met is a result too: see `met`.
    Raises UserError for bad input, such as a target out of reach.
    """
    from amc_latency.search.config.unused import handed_config
    from amc_latency.search.run import search_for
    from amc_latency.search.series.rounds import run_rounds

    if not net.trained:
        raise UserError(f"{net.spec.name} has random weights, and a search needs trained ones: say which by weights")
    lut = None if table is None else str(table.path if isinstance(table, LatencyTable) else typed("table", Path, table))
    who = on.identity
    handed = {"model": net.spec.name, "device": who.name, "lut": lut, "estimate": who.estimated}
    config = handed_config(options, task, **handed)
    folder = typed("out", Path | None, out) or Path("runs") / run_name(config)
    console = Console(quiet=quiet)

    def run(config: SearchConfig, folder: Path, start: Path | None) -> SearchReport:
        return search_for(config, net, task, folder, console, lambda: nullcontext(on), start)

    if config.rounds == 1:
        report = run(config, folder, None)
    else:
        rounds = run_rounds(config, folder, console, run)
        report, folder = rounds.report, Path(rounds.rounds[-1].folder)
    return SearchResult(from_checkpoint(net, folder / "model.safetensors"), report, folder)


def cut(net: Network, channels: Sequence[int]) -> Network:
    """`net` with so many channels a coupled group, those of the largest L1 norm; not refitted, not trained.

        half = amc.cut(net, [c // 2 for c in net.graph.architecture.group_channels])

    Raises UserError for counts that it can't have.
    """
    return cut_to(net, typed("channels", Counts, channels))


def export(
    net: Network | nn.Module,
    path: AnyPath,
    example_input: Tensor | None = None,
    *,
    converter: str = "ours",
    precision: str | Sequence[str] = "float32",
    calibration: Tensor | Calibration | None = None,
    task: Task | ImageTask | None = None,
    io: str = "float32",
    pixels: str | None = None,
) -> ExportReport:
    """Write a `.tflite` in a precision, whose outputs are seen beside PyTorch's; a module needs an `example_input`.

        amc.export(result.network, "small.tflite")
        amc.export(net, "small.tflite", precision="int8", task=amc.ImageTask("folder:photos"), io="uint8")

    `precision` is float32 or int8 for all layers, or a list with one for each of `net.graph.architecture.layers`.
    What is quantised takes its ranges from `calibration`, 100 or so real images [N, C, H, W] as the network takes them,
    or what `calibrate` gave for several files; unless given, from the train images or `calibration()` of `task`. An
    `ImageTask` also says how accurate the file is, and PyTorch, on its test images. A layer that can't be int8 stays
    float32, as the report's note says.
    With `pixels`, "auto" or MEAN,.../STD,..., the file takes pixels of 0..255 and normalises them itself, as one with
    `io` "uint8" always does. `converter` is "ours", "litert-torch", "onnx2tf", or "auto" for ours and another where
    ours can't; the others write float32.
    Raises JobError for what can't be written or doesn't compute the same, UserError for a converter that isn't there,
    a precision or images that can't be taken, and for a `path` that is no file, such as a device, which would be
    replaced by one.
    """
    converter, out = typed("converter", str, converter), typed("path", Path, path)
    io, pixels = typed("io", str, io), typed("pixels", str | None, pixels)
    check_out(out, "path")
    check_io(io)
    quantised = is_quantised(precision, io)
    if not quantised and task is None and pixels is None:
        if isinstance(net, Network):
            return export_with(converter, net.model, net.spec.input, out)
        module, size = module_of(net, _example(example_input))
        return export_with(converter, module, size, out)
    network = net if isinstance(net, Network) else network_of(net, _example(example_input))
    data = task.images(network, Console(quiet=True)) if isinstance(task, ImageTask) else None
    if quantised and calibration is None and task is not None:
        calibration = _calibrating(network, task, data)
    folded = wanted_pixels(pixels, io, network, expected_of(network, data))
    return export_network(network, out, converter, precision, io, folded, calibration, data)


def calibrate(
    net: Network,
    images: Tensor | Task | ImageTask,
    *,
    io: str = "float32",
    pixels: str | None = None,
) -> Calibration:
    """The ranges of a network's values on real images: measured once, they serve every `precision` of its files.

        ranges = amc.calibrate(net, task)
        for policy in policies:
            amc.export(net, "small.tflite", precision=policy, calibration=ranges)

    `io` and `pixels` are those of the files. Raises as `export`.
    """
    check_io(typed("io", str, io))
    data = images.images(net, Console(quiet=True)) if isinstance(images, ImageTask) else None
    found = images if isinstance(images, Tensor) else _calibrating(net, images, data)
    check_calibration(found, net.spec.input)
    folded = wanted_pixels(typed("pixels", str | None, pixels), io, net, expected_of(net, data))
    return calibration_of(source_of(net.model, net.spec.input, io, folded), found)


def _calibrating(network: Network, task: Task | ImageTask, data: ImageData | None) -> Tensor:
    size = network.spec.input
    if data is not None:
        return data.train.take(CALIBRATION_IMAGES).inputs(size[1:])
    from amc_latency.search.judge.task_judge import Asked

    return Asked(cast(Task, task)).calibration(CALIBRATION_IMAGES, size)


def _example(example_input: Tensor | None) -> Tensor:
    if example_input is None:
        raise UserError("example_input is missing: give a tensor like those that the module takes, [N, C, H, W]")
    return example_input


def accuracy(file: AnyPath, data: str, *, normalisation: str | None = None, quiet: bool = False) -> AccuracyReport:
    """How many of the test images that `data` names a `.tflite` gets right, run by LiteRT on this computer.

        amc.accuracy("small.tflite", "folder:photos", normalisation="imagenet").accuracy_pct

    `normalisation` is what the file expects of pixels: of one that takes uint8 they are its bytes, of others they are
    normalised by the data's own figures unless given. Raises UserError for images that don't fit, and what
    `outcome_of_file` raises.
    """
    options = read_options(AccuracyConfig, {"data": data, "normalisation": normalisation}, "accuracy")
    return file_accuracy(AccuracyConfig(typed("file", Path, file), **options), Console(quiet=quiet))


def bench(
    file: AnyPath, on: str = "host", *, against: Sequence[AnyPath] = (), quiet: bool = False, **options: Any
) -> BenchReport:
    """What a `.tflite` takes on a device, beside others in the same rounds if they are given.

        amc.bench("small.tflite", "pixel1", against=["original.tflite"]).latency_ms

    `options` are fields of `BenchConfig`, such as `rounds`, `threads` and `state`, and those of a phone as in `device`.
    Raises UserError for a file that is none, DeviceError for a device that isn't there.
    """
    of_phone = names_of(PhoneOptions)
    own = [name for name in names_of(BenchConfig) if name not in ("device", "against")]
    check_names(options, [*own, *of_phone], "bench")
    phone = _phone({name: value for name, value in options.items() if name in of_phone}, "bench")
    others = {name: value for name, value in options.items() if name in own}
    others = read_options(BenchConfig, {**others, "device": on, "against": against}, "bench")
    return time_file(BenchConfig(typed("file", Path, file), phone=phone, **others), Console(quiet=quiet))


def _phone(options: Mapping[str, Any], call: str) -> PhoneOptions:
    phone = made(PhoneOptions, options, call)
    check_phone(phone)
    return phone


def _table(table: LatencyTable | AnyPath) -> LatencyTable:
    return table if isinstance(table, LatencyTable) else LatencyTable.open(typed("table", Path, table))
