"""The command line: each command is a thin function over a config; what it prints is the result's own fields."""

from __future__ import annotations

import signal
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from amc_latency.cli_lut import lut_app
from amc_latency.cli_options import (
    ChannelsOption,
    ClassesOption,
    DataOption,
    DeviceOption,
    EstimateOption,
    ForceOption,
    InputOption,
    JsonOption,
    LibraryOption,
    LutOption,
    MinKeepOption,
    ModelOption,
    OutOption,
    RunnerOption,
    RunnerPathOption,
    SeedOption,
    StepOption,
    TransportOption,
    WidthOption,
    amount,
    check_out,
    fields_text,
    phone_options,
    print_json,
    show,
)
from amc_latency.console import Console
from amc_latency.models.registry import SCALABLE_MODELS
from amc_latency.search.config import AGENTS, DAMAGES, REWARDS, SearchConfig, run_name

app = typer.Typer(
    help="Compress a convolutional network for a device, by latency measured on that device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(lut_app, name="lut")


@app.command()
def devices(
    addresses: Annotated[
        list[str] | None, typer.Argument(metavar="[HOST:PORT]...", help="phones in the network to ask as well")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Which devices there are, and what is attached now."""
    from amc_latency.devices import devices_report, devices_text

    report = devices_report(addresses or ())
    if as_json:
        print_json(report)
    else:
        devices_text(report)


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
    goal: Annotated[
        str, typer.Option("--goal", help="error of layers to stop at, on average, in percent of their latency")
    ] = "0.5%",
    plan: Annotated[
        Literal["learn", "grid"],
        typer.Option("--plan", help="learn the device's steps until the goal is met, or time a fixed grid"),
    ] = "learn",
    workers: Annotated[
        int | None,
        typer.Option("--workers", help="phones, or cores of the host, at once; all phones and one core unless told"),
    ] = None,
    force: ForceOption = False,
    transport: TransportOption = "auto",
    runner: RunnerOption = "auto",
    runner_path: RunnerPathOption = None,
    litert_library: LibraryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Time every layer shape that a search of the model can reach: the device's latency table."""
    from amc_latency.models.load import NetworkOptions, load_network
    from amc_latency.opening import open_device
    from amc_latency.profiling import Grid, complete_table, open_table, plan_of
    from amc_latency.report import profile_text
    from amc_latency.workers import settle_workers

    grid, console, planned = Grid(min_keep, step), Console(), plan_of(plan, goal)
    options = phone_options(force, transport, runner, runner_path, litert_library)
    network = load_network(NetworkOptions(model, width, input_size, classes))
    with open_device(device, lut, options, console, workers) as chosen:
        protocol = None if rounds is None else replace(chosen.protocol, rounds=rounds)
        table = open_table(chosen, protocol, lut, create=True)
        assert table is not None
        settle_workers(chosen, network.graph.architecture.shapes(), table.protocol, force, console)
        report = complete_table(network, chosen, table, grid, console, planned)
    show(report, as_json, profile_text)


@app.command()
def predict(
    device: Annotated[
        str | None, typer.Option("--device", help="whose table: host unless told, or whoever measured --lut")
    ] = None,
    model: ModelOption = "bundled",
    width: WidthOption = None,
    input_size: InputOption = None,
    classes: ClassesOption = None,
    channels: ChannelsOption = None,
    lut: LutOption = None,
    estimate: EstimateOption = False,
    as_json: JsonOption = False,
) -> None:
    """A network's milliseconds from the latency table, layer by layer; without a table its MACs and parameters."""
    from amc_latency.estimating import estimate as estimate_network
    from amc_latency.estimating import estimate_hint
    from amc_latency.models.load import NetworkOptions, load_network, parse_counts
    from amc_latency.opening import identity_text
    from amc_latency.prediction import predict as predict_network
    from amc_latency.profiling import prediction_table
    from amc_latency.report import prediction_text
    from lut.predict import MissingShapeError
    from lut.shape import network_text

    table = None if estimate else prediction_table(device, lut)
    network = load_network(NetworkOptions(model, width, input_size, classes))
    counts = None if channels is None else parse_counts(channels)
    try:
        report = estimate_network(network, device, lut, counts) if estimate else predict_network(network, table, counts)
    except MissingShapeError as error:
        # A table that was asked for must answer, and one of this network; the one that lies there may be of others.
        if lut is not None or (
            table is not None and table.latency_us(network_text(network.graph.architecture.shapes()))
        ):
            raise
        report = replace(predict_network(network, None, counts), note=str(error))
    if report.predicted_ms is None:
        report = replace(report, note=f"{report.note}{estimate_hint(device)}")
    if report.note:
        Console().say(report.note)
    show(report, as_json, prediction_text)
    if report.table is not None and table is not None and not as_json:
        how = "estimated for" if report.estimated else "measured on"
        print(f"by {report.table}, {how} {identity_text(table.identity)}")


@app.command()
def search(
    target_ms: Annotated[float | None, typer.Option("--target-ms", help="milliseconds on the device")] = None,
    speedup: Annotated[float | None, typer.Option("--speedup", help="the other way to say a target")] = None,
    target_macs: Annotated[
        str | None,
        typer.Option("--target-macs", help="multiply-accumulates at most, such as 6M; alone or beside others"),
    ] = None,
    target_params: Annotated[
        str | None, typer.Option("--target-params", help="parameters at most, such as 300k")
    ] = None,
    target_bytes: Annotated[
        str | None, typer.Option("--target-bytes", help="bytes of the .tflite at most, such as 1.2M")
    ] = None,
    reward: Annotated[
        str, typer.Option("--reward", help=f"what is maximised: {', '.join(REWARDS)}")
    ] = SearchConfig.reward,
    agent: Annotated[
        str | None,
        typer.Option("--agent", help=f"what searches, programme under a budget unless told: {', '.join(AGENTS)}"),
    ] = None,
    warm_start: Annotated[
        bool, typer.Option("--warm-start/--cold-start", help="start from the dynamic programme's policies")
    ] = SearchConfig.warm_start,
    damage: Annotated[
        str, typer.Option("--damage", help=f"what the dynamic programme adds up: {', '.join(DAMAGES)}")
    ] = SearchConfig.damage,
    baselines: Annotated[
        str, typer.Option("--baselines", help="what the result is shown beside")
    ] = SearchConfig.baselines,
    pareto: Annotated[
        int | None, typer.Option("--pareto", help="this many targets, from the one given up to the uncut network")
    ] = None,
    model: ModelOption = "bundled",
    device: DeviceOption = "host",
    lut: LutOption = None,
    estimate: EstimateOption = False,
    data: DataOption = "auto",
    seed: SeedOption = 0,
    out: Annotated[Path | None, typer.Option("--out", help="run folder; a search that is there goes on")] = None,
    warmup: Annotated[
        int | None, typer.Option("--warmup", help="random episodes: 100 in a cold start, else none, unless told")
    ] = None,
    episodes: Annotated[
        int | None, typer.Option("--episodes", help="those after it: 300 in a cold start, else 100, unless told")
    ] = None,
    corrections: Annotated[
        int, typer.Option("--corrections", help="searches on if measured over the target")
    ] = SearchConfig.corrections,
    correction_episodes: Annotated[
        int, typer.Option("--correction-episodes", help="episodes of each")
    ] = SearchConfig.correction_episodes,
    margin_pct: Annotated[
        float, typer.Option("--margin-pct", help="how far under the target to aim")
    ] = SearchConfig.margin_pct,
    confidence: Annotated[
        float | None,
        typer.Option("--confidence", help="in its place: the probability of being under the target, such as 0.95"),
    ] = None,
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
    force: ForceOption = False,
    transport: TransportOption = "auto",
    runner: RunnerOption = "auto",
    runner_path: RunnerPathOption = None,
    litert_library: LibraryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the channel counts that meet the target with the least accuracy lost; cut, fine-tune, export, measure."""
    from amc_latency.search.pareto import check_front, front_text, pareto_search
    from amc_latency.search.report import search_text
    from amc_latency.search.run import check_met
    from amc_latency.search.run import search as run_search

    given = dict(locals())
    amounts = {name: amount(given[name], name) for name in ("target_macs", "target_params", "target_bytes")}
    values = {field.name: given[field.name] for field in fields(SearchConfig)}
    config = SearchConfig(**{**values, **amounts, "lut": None if lut is None else str(lut)})
    folder = out or Path("runs") / run_name(config, pareto)
    options = phone_options(force, transport, runner, runner_path, litert_library)
    if pareto is not None:
        front = pareto_search(config, pareto, folder, Console(), options)
        show(front, as_json, front_text)
        check_front(front)
        return
    report = run_search(config, folder, Console(), options)
    show(report, as_json, search_text)
    check_met(report)


@app.command()
def train(
    out: OutOption,
    model: Annotated[str, typer.Option("--model", help=f"one of {', '.join(SCALABLE_MODELS)}")] = "mobilenet_v1",
    width: Annotated[float, typer.Option("--width", help="channel multiplier")] = 0.5,
    image_size: Annotated[int, typer.Option("--image-size")] = 64,
    epochs: Annotated[int, typer.Option("--epochs")] = 16,
    data: DataOption = "auto",
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="where torchvision keeps its data")] = None,
    download: Annotated[bool, typer.Option("--download", help="let torchvision fetch the data")] = False,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Train a network on Fashion-MNIST; on all 60,000 images the defaults repeat the bundled checkpoint."""
    from amc_latency.train import TrainCommandConfig
    from amc_latency.train import train as run_training
    from amc_latency.training import TrainConfig

    check_out(out)
    # The same share of the epochs as by default.
    low = epochs * TrainConfig.low_resolution_epochs // TrainConfig.epochs
    if image_size <= TrainConfig.low_resolution:
        low = 0
    training = TrainConfig(epochs=epochs, image_size=image_size, seed=seed, low_resolution_epochs=low)
    config = TrainCommandConfig(out, model, width, data, data_dir, download, training)
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
    rounds: Annotated[
        int | None, typer.Option("--rounds", help="rounds of timing, in fresh processes; as a table's networks get")
    ] = None,
    runs: Annotated[int | None, typer.Option("--runs", help="counted runs a round, at least")] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", help="1 unless told; more than one is timed by the wall clock")
    ] = None,
    op_profile: Annotated[
        bool, typer.Option("--op-profile", help="also what each operator takes, on a phone, from a run of its own")
    ] = False,
    force: ForceOption = False,
    transport: TransportOption = "auto",
    runner: RunnerOption = "auto",
    runner_path: RunnerPathOption = None,
    litert_library: LibraryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Time a .tflite on a device."""
    from amc_latency.bench import BenchConfig, bench_text
    from amc_latency.bench import bench as run_bench

    options = phone_options(force, transport, runner, runner_path, litert_library)
    config = BenchConfig(file, device, rounds, runs, threads, op_profile, options)
    show(run_bench(config, Console()), as_json, bench_text)


def main() -> None:
    """Run a command; a user's mistake exits with 2 and a failed job with 1, each with a message and no traceback."""
    from amc_latency.errors import exit_code

    def stop(number: int, _: object) -> None:
        resumable = sys.argv[1:2] and sys.argv[1] in ("profile", "search", "train", "finetune")
        print("stopped" + ("; the same command goes on from here" if resumable else ""), file=sys.stderr)
        sys.exit(128 + number)

    # Whatever ends a command, a phone is to be left as it was.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
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
