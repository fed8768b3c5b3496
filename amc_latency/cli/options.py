"""What the commands of the command line share: their options, and how a result is printed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from amc_latency.console import put

if TYPE_CHECKING:
    from amc_latency.device.kinds import PhoneOptions
    from amc_latency.pixels import Normalisation
    from amc_latency.search.targets.amounts import Amount

DeviceOption = Annotated[str, typer.Option("--device", help="which device: see `amc-latency devices`")]
LutOption = Annotated[Path | None, typer.Option("--lut", help="latency table; in the user data folder unless set")]
JsonOption = Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")]
ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        help="bundled, a checkpoint (.safetensors), a name such as mobilenet_v1, torchvision:NAME, timm:NAME, or "
        "FILE.py:FUNCTION",
    ),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        "--weights",
        help="of a named model: a file (.safetensors, .pt, .pth), torchvision's name such as DEFAULT, pretrained (its "
        "best, or timm's), own (what FILE.py:FUNCTION loads itself), or random",
    ),
]
WidthOption = Annotated[float | None, typer.Option("--width", help="channel multiplier of a named model")]
InputOption = Annotated[
    str | None, typer.Option("--input", help="CxHxW of a named model, its own unless set, mostly 3x224x224")
]
ClassesOption = Annotated[
    int | None, typer.Option("--classes", help="classes of a named model, its own unless set, mostly 1000")
]
NormalisationOption = Annotated[
    str | None,
    typer.Option(
        "--normalisation",
        help="what the weights expect of pixels: MEAN,.../STD,... of pixels scaled to 0..1, or imagenet, half, lite, "
        "cifar10, cifar100, fashion_mnist, none (0..1), raw (0..255); as published, or as a checkpoint remembers, or "
        "else the data's own",
    ),
]
ConverterOption = Annotated[
    Literal["auto", "ours", "litert-torch", "onnx2tf"],
    typer.Option("--converter", help="who writes the .tflite; auto is ours, and another where ours can't"),
]
ChannelsOption = Annotated[
    str | None, typer.Option("--channels", help="one count a coupled group in network order: 24,48,96,...")
]
PixelsOption = Annotated[
    str | None,
    typer.Option(
        "--pixels",
        help="the file takes 0..255 and normalises itself: `auto` as the network's weights are known to expect, or "
        "MEAN,.../STD,... of pixels scaled to 0..1",
    ),
]
MinKeepOption = Annotated[
    str | None,
    typer.Option(
        "--min-keep",
        help="smallest share of a group that may be kept, for all or by kind: conv=0.2,linear=0.02; unless set 0.2 of "
        "channels, 0.05 of weights",
    ),
]
MaxKeepOption = Annotated[str | None, typer.Option("--max-keep", help="largest share, likewise; all unless set")]
StepOption = Annotated[int, typer.Option("--step", help="channel counts are multiples of this")]
DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        help="auto, torchvision, debian or bundled (Fashion-MNIST), cifar10, cifar100, imagenet:DIR, folder:DIR or "
        "FILE.py:FUNCTION",
    ),
]
SeedOption = Annotated[int, typer.Option("--seed")]
ForceOption = Annotated[bool, typer.Option("--force", help="take a phone that does not match the profile")]
TransportOption = Annotated[
    Literal["auto", "direct", "server"],
    typer.Option("--transport", help="to a phone: our own connection, or a running adb server's"),
]
RunnerOption = Annotated[
    Literal["auto", "benchmark_model", "amc_bench"], typer.Option("--runner", help="which program times on a phone")
]
RunnerPathOption = Annotated[
    Path | None, typer.Option("--runner-path", help="that program, built for the phone; found or built unless set")
]
LibraryOption = Annotated[
    Path | None, typer.Option("--litert-library", help="libLiteRt.so for the phone, which amc_bench needs")
]
EstimateOption = Annotated[
    bool, typer.Option("--estimate", help="from a cost model of a phone that is not there: nobody measured")
]
LearningRateOption = Annotated[
    float | None,
    typer.Option(
        "--learning-rate", help="highest of training: 0.1 from random weights, 0.005 of fine-tuning, unless set"
    ),
]
BatchSizeOption = Annotated[
    int | None,
    typer.Option("--batch-size", help="images a training step: a sixteenth of all, from 16 to 128, unless set"),
]
OutOption = Annotated[Path, typer.Option("--out", help="file to write")]


def phone_options(
    force: bool,
    transport: Literal["auto", "direct", "server"],
    runner: str,
    runner_path: Path | None,
    library: Path | None,
) -> PhoneOptions:
    """What was said of a phone. Raises `UserError` for a file that is not there, before the phone is asked anything."""
    from amc_latency.device.kinds import PhoneOptions
    from amc_latency.errors import UserError

    for name, path in (("--runner-path", runner_path), ("--litert-library", library)):
        if path is not None and not path.is_file():
            raise UserError(f"{name} {path} is no file")
    return PhoneOptions(force, transport, runner, runner_path, library)


def pixels_of(text: str, model: str, of_weights: Normalisation | None, channels: int) -> Normalisation:
    """What `--pixels` asks for. Raises `UserError` for a text that is none, and where nobody knows it of `model`."""
    from amc_latency.errors import UserError
    from amc_latency.pixels import parse_normalisation

    known = of_weights if text == "auto" else parse_normalisation(text, channels)
    if known is None:
        raise UserError(f"how {model} wants pixels normalised is not known: say --pixels MEAN,.../STD,...")
    return known


def pixels_line(folded: Normalisation | None, expected: Normalisation | None) -> str:
    """What an exported file takes: pixels that it normalises itself, or how they must be normalised, if known."""
    if folded is not None:
        return f"the file takes pixels of 0..255, and normalises them itself by {folded}"
    if expected is not None:
        return f"the file takes pixels of 0..1 normalised by {expected}"
    return "the file takes pixels normalised as the network was trained with, which is not known here"


def amount(text: str | None, name: str) -> Amount | None:
    """Read a count such as `6M`, `300k` or `1.2e6`, or a percentage, which stays a text; `UserError` for else."""
    from amc_latency.errors import UserError
    from amc_latency.search.targets.amounts import percent_of

    if text is None:
        return None
    number, option = text.strip(), f"--{name.replace('_', '-')}"
    if number.endswith("%"):
        try:
            return f"{percent_of(number):g}%"
        except UserError as error:
            raise UserError(f"{option}: {error}") from None
    scale = {"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}.get(number[-1:])
    try:
        return float(number) if scale is None else float(number[:-1]) * scale
    except ValueError:
        raise UserError(f"{option} is a number such as 6M, 300k or 1200000, or a percentage, not '{text}'") from None


def latency_target(text: str | None, speedup: float | None) -> tuple[float | None, float | None]:
    """Milliseconds and speedup, of which one is given at most: `--target-ms 50%` is a speedup of 2."""
    from amc_latency.errors import UserError
    from amc_latency.search.targets.amounts import percent_of

    if text is not None and speedup is not None:
        raise UserError("name the target in one way: --target-ms MILLISECONDS (or PERCENT%) or --speedup FACTOR")
    if text is not None and text.strip().endswith("%"):
        share = amount(text, "target_ms")
        percent = None if share is None else percent_of(share)
        return None, None if percent is None else 100 / percent
    try:
        return None if text is None else float(text), speedup
    except ValueError:
        raise UserError(f"--target-ms is milliseconds such as 20, or a percentage such as 50%, not '{text}'") from None


def search_values(given: Mapping[str, Any]) -> dict[str, Any]:
    """What of a search's options is more than its text: targets, bounds and rounds. Raises `UserError`."""
    from amc_latency.prune.keep import parse_bound
    from amc_latency.search.series.densities import parse_densities

    targets: dict[str, Any] = {
        name: amount(given[name], name) for name in ("target_macs", "target_params", "target_bytes")
    }
    targets["target_ms"], targets["speedup"] = latency_target(given["target_ms"], given["speedup"])
    densities, rounds = parse_densities(given["rounds_density"]), given["rounds"]
    if rounds is None:
        rounds = 1 if densities is None else len(densities)
    if densities and given["prune"] == "weights" and all(target is None for target in targets.values()):
        # AMC's density is of the weights: nothing else can be meant.
        targets["target_params"] = f"{densities[-1]:g}%"
    bounds = {name: parse_bound(given[name], name.replace("_", "-")) for name in ("min_keep", "max_keep")}
    return {**targets, **bounds, "rounds_density": densities, "rounds": rounds}


def refuse_unused(context: typer.Context, unused: Mapping[str, str]) -> None:
    """Raise `UserError` for an option that was given though `unused`, by its parameter's name, says why it is for none.

    One that has its default is not in anybody's way.
    """
    from amc_latency.errors import UserError

    for name, why in unused.items():
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            named = {"warm_start": "warm-start or --cold-start", "input_size": "input"}
            option = named.get(name, name.replace("_", "-"))
            raise UserError(f"--{option} would change nothing here: {why}. Leave it out")


def check_out(path: Path, option: str = "--out", over_table: bool = False, suffix: str = "") -> None:
    """Raise `UserError` for a file that cannot be made, before any work is done for it.

    A latency table is not replaced by something else, unless `over_table` says that its owner asks. With `suffix` the
    name must end in it.
    """
    from amc_latency.android_bench.safe.files import LONGEST_NAME
    from amc_latency.errors import UserError
    from amc_latency.lut.table.table import is_table

    if too_long := next((part for part in path.parts if len(os.fsencode(part)) > LONGEST_NAME), None):
        raise UserError(
            f"{option}: '{too_long[:40]}...' is longer than a name can be, {LONGEST_NAME} bytes: shorten it"
        )
    existing = next((parent for parent in path.absolute().parents if parent.exists()), None)
    if not path.name or (path.exists() and not path.is_file()):
        raise UserError(f"{option} {path} is no file that can be replaced: name another")
    if suffix and path.suffix.lower() != suffix:
        raise UserError(
            f"{option} {path}: what is written is a {suffix}: name it so, such as {path.with_suffix(suffix)}"
        )
    if not over_table and is_table(path):
        raise UserError(f"{option} {path} is a latency table, whose timings would be lost: name another file")
    if existing is None or not existing.is_dir() or not os.access(existing, os.W_OK):
        raise UserError(f"{option} {path} cannot be made: {existing} is no folder that can be written to")


def show(report: Any, as_json: bool, text: Any) -> None:
    """Print a result: its fields as JSON, or as `text` words it."""
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
