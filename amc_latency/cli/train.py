"""`amc-latency train` and `finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amc_latency import commands
from amc_latency.accelerator import is_first
from amc_latency.cli.options import (
    AcceleratorOption,
    DataOption,
    JsonOption,
    OutOption,
    SeedOption,
    fields_text,
    show,
)
from amc_latency.cli.signature import Given, command
from amc_latency.console import Console
from amc_latency.data.load import check_source
from amc_latency.models.load import NetworkOptions
from amc_latency.models.registry import SCALABLE_MODELS
from amc_latency.training.recipe import OF_TEACHERS, TRAINING, Recipe


def _train(
    console: Console,
    recipe: Given,
    out: OutOption,
    model: Annotated[
        str, typer.Option("--model", rich_help_panel="Network", help=f"one of {', '.join(SCALABLE_MODELS)}")
    ] = "mobilenet_v1",
    width: Annotated[float, typer.Option("--width", help="channel multiplier", rich_help_panel="Network")] = 0.5,
    image_size: Annotated[int, typer.Option("--image-size")] = 64,
    epochs: Annotated[int, typer.Option("--epochs")] = 16,
    data: DataOption = "auto",
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="where torchvision keeps its data")] = None,
    download: Annotated[bool, typer.Option("--download", help="let torchvision fetch the data")] = False,
    accelerator: AcceleratorOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Train a network on labelled images; on all 60,000 of Fashion-MNIST the defaults repeat the bundled checkpoint."""
    commands.check_out(out)
    check_source(data)
    commands.check_accelerator(accelerator)
    commands.refuse_unused(recipe, dict.fromkeys(OF_TEACHERS, "training from random weights has no teacher"))
    how = Recipe(**recipe)
    from amc_latency.training.train import TrainCommandConfig, training_of
    from amc_latency.training.train import train as run_training

    training = training_of(epochs, image_size, seed, how)
    config = TrainCommandConfig(out, model, width, data, data_dir, download, training, accelerator)
    console = heard(console)
    with console.progress("training", epochs) as meter:
        report = run_training(
            config,
            lambda epoch, held_back: meter.update(epoch.epoch, note=f"{held_back:.2f} % of the held-back images"),
            console,
        )
    if is_first():
        show(report, as_json, fields_text, console)


def _finetune(
    console: Console,
    network: Given,
    recipe: Given,
    out: OutOption,
    epochs: Annotated[int, typer.Option("--epochs")] = 8,
    teacher: Annotated[
        str | None,
        typer.Option(
            "--teacher",
            help="network whose outputs are followed as well, such as a checkpoint; unless set the uncut network where "
            "--model lies in a search's run folder, else the network itself as it was",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    data: DataOption = "auto",
    accelerator: AcceleratorOption = None,
    min_accuracy: Annotated[
        float | None,
        typer.Option(
            "--min-accuracy",
            min=0,
            max=100,
            help="percent that the network must get right before: more than chance unless set",
        ),
    ] = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Train a checkpoint for some more epochs."""
    console = heard(console)
    with console.progress("fine-tuning", epochs) as meter:
        report = commands.finetune(
            NetworkOptions(**network),
            Recipe(**recipe),
            teacher,
            out,
            epochs,
            data,
            seed,
            accelerator,
            console,
            lambda epoch: meter.update(epoch.epoch, note=f"loss {epoch.loss:.3f}"),
            min_accuracy,
        )
    if is_first():
        show(report, as_json, fields_text, console)


def heard(console: Console) -> Console:
    """The console of the first process; others that train with it say their warnings alone."""
    return console if is_first() else Console(quiet=True, words=console.words)


def train(app: typer.Typer) -> None:
    """Make it a command of `app`."""
    command(app, "train", recipe=Recipe)(_train)


def finetune(app: typer.Typer) -> None:
    """Make it a command of `app`."""
    command(app, "finetune", network=NetworkOptions, recipe=Recipe)(_finetune)
