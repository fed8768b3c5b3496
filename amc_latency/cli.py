"""The command line: each command is a thin function over a config; what it prints is the result's own fields."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from amc_latency.console import Console
from amc_latency.search.config import SearchConfig

app = typer.Typer(
    help="Compress a convolutional network for a device, by latency measured on that device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

DeviceOption = Annotated[str, typer.Option("--device", help="which device: see `amc-latency devices`")]
LutOption = Annotated[Path | None, typer.Option("--lut", help="latency table; in the user data folder unless told")]
JsonOption = Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")]
ModelOption = Annotated[str, typer.Option("--model", help="bundled, a checkpoint (.safetensors) or a model's name")]
WidthOption = Annotated[float | None, typer.Option("--width", help="channel multiplier of a named model")]
InputOption = Annotated[str | None, typer.Option("--input", help="CxHxW of a named model, 3x224x224 unless told")]
ClassesOption = Annotated[int | None, typer.Option("--classes", help="classes of a named model, 1000 unless told")]
ChannelsOption = Annotated[
    str | None, typer.Option("--channels", help="one count a coupled group in network order: 24,48,96,...")
]
MinKeepOption = Annotated[float, typer.Option("--min-keep", help="smallest share of a group that may be kept")]
StepOption = Annotated[int, typer.Option("--step", help="channel counts are multiples of this")]
DataOption = Annotated[str, typer.Option("--data", help="auto, torchvision, debian or bundled")]
SeedOption = Annotated[int, typer.Option("--seed")]
RoundsOption = Annotated[int, typer.Option("--rounds", help="rounds of timing, each in fresh processes")]
OutOption = Annotated[Path, typer.Option("--out", help="file to write")]


@app.command()
def devices(as_json: JsonOption = False) -> None:
    """Which devices there are, and what is there now."""
    from amc_latency.profiling import device_names

    names = device_names()
    if as_json:
        print_json(names)
        return
    for name, text in names.items():
        print(f"{name:10} {text}")


@app.command()
def profile(
    device: DeviceOption = "host",
    model: ModelOption = "bundled",
    width: WidthOption = None,
    input_size: InputOption = None,
    classes: ClassesOption = None,
    lut: LutOption = None,
    min_keep: MinKeepOption = 0.2,
    step: StepOption = 8,
    rounds: Annotated[int | None, typer.Option("--rounds", help="rounds of timing, 3 unless told")] = None,
    as_json: JsonOption = False,
) -> None:
    """Time every layer shape that a search of the model can reach: the device's latency table."""
    from amc_latency.models.load import NetworkOptions, load_network
    from amc_latency.profiling import Grid, complete_table, open_device, open_table
    from amc_latency.report import profile_text
    from device.base import Protocol

    grid = Grid(min_keep, step)
    protocol = None if rounds is None else Protocol(rounds=rounds)
    chosen = open_device(device, lut)
    network = load_network(NetworkOptions(model, width, input_size, classes))
    table = open_table(chosen, protocol, lut, create=True)
    assert table is not None
    report = complete_table(network, chosen, table, grid, Console())
    show(report, as_json, profile_text)


@app.command()
def predict(
    device: DeviceOption = "host",
    model: ModelOption = "bundled",
    width: WidthOption = None,
    input_size: InputOption = None,
    classes: ClassesOption = None,
    channels: ChannelsOption = None,
    lut: LutOption = None,
    as_json: JsonOption = False,
) -> None:
    """A network's milliseconds from the latency table, layer by layer; without a table its MACs and parameters."""
    from amc_latency.models.load import NetworkOptions, load_network, parse_counts
    from amc_latency.prediction import predict as predict_network
    from amc_latency.profiling import open_device, open_table
    from amc_latency.report import prediction_text
    from lut.predict import MissingShapeError
    from lut.shape import network_text

    chosen = open_device(device, lut)
    network = load_network(NetworkOptions(model, width, input_size, classes))
    table = open_table(chosen, None, lut, create=False)
    counts = None if channels is None else parse_counts(channels)
    try:
        report = predict_network(network, table, counts)
    except MissingShapeError as error:
        # A table that was asked for must answer, and one of this network; the one that lies there may be of others.
        if lut is not None or (
            table is not None and table.latency_us(network_text(network.graph.architecture.shapes()))
        ):
            raise
        report = replace(predict_network(network, None, counts), note=str(error))
    if report.note:
        Console().say(report.note)
    show(report, as_json, prediction_text)


@app.command()
def search(
    target_ms: Annotated[float | None, typer.Option("--target-ms", help="milliseconds on the device")] = None,
    speedup: Annotated[float | None, typer.Option("--speedup", help="the other way to say a target")] = None,
    model: ModelOption = "bundled",
    device: DeviceOption = "host",
    lut: LutOption = None,
    data: DataOption = "auto",
    seed: SeedOption = 0,
    out: Annotated[Path | None, typer.Option("--out", help="run folder; a search that is there goes on")] = None,
    warmup: Annotated[int, typer.Option("--warmup", help="episodes of random policies")] = SearchConfig.warmup,
    episodes: Annotated[int, typer.Option("--episodes", help="episodes after the warm-up")] = SearchConfig.episodes,
    corrections: Annotated[
        int, typer.Option("--corrections", help="searches on if measured over the target")
    ] = SearchConfig.corrections,
    correction_episodes: Annotated[
        int, typer.Option("--correction-episodes", help="episodes of each")
    ] = SearchConfig.correction_episodes,
    margin_pct: Annotated[
        float, typer.Option("--margin-pct", help="how far under the target to aim")
    ] = SearchConfig.margin_pct,
    images: Annotated[
        int, typer.Option("--images", help="held-back images to judge an episode by")
    ] = SearchConfig.images,
    calibration_images: Annotated[
        int, typer.Option("--calibration-images", help="images for refit")
    ] = SearchConfig.calibration_images,
    recalibration_images: Annotated[
        int, typer.Option("--recalibration-images", help="of these, for the batch norms of each policy")
    ] = SearchConfig.recalibration_images,
    min_keep: MinKeepOption = SearchConfig.min_keep,
    step: StepOption = SearchConfig.step,
    finetune_epochs: Annotated[int, typer.Option("--finetune-epochs")] = SearchConfig.finetune_epochs,
    rounds: Annotated[
        int | None, typer.Option("--rounds", help="rounds of the final timing; as the table's networks unless told")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Find the channel counts that meet the target with the least accuracy lost; cut, fine-tune, export, measure."""
    from amc_latency.search.report import search_text
    from amc_latency.search.run import check_met
    from amc_latency.search.run import search as run_search

    given = dict(locals())
    values = {field.name: given[field.name] for field in fields(SearchConfig)}
    config = SearchConfig(**{**values, "lut": None if lut is None else str(lut)})
    target = f"{target_ms:g}ms" if target_ms is not None else f"{speedup:g}x"
    folder = out or Path("runs") / f"{Path(model).stem}-{device}-{target}-seed{seed}"
    report = run_search(config, folder, Console())
    show(report, as_json, search_text)
    check_met(report)


@app.command()
def train(
    out: OutOption,
    width: Annotated[float, typer.Option("--width", help="channel multiplier of MobileNetV1")] = 0.5,
    image_size: Annotated[int, typer.Option("--image-size")] = 64,
    epochs: Annotated[int, typer.Option("--epochs")] = 16,
    data: DataOption = "auto",
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="where torchvision keeps its data")] = None,
    download: Annotated[bool, typer.Option("--download", help="let torchvision fetch the data")] = False,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Train MobileNetV1 on Fashion-MNIST; on all 60,000 images the defaults repeat the bundled checkpoint."""
    from amc_latency.train import TrainCommandConfig
    from amc_latency.train import train as run_training
    from amc_latency.training import TrainConfig

    check_out(out)
    # The same share of the epochs as by default.
    low = epochs * TrainConfig.low_resolution_epochs // TrainConfig.epochs
    if image_size <= TrainConfig.low_resolution:
        low = 0
    training = TrainConfig(epochs=epochs, image_size=image_size, seed=seed, low_resolution_epochs=low)
    config = TrainCommandConfig(out, width, data, data_dir, download, training)
    console = Console()
    with console.progress("training", epochs) as meter:
        report = run_training(
            config,
            lambda epoch, held_back: meter.update(epoch.epoch, note=f"{held_back:.2f} % of the held-back images"),
        )
    show(report, as_json, fields_text)


@app.command()
def finetune(
    out: OutOption,
    model: ModelOption = "bundled",
    epochs: Annotated[int, typer.Option("--epochs")] = 8,
    data: DataOption = "auto",
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Train a checkpoint for some more epochs."""
    from amc_latency.finetune import finetune_checkpoint

    check_out(out)
    console = Console()
    with console.progress("fine-tuning", epochs) as meter:
        report = finetune_checkpoint(
            model, out, epochs, data, seed, lambda epoch: meter.update(epoch.epoch, note=f"loss {epoch.loss:.3f}")
        )
    show(report, as_json, fields_text)


@app.command()
def export(
    out: OutOption,
    model: ModelOption = "bundled",
    width: WidthOption = None,
    input_size: InputOption = None,
    classes: ClassesOption = None,
    channels: ChannelsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a network as .tflite, and check its outputs against PyTorch's."""
    from amc_latency.data import load_data, to_input
    from amc_latency.export import export as export_network
    from amc_latency.models.load import NetworkOptions, cut_to, load_network, parse_counts, settled

    check_out(out)
    network = load_network(NetworkOptions(model, width, input_size, classes))
    if not network.trained:
        network = settled(network)
    if channels is not None:
        network = cut_to(network, parse_counts(channels))
    images = None
    depth, height, width_ = network.spec.input
    if network.trained and depth == 1 and height == width_:
        images = to_input(load_data("bundled").train.take(8).images, height)
    show(export_network(network.model, network.spec.input, out, images), as_json, fields_text)


@app.command()
def bench(
    file: Annotated[Path, typer.Argument(help="any .tflite")],
    device: DeviceOption = "host",
    rounds: RoundsOption = 9,
    runs: Annotated[int, typer.Option("--runs", help="counted runs a round, at least")] = 10,
    threads: Annotated[int, typer.Option("--threads", help="more than one is timed by the wall clock")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Time a .tflite on a device."""
    from amc_latency.errors import UserError
    from amc_latency.profiling import REPLAY, open_device
    from device.base import Protocol
    from device.measure import measure_file

    if device == REPLAY:
        raise UserError("the replay device has no hardware to time a file on: name another --device")
    most = max(runs, Protocol.max_runs)
    clock: Literal["cpu", "wall"] = "cpu" if threads == 1 else "wall"
    protocol = Protocol(runs=runs, max_runs=most, rounds=rounds, threads=threads, clock=clock)
    chosen = open_device(device)
    measurement = measure_file(chosen, file, protocol)
    report = {
        "latency_ms": measurement.latency_ms,
        "statistic": measurement.statistic,
        "spread": measurement.spread_pct,
        "runtime": chosen.identity.runtime,
        "device": f"{chosen.identity.name}: {chosen.identity.model}",
        "n": measurement.n,
    }
    if as_json:
        print_json(report)
    else:
        print(
            f"{measurement.latency_ms:.4f} ms ({measurement.statistic}, ±{measurement.spread_pct or 0:.1f} %, "
            f"{measurement.n} runs) on {report['device']}, {report['runtime']}"
        )


def check_out(path: Path) -> None:
    """Raise `UserError` for a file that cannot be made, before any work is done for it."""
    from amc_latency.errors import UserError

    existing = next((parent for parent in path.absolute().parents if parent.exists()), None)
    if not path.name or (path.exists() and not path.is_file()):
        raise UserError(f"--out {path} is no file that can be replaced: name another")
    if existing is None or not existing.is_dir() or not os.access(existing, os.W_OK):
        raise UserError(f"--out {path} cannot be made: {existing} is no folder that can be written to")


def show(report: Any, as_json: bool, text: Any) -> None:
    """Print a result: its fields as JSON, or as `text` words it."""
    if as_json:
        print_json(asdict(report))
    else:
        text(report)


def fields_text(report: Any) -> None:
    """A line a field."""
    for name, value in asdict(report).items():
        print(f"{name:20} {value}")


def print_json(value: Any) -> None:
    """One JSON object on standard output."""
    print(json.dumps(value))


def main() -> None:
    """Run a command; a user's mistake exits with 2 and a failed job with 1, each with a message and no traceback."""
    from amc_latency.errors import exit_code

    def stop(*_: object) -> None:
        resumable = sys.argv[1:2] and sys.argv[1] in ("profile", "search", "train", "finetune")
        print("stopped" + ("; the same command goes on from here" if resumable else ""), file=sys.stderr)
        sys.exit(130)

    signal.signal(signal.SIGINT, stop)
    try:
        app()
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise
        text = str(error)
        if isinstance(error, OSError) and error.strerror:
            text = f"{error.filename or 'writing the output'}: {error.strerror}"
        print(f"error: {text}", file=sys.stderr)
        sys.exit(code)
