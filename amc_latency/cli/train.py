"""`amc-latency train` and `finetune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amc_latency.cli.options import (
    BatchSizeOption,
    DataOption,
    JsonOption,
    LearningRateOption,
    OutOption,
    SeedOption,
    fields_text,
    show,
)
from amc_latency.cli.signature import Given, command
from amc_latency.commands import check_out
from amc_latency.console import Console
from amc_latency.data.load import check_source
from amc_latency.models.load import NetworkOptions
from amc_latency.models.registry import SCALABLE_MODELS


def _train(
    console: Console,
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
    learning_rate: LearningRateOption = None,
    batch_size: BatchSizeOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Train a network on labelled images; on all 60,000 of Fashion-MNIST the defaults repeat the bundled checkpoint."""
    check_out(out)
    check_source(data)
    from amc_latency.training.train import TrainCommandConfig, training_of
    from amc_latency.training.train import train as run_training

    training = training_of(epochs, image_size, seed, learning_rate, batch_size)
    config = TrainCommandConfig(out, model, width, data, data_dir, download, training)
    with console.progress("training", epochs) as meter:
        report = run_training(
            config,
            lambda epoch, held_back: meter.update(epoch.epoch, note=f"{held_back:.2f} % of the held-back images"),
            console,
        )
    show(report, as_json, fields_text, console)


def _finetune(
    console: Console,
    network: Given,
    out: OutOption,
    epochs: Annotated[int, typer.Option("--epochs")] = 8,
    data: DataOption = "auto",
    learning_rate: LearningRateOption = None,
    batch_size: BatchSizeOption = None,
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
    check_out(out)
    check_source(data)
    from amc_latency.training.finetune import finetune_checkpoint

    with console.progress("fine-tuning", epochs) as meter:
        report = finetune_checkpoint(
            NetworkOptions(**network),
            out,
            epochs,
            data,
            seed,
            lambda epoch: meter.update(epoch.epoch, note=f"loss {epoch.loss:.3f}"),
            console,
            learning_rate,
            batch_size,
            min_accuracy,
        )
    show(report, as_json, fields_text, console)


def train(app: typer.Typer) -> None:
    """Make it a command of `app`."""
    command(app, "train")(_train)


def finetune(app: typer.Typer) -> None:
    """Make it a command of `app`."""
    command(app, "finetune", network=NetworkOptions)(_finetune)
