"""What the commands of the command line share: their options, and how a result is printed."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from amc_latency.data import Normalisation
    from device.phone import PhoneOptions

DeviceOption = Annotated[str, typer.Option("--device", help="which device: see `amc-latency devices`")]
LutOption = Annotated[Path | None, typer.Option("--lut", help="latency table; in the user data folder unless told")]
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
    str | None, typer.Option("--input", help="CxHxW of a named model, its own unless told, mostly 3x224x224")
]
ClassesOption = Annotated[
    int | None, typer.Option("--classes", help="classes of a named model, its own unless told, mostly 1000")
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
MinKeepOption = Annotated[float, typer.Option("--min-keep", help="smallest share of a group that may be kept")]
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
    Path | None, typer.Option("--runner-path", help="that program, built for the phone; found or built unless told")
]
LibraryOption = Annotated[
    Path | None, typer.Option("--litert-library", help="libLiteRt.so for the phone, which amc_bench needs")
]
EstimateOption = Annotated[
    bool, typer.Option("--estimate", help="from a cost model of a phone that is not there: nobody measured")
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
    from amc_latency.errors import UserError
    from device.phone import PhoneOptions

    for name, path in (("--runner-path", runner_path), ("--litert-library", library)):
        if path is not None and not path.is_file():
            raise UserError(f"{name} {path} is no file")
    return PhoneOptions(force, transport, runner, runner_path, library)


def pixels_of(text: str, model: str, of_weights: Normalisation | None, channels: int) -> Normalisation:
    """What `--pixels` asks for. Raises `UserError` for a text that is none, and where nobody knows it of `model`."""
    from amc_latency.data import parse_normalisation
    from amc_latency.errors import UserError

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


def amount(text: str | None, name: str) -> float | None:
    """Read a count such as `6M`, `300k` or `1.2e6`; `UserError` for anything else."""
    from amc_latency.errors import UserError

    if text is None:
        return None
    number = text.strip()
    scale = {"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}.get(number[-1:])
    try:
        return float(number) if scale is None else float(number[:-1]) * scale
    except ValueError:
        raise UserError(f"--{name.replace('_', '-')} is a number such as 6M, 300k or 1200000, not '{text}'") from None


def check_out(path: Path, option: str = "--out", over_table: bool = False) -> None:
    """Raise `UserError` for a file that cannot be made, before any work is done for it.

    A latency table is not replaced by something else, unless `over_table` says that its owner asks.
    """
    from amc_latency.errors import UserError
    from lut.table import is_table

    existing = next((parent for parent in path.absolute().parents if parent.exists()), None)
    if not path.name or (path.exists() and not path.is_file()):
        raise UserError(f"{option} {path} is no file that can be replaced: name another")
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
        print(f"{name:20} {value}")


def print_json(value: Any) -> None:
    """One JSON object on standard output."""
    print(json.dumps(value))
