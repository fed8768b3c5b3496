"""The command line: each command is a thin function over a config; what it prints is the result's own fields."""

from __future__ import annotations

import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from amc_latency.cli.checks import check_device_and_table, check_search
from amc_latency.cli.lut import lut_app
from amc_latency.cli.options import (
    BatchSizeOption,
    ChannelsOption,
    ClassesOption,
    ConverterOption,
    DataOption,
    DeviceOption,
    EstimateOption,
    ForceOption,
    InputOption,
    JsonOption,
    LearningRateOption,
    LibraryOption,
    LutOption,
    MaxKeepOption,
    MinKeepOption,
    ModelOption,
    NormalisationOption,
    OutOption,
    PixelsOption,
    RunnerOption,
    RunnerPathOption,
    SeedOption,
    StepOption,
    TransportOption,
    WeightsOption,
    WidthOption,
    check_out,
    phone_options,
    pixels_line,
    pixels_of,
    print_json,
    refuse_unused,
    search_values,
    show,
)
from amc_latency.cli.stopping import stop_by_signals
from amc_latency.cli.train import finetune, train
from amc_latency.console import Console, put
from amc_latency.search.config import AGENTS, DAMAGES, REWARDS, STATES, SearchConfig, run_name

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
    from amc_latency.measuring.devices import devices_report, devices_text

    report = devices_report(addresses or ())
    if as_json:
        print_json(report)
    else:
        devices_text(report)


@app.command()
def profile(
    context: typer.Context,
    device: DeviceOption = "host",
    model: ModelOption = "bundled",
    width: WidthOption = None,
    input_size: InputOption = None,
    classes: ClassesOption = None,
    weights: WeightsOption = None,
    lut: LutOption = None,
    min_keep: MinKeepOption = None,
    max_keep: MaxKeepOption = None,
    step: StepOption = 8,
    rounds: Annotated[
        int | None, typer.Option("--rounds", help="rounds of timing; the device's own unless set")
    ] = None,
    goal: Annotated[
        str, typer.Option("--goal", help="error of layers to stop at, on average, in percent of their latency")
    ] = "0.5%",
    plan: Annotated[
        Literal["learn", "grid"],
        typer.Option("--plan", help="learn the device's steps until the goal is met, or time a fixed grid"),
    ] = "learn",
    workers: Annotated[
        int | None,
        typer.Option("--workers", help="phones, or cores of the host, at once; all phones and one core unless set"),
    ] = None,
    force: ForceOption = False,
    transport: TransportOption = "auto",
    runner: RunnerOption = "auto",
    runner_path: RunnerPathOption = None,
    litert_library: LibraryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Time every layer shape that a search of the model can reach: the device's latency table."""
    check_device_and_table(device, lut, makes_table=True)
    from amc_latency.measuring.opening import open_device
    from amc_latency.measuring.profiling import Grid, complete_table, open_table, plan_of
    from amc_latency.measuring.workers import settle_workers
    from amc_latency.models.load import NetworkOptions, load_network, no_weights_needed
    from amc_latency.prune.keep import parse_bound
    from amc_latency.report import profile_text

    bounds = (parse_bound(each, name) for each, name in ((min_keep, "min-keep"), (max_keep, "max-keep")))
    grid, console, planned = Grid(next(bounds), step, next(bounds)), Console(), plan_of(plan, goal)
    if device == "replay":
        refuse_unused(context, dict.fromkeys(("plan", "goal"), "a replayed table is not added to"))
    elif plan == "grid":
        refuse_unused(context, {"goal": "--plan grid times all of it"})
    options = phone_options(force, transport, runner, runner_path, litert_library)
    network = load_network(NetworkOptions(model, width, input_size, classes, weights))
    if not network.trained:
        console.say(no_weights_needed(network))
    with open_device(device, lut, options, console, workers) as chosen:
        protocol = None if rounds is None else replace(chosen.protocol, rounds=rounds)
        if lut is not None and not lut.exists():
            console.say(f"there is no {lut} yet: a new table is begun")
        table = open_table(chosen, protocol, lut, create=True, writing=True)
        assert table is not None
        settle_workers(chosen, network.graph.architecture.shapes(), table.protocol, force, console)
        report = complete_table(network, chosen, table, grid, console, planned)
    show(report, as_json, profile_text)


@app.command()
def predict(
    device: Annotated[
        str | None, typer.Option("--device", help="whose table: host unless set, or whoever measured --lut")
    ] = None,
    model: ModelOption = "bundled",
    width: WidthOption = None,
    input_size: InputOption = None,
    classes: ClassesOption = None,
    weights: WeightsOption = None,
    channels: ChannelsOption = None,
    lut: LutOption = None,
    estimate: EstimateOption = False,
    as_json: JsonOption = False,
) -> None:
    """A network's milliseconds from the latency table, layer by layer; without a table its MACs and parameters."""
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
    from amc_latency.models.load import NetworkOptions, no_weights_needed, parse_counts
    from amc_latency.report import prediction_text

    table = None if estimate else prediction_table(device, lut)
    network = known_network(NetworkOptions(model, width, input_size, classes, weights))
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
    if not network.trained:
        Console().say(no_weights_needed(network))
    if report.predicted_ms is None:
        report = replace(report, note=f"{report.note}{estimate_hint(device)}")
    if report.note:
        Console().say(report.note)
    show(report, as_json, prediction_text)
    if report.table is not None and table is not None and not as_json:
        how = "estimated for" if report.estimated else "measured on"
        put(f"by {report.table}, {how} {table.identity.text}")


@app.command()
def inspect(
    model: ModelOption = "bundled",
    width: WidthOption = None,
    input_size: InputOption = None,
    classes: ClassesOption = None,
    weights: WeightsOption = None,
    device: Annotated[
        str | None, typer.Option("--device", help="whose table tells milliseconds: host unless set")
    ] = None,
    lut: LutOption = None,
    as_json: JsonOption = False,
) -> None:
    """What of a network can be cut: its layers, which channels move together and why, and what is left whole."""
    check_device_and_table(device or "host", lut)
    from amc_latency.measuring.inspection import inspect as inspect_network
    from amc_latency.measuring.inspection import inspection_text
    from amc_latency.measuring.profiling import prediction_table
    from amc_latency.models.load import NetworkOptions, load_network, no_weights_needed

    table = prediction_table(device, lut)
    network = load_network(NetworkOptions(model, width, input_size, classes, weights))
    if not network.trained:
        Console().say(no_weights_needed(network))
    report = inspect_network(network, table)
    if report.note:
        Console().say(report.note)
    show(report, as_json, inspection_text)


@app.command()
def search(
    context: typer.Context,
    target_ms: Annotated[
        str | None, typer.Option("--target-ms", help="milliseconds on the device, or percent of the uncut network's")
    ] = None,
    speedup: Annotated[float | None, typer.Option("--speedup", help="the other way to say a target")] = None,
    target_macs: Annotated[
        str | None,
        typer.Option("--target-macs", help="multiply-accumulates at most, such as 6M or 50%; alone or beside others"),
    ] = None,
    target_params: Annotated[
        str | None, typer.Option("--target-params", help="parameters at most, such as 300k or 50%")
    ] = None,
    target_bytes: Annotated[
        str | None,
        typer.Option(
            "--target-bytes", help="bytes of the .tflite at most, such as 1.2M or 40%; zipped with --prune weights"
        ),
    ] = None,
    prune: Annotated[
        str, typer.Option("--prune", help="channels, or weights: the smallest of each layer, for a size budget")
    ] = SearchConfig.prune,
    rounds: Annotated[
        int | None, typer.Option("--rounds", help="prune and fine-tune this often, step by step towards the target")
    ] = None,
    rounds_density: Annotated[
        str | None,
        typer.Option("--rounds-density", help="percent left after each round, such as 50,35,25,20: as many rounds"),
    ] = None,
    reward: Annotated[
        str,
        typer.Option(
            "--reward",
            help=f"what is maximised: {', '.join(REWARDS)}; but for error and loss without a budget too: 400 episodes",
        ),
    ] = SearchConfig.reward,
    agent: Annotated[
        str | None,
        typer.Option(
            "--agent", help=f"what searches, dp (dynamic programming) under a budget unless set: {', '.join(AGENTS)}"
        ),
    ] = None,
    warm_start: Annotated[
        bool | None,
        typer.Option(
            "--warm-start/--cold-start",
            help="start from dynamic programming's policies, or from 100 random ones; unless set, warm under a budget",
        ),
    ] = SearchConfig.warm_start,
    state: Annotated[
        str, typer.Option("--state", help=f"what an agent that learns sees of a group: {', '.join(STATES)}")
    ] = SearchConfig.state,
    ppo_actors: Annotated[
        int, typer.Option("--ppo-actors", help="episodes that --agent ppo collects before it improves its policy")
    ] = SearchConfig.ppo_actors,
    layer_rewards: Annotated[
        bool, typer.Option("--layer-rewards", help="reward --agent ppo after each layer: an evaluation a layer")
    ] = SearchConfig.layer_rewards,
    critic_action_layer: Annotated[
        int,
        typer.Option(
            "--critic-action-layer", help="hidden layer of --agent ddpg's critic that the action joins at: 1 or 2"
        ),
    ] = SearchConfig.critic_action_layer,
    damage: Annotated[
        str, typer.Option("--damage", help=f"what dynamic programming adds up: {', '.join(DAMAGES)}")
    ] = SearchConfig.damage,
    baselines: Annotated[
        str, typer.Option("--baselines", help="what the result is shown beside")
    ] = SearchConfig.baselines,
    pareto: Annotated[
        int | None, typer.Option("--pareto", help="this many targets, from the one given up to the uncut network")
    ] = None,
    model: ModelOption = "bundled",
    weights: WeightsOption = None,
    width: WidthOption = None,
    input_size: InputOption = None,
    classes: ClassesOption = None,
    normalisation: NormalisationOption = None,
    device: DeviceOption = "host",
    lut: LutOption = None,
    estimate: EstimateOption = False,
    data: DataOption = "auto",
    unlabelled: Annotated[
        str | None,
        typer.Option("--unlabelled", help="folder of images without labels: accuracy is agreement with the original"),
    ] = None,
    seed: SeedOption = 0,
    out: Annotated[Path | None, typer.Option("--out", help="run folder; a search that is there goes on")] = None,
    warmup: Annotated[
        int | None, typer.Option("--warmup", help="random episodes: 100 in a cold start, else none, unless set")
    ] = None,
    episodes: Annotated[
        int | None, typer.Option("--episodes", help="those after it: 300 in a cold start, else 100, unless set")
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
    min_keep: MinKeepOption = None,
    max_keep: MaxKeepOption = None,
    step: StepOption = SearchConfig.step,
    finetune_epochs: Annotated[int, typer.Option("--finetune-epochs")] = SearchConfig.finetune_epochs,
    learning_rate: LearningRateOption = None,
    batch_size: BatchSizeOption = None,
    timing_rounds: Annotated[
        int | None,
        typer.Option(
            "--timing-rounds",
            help="rounds of a result's timing, up to 3 times as many until clear; as the table's networks unless set",
        ),
    ] = None,
    min_accuracy: Annotated[
        float | None,
        typer.Option(
            "--min-accuracy", help="percent that the uncut network must get right: more than chance unless set"
        ),
    ] = None,
    force: ForceOption = False,
    transport: TransportOption = "auto",
    runner: RunnerOption = "auto",
    runner_path: RunnerPathOption = None,
    litert_library: LibraryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the channel counts that meet the target with the least accuracy lost; cut, fine-tune, export, measure."""
    from amc_latency.search.unused import unused

    given = dict(locals())
    values = {field.name: given[field.name] for field in fields(SearchConfig) if field.name in given}
    config = SearchConfig(
        **{**values, **search_values(given), "input": input_size, "lut": None if lut is None else str(lut)}
    )
    refuse_unused(context, unused(config))
    folder = out or Path("runs") / run_name(config, pareto)
    options = phone_options(force, transport, runner, runner_path, litert_library)
    many = "target-1" if pareto is not None else "round-1" if config.rounds > 1 else "."
    check_search(config, folder / many)
    from amc_latency.search.report import search_text
    from amc_latency.search.run import check_met
    from amc_latency.search.run import search as run_search
    from amc_latency.search.series.pareto import check_front, front_text, pareto_search
    from amc_latency.search.series.rounds import rounds_text, search_rounds

    if pareto is not None:
        front = pareto_search(config, pareto, folder, Console(), options)
        show(front, as_json, front_text)
        check_front(front)
        return
    if config.rounds > 1:
        result = search_rounds(config, folder, Console(), options)
        show(result, as_json, rounds_text)
        check_met(result.report)
        return
    report = run_search(config, folder, Console(), options)
    show(report, as_json, search_text)
    check_met(report)


app.command()(train)
app.command()(finetune)


@app.command()
def export(
    out: OutOption,
    model: ModelOption = "bundled",
    width: WidthOption = None,
    input_size: InputOption = None,
    classes: ClassesOption = None,
    weights: WeightsOption = None,
    channels: ChannelsOption = None,
    converter: ConverterOption = "auto",
    pixels: PixelsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a network as .tflite, and check its outputs against PyTorch's."""
    check_out(out, suffix=".tflite")
    from amc_latency.cli.export_text import export_text
    from amc_latency.data import fitted, load_data
    from amc_latency.export.choose import export_with
    from amc_latency.models import load

    options = load.NetworkOptions(model, width, input_size, classes, weights)
    load.check_weights_said(options)
    if channels is None:
        network, spec, trained, expected = load.load_model(options)
        network = network if trained else load.settled_model(network, spec.input)
    else:
        whole = load.load_network(options)
        cut = load.cut_to(whole if whole.trained else load.settled(whole), load.parse_counts(channels))
        network, spec, trained, expected = cut.model, cut.spec, cut.trained, cut.pixels
    load.check_own_weights(options, spec)
    images = None
    channels_, height, width_ = spec.input
    if trained and channels_ in (1, 3):
        images = fitted(load_data("bundled"), spec, expected).train.take(8).inputs((height, width_))
    folded = None if pixels is None else pixels_of(pixels, spec.name, expected, spec.input[0])
    report = export_with(converter, network, spec.input, out, images, pixels=folded)
    if not trained:
        notes = (report.note, f"{spec.name} has random weights: the file is good for its milliseconds alone")
        report = replace(report, note="; ".join(filter(None, notes)))
    for line in (report.note, pixels_line(folded, expected)):
        if line:
            Console().say(line)
    show(report, as_json, lambda report: export_text(report, out))


@app.command()
def bench(
    file: Annotated[Path, typer.Argument(help="any .tflite")],
    device: DeviceOption = "host",
    rounds: Annotated[
        int | None,
        typer.Option(
            "--rounds", help="rounds of timing, in fresh processes; as a table's networks get; --speedup may take more"
        ),
    ] = None,
    runs: Annotated[
        int | None, typer.Option("--runs", help="counted runs a round, at least; 0.2 s of them unless set")
    ] = None,
    state: Annotated[
        Literal["hot", "frame"] | None,
        typer.Option("--state", help="only runs back to back (hot), or only after other memory was touched (frame)"),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option("--against", metavar="OTHER.tflite", help="timed in the same rounds, and compared; repeatable"),
    ] = None,
    speedup: Annotated[
        float | None,
        typer.Option(
            "--speedup", help="whether FILE is so many times as fast as the first --against; exit code 1 if it is not"
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", help="1 unless set; more than one is timed by the wall clock")
    ] = None,
    op_profile: Annotated[
        bool, typer.Option("--op-profile", help="also what each operator takes, on a phone, from a run of its own")
    ] = False,
    input_shape: Annotated[
        list[str] | None,
        typer.Option(
            "--input-shape", metavar="[NAME=]1xHxWxC", help="of an input whose sizes the file leaves open; repeatable"
        ),
    ] = None,
    force: ForceOption = False,
    transport: TransportOption = "auto",
    runner: RunnerOption = "auto",
    runner_path: RunnerPathOption = None,
    litert_library: LibraryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Time a .tflite on a device, alone or beside others."""
    from amc_latency.cli.bench_text import bench_text
    from amc_latency.measuring.bench import BenchConfig, check_speedup
    from amc_latency.measuring.bench import bench as run_bench

    options = phone_options(force, transport, runner, runner_path, litert_library)
    shapes, others = tuple(input_shape or ()), tuple(against or ())
    config = BenchConfig(
        file, device, rounds, runs, threads, op_profile, shapes, options, state=state, against=others, speedup=speedup
    )
    report = run_bench(config, Console())
    show(report, as_json, bench_text)
    check_speedup(report)


def main() -> None:
    """Run a command; a user's mistake exits with 2 and a failed job with 1, each with a message and no traceback."""
    from amc_latency.cli.threads import share_cores
    from amc_latency.errors import error_text, exit_code

    share_cores()

    # Whatever ends a command, a phone is to be left as it was.
    stop_by_signals()
    try:
        app()
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise
        put(f"error: {error_text(error)}", file=sys.stderr)
        sys.exit(code)
