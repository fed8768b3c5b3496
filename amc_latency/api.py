"""The library: from a network to its compressed file in a handful of calls; the command line has the same steps.

What goes wrong by bad input is a `UserError`, what failed though its input was good a `JobError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor, nn

from amc_latency.commands import check_out, check_phone
from amc_latency.console import Console
from amc_latency.device.kinds import PhoneOptions
from amc_latency.errors import OptionError, UserError
from amc_latency.export.choose import export_with
from amc_latency.export.export import ExportReport
from amc_latency.lut.table.table import LatencyTable
from amc_latency.measuring.bench import BenchConfig, BenchReport
from amc_latency.measuring.bench import bench as time_file
from amc_latency.measuring.estimating import estimate_device
from amc_latency.measuring.opening import open_device
from amc_latency.measuring.prediction import Prediction
from amc_latency.measuring.prediction import predict as predict_network
from amc_latency.measuring.profiling import Grid, complete_table, open_table, plan_of
from amc_latency.models.load import Network, NetworkOptions, cut_to, load_network
from amc_latency.models.own_module import from_checkpoint, module_of, network_of
from amc_latency.prune.keep import KeepBound
from amc_latency.search.config import config_of, run_name
from amc_latency.search.result import SearchReport
from amc_latency.settings import check_names, names_of
from amc_latency.task import ImageTask, Task

if TYPE_CHECKING:
    from amc_latency.device.base import Device

AnyPath = str | PathLike[str]
_ELSEWHERE = {
    **dict.fromkeys(("width", "input", "classes", "weights", "normalisation"), "is said to `network`, not to a search"),
    **dict.fromkeys(("data", "unlabelled"), "is said to `ImageTask`, not to a search"),
    # A search is one of them: alone it would end at the first one's target.
    **dict.fromkeys(("rounds", "rounds_density", "round"), "is of the command line: search `result.network` once more"),
}
"""Fields of `SearchConfig` that would change nothing in `search`, or not what they say."""


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
        """Whether all budgets were met, by what was measured."""
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
        return network_of(model, example_input, normalisation, None if checkpoint is None else Path(checkpoint))
    if checkpoint is not None:
        raise UserError("checkpoint is for a module; a network by name is loaded by its checkpoint's path as the name")
    size = None
    if example_input is not None:
        from amc_latency.models.own_module import input_of

        size = "x".join(map(str, input_of(example_input)))
    return load_network(NetworkOptions(model, width, size, classes, weights, normalisation))


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
    check_names(options, names_of(PhoneOptions), "device")
    path = None if table is None else Path(table)
    if not estimate:
        return open_device(name, path, _phone(options), Console(quiet=quiet))
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
    rounds: int | None = None,
    quiet: bool = False,
) -> LatencyTable:
    """The device's latency table with all that a search of `net` can reach: what is missing is timed, and written.

        table = amc.profile(net, phone)

    `table` is a path, the user's own place for this device unless given. A call that was broken off goes on where it
    stopped. `goal` is the error of layers to stop at; with the `plan` "grid" all is timed. `step`, `min_keep` and
    `max_keep` are the grid of channel counts.
    Raises JobError where a layer could not be timed, and what device and table raise.
    """
    protocol = None if rounds is None else replace(on.protocol, rounds=rounds)
    found = open_table(on, protocol, None if table is None else Path(table), create=True)
    assert found is not None
    complete_table(net, on, found, Grid(min_keep, step, max_keep), Console(quiet=quiet), plan_of(plan, goal))
    return found


def predict(net: Network, table: LatencyTable | AnyPath, channels: Sequence[int] | None = None) -> Prediction:
    """What `net` takes, layer by layer, cut to `channels` a coupled group if they are given; nothing is run.

        amc.predict(net, table).predicted_ms

    Raises UserError for counts that don't fit, TableError for a table that can't be read.
    """
    return predict_network(net, _table(table), None if channels is None else tuple(channels))


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
    `episodes`, `baselines` and so on, but for those of the network, the images and rounds. `out` is the run folder,
    under `runs` unless given: a call that was broken off goes on there, and a finished search is only read. A target
    that was not met is a result too: see `met`.
    Raises UserError for bad input, such as a target out of reach.
    """
    from amc_latency.search.run import search_for

    if not net.trained:
        raise UserError(f"{net.spec.name} has random weights, and a search needs trained ones: say which by weights")
    for name in options.keys() & _ELSEWHERE.keys():
        raise OptionError(name, _ELSEWHERE[name])
    lut = None if table is None else str(table.path if isinstance(table, LatencyTable) else Path(table))
    who = on.identity
    config = config_of(options, model=net.spec.name, device=who.name, lut=lut, estimate=who.estimated)
    folder = Path("runs") / run_name(config) if out is None else Path(out)
    console = Console(quiet=quiet)
    report = search_for(config, net, task, folder, console, lambda: nullcontext(on))
    return SearchResult(from_checkpoint(net, folder / "model.safetensors"), report, folder)


def cut(net: Network, channels: Sequence[int]) -> Network:
    """`net` with so many channels a coupled group, those of the largest L1 norm; not refitted, not trained.

        half = amc.cut(net, [c // 2 for c in net.graph.architecture.group_channels])

    Raises UserError for counts that it can't have.
    """
    return cut_to(net, tuple(channels))


def export(
    net: Network | nn.Module, path: AnyPath, example_input: Tensor | None = None, *, converter: str = "ours"
) -> ExportReport:
    """Write a float32 `.tflite` whose outputs were seen to equal PyTorch's; a module needs an `example_input`.

        amc.export(result.network, "small.tflite")

    `converter` is "ours", "litert-torch", "onnx2tf", or "auto" for ours and another where ours can't.
    Raises JobError for what can't be written or doesn't compute the same, UserError for a converter that isn't there
    and for a `path` that is no file, such as a device, which would be replaced by one.
    """
    check_out(Path(path), "path")
    if isinstance(net, Network):
        return export_with(converter, net.model, net.spec.input, Path(path))
    if example_input is None:
        raise UserError("example_input is missing: give a tensor like those that the module takes, [N, C, H, W]")
    module, size = module_of(net, example_input)
    return export_with(converter, module, size, Path(path))


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
    phone = _phone({name: value for name, value in options.items() if name in of_phone})
    others = {name: value for name, value in options.items() if name in own}
    config = BenchConfig(Path(file), on, phone=phone, against=tuple(map(Path, against)), **others)
    return time_file(config, Console(quiet=quiet))


def _phone(options: Mapping[str, Any]) -> PhoneOptions:
    paths = {name: Path(options[name]) for name in ("runner_path", "library") if options.get(name) is not None}
    phone = PhoneOptions(**{**options, **paths})
    check_phone(phone)
    return phone


def _table(table: LatencyTable | AnyPath) -> LatencyTable:
    return table if isinstance(table, LatencyTable) else LatencyTable.open(Path(table))
