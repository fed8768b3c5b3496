"""`amc-latency train`: a network on labelled images, from random weights to a checkpoint."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from amc_latency.accelerator import accelerator_of, is_first, prepared, say_where
from amc_latency.android_bench.safe.files import sidecar
from amc_latency.console import Console
from amc_latency.data import fitted, load_data
from amc_latency.data.labels import check_labels, check_several
from amc_latency.errors import JobError, UserError
from amc_latency.models.files.checkpoint import NORMALISATION_KEY, save_checkpoint
from amc_latency.models.registry import SCALABLE_MODELS, build_model, known_models
from amc_latency.models.spec import ModelSpec
from amc_latency.training.intervals import interval_pct
from amc_latency.training.loop import DivergedError, EpochReport, accuracy, fit
from amc_latency.training.outcome import outcome
from amc_latency.training.recipe import Recipe, TrainConfig, recipe_of


def _takes(model: torch.nn.Module, input_chw: tuple[int, int, int]) -> bool:
    """Whether a network can be run on images of that size."""
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(2, *input_chw))
    except RuntimeError:
        return False
    return True


@dataclass(frozen=True)
class TrainCommandConfig:
    """What to train, on what, and where the checkpoint goes."""

    output: Path
    """the checkpoint to write; `<output>.resume` holds the state until training is done"""
    model: str = "mobilenet_v1"
    """one of `SCALABLE_MODELS`; on colour images any name that `build_model` takes"""
    width: float = 0.5
    """channel multiplier"""
    source: str = "auto"
    """data source, see `amc_latency.data.load_data`"""
    data_dir: Path | None = None
    """where torchvision keeps its data"""
    download: bool = False
    """fetch the data with torchvision first"""
    training: TrainConfig = field(default_factory=TrainConfig)
    """epochs, learning rate and so on"""
    accelerator: str | None = None
    """where it is trained; a GPU if there is one unless given"""


def training_of(epochs: int, image_size: int, seed: int, recipe: Recipe = Recipe()) -> TrainConfig:
    """How square images of that size are trained on: the same share of epochs at low resolution as by default."""
    low = epochs * TrainConfig.low_resolution_epochs // TrainConfig.epochs
    return TrainConfig(
        epochs=epochs,
        image_size=(image_size, image_size),
        seed=seed,
        low_resolution_epochs=0 if image_size <= min(TrainConfig.low_resolution) else low,
        **recipe_of(recipe),
    )


@dataclass(frozen=True)
class TrainResult:
    """Accuracies in percent on held-back and on test images."""

    accuracy_held_back: float
    accuracy_test: float
    data: str
    checkpoint: str
    held_back_95: tuple[float, ...] = ()
    """both ends of its 95 % interval"""
    test_95: tuple[float, ...] = ()
    held_back_top5: float | None = None
    """label among the first five; None for 10 classes or fewer"""
    test_top5: float | None = None


def train(
    config: TrainCommandConfig,
    on_epoch: Callable[[EpochReport, float], None] | None = None,
    console: Console | None = None,
) -> TrainResult:
    """Train and write the checkpoint; `on_epoch` gets each report and the held-back percent at its resolution.

    Started again after a stop, it goes on from the last whole epoch. Raises UserError for a network that
    can't be trained on this data, and what `load_data` and `fit` raise.
    """
    training, device = config.training, prepared(accelerator_of(config.accelerator))
    console = console or Console(quiet=True)
    say_where(device, console)
    data = load_data(config.source, config.data_dir, config.download, training.image_size, console)
    channels = data.train.channels
    if channels == 1 and config.model not in SCALABLE_MODELS and config.model in known_models():
        raise UserError(
            f"{config.model} takes colour images, and the data, {data.source}, has grey ones; "
            f"train one of {', '.join(SCALABLE_MODELS)}"
        )
    spec = ModelSpec(config.model, config.width, input=(channels, *training.image_size), classes=data.classes)
    data = fitted(data, spec)
    check_labels(data, config.model, data.classes, console)
    check_several(data, config.model, console)
    console.say(f"pixels are normalised by the data's own figures, {data.normalisation}")
    torch.manual_seed(training.seed)
    model = build_model(spec)
    if training.low_resolution_epochs and not _takes(model, (channels, *training.low_resolution)):
        console.say(f"{config.model} takes images of one size alone: there are no first epochs at a lower resolution")
        training = replace(training, low_resolution_epochs=0)

    def report(epoch: EpochReport) -> None:
        if on_epoch is not None:
            on_epoch(epoch, accuracy(model, data.held_back, epoch.image_size))

    resume = sidecar(config.output, ".resume")
    model.to(device)
    console.say(training.plan(len(data.train)).text)
    diverged: DivergedError | None = None
    try:
        fit(model, data.train, training, resume, report, origin=data.digest(), say=console.warn)
    except DivergedError as error:
        if error.epoch == 1:
            raise
        diverged = error
    # The only look at the test images: nothing above depends on it.
    held_back, test = (outcome(model, split, training.image_size) for split in (data.held_back, data.test))
    result = TrainResult(
        held_back.accuracy_pct,
        test.accuracy_pct,
        data.source,
        str(config.output),
        interval_pct(held_back.accuracy_pct, len(held_back)),
        interval_pct(test.accuracy_pct, len(test)),
        held_back.top5_pct,
        test.top5_pct,
    )
    extra = {
        "accuracy_held_back": f"{result.accuracy_held_back:.2f}",
        "accuracy_test": f"{result.accuracy_test:.2f}",
        "epochs": str(training.epochs if diverged is None else diverged.epoch - 1),
        "seed": str(training.seed),
        "source": data.source,
        "train_images": str(len(data.train)),
        NORMALISATION_KEY: data.normalisation.text,
        "torch": torch.__version__,
    }
    if is_first():
        save_checkpoint(config.output, model, spec, extra)
        resume.unlink(missing_ok=True)
    if diverged is not None:
        raise JobError(f"{diverged}. The network of the epoch before it is {config.output}")
    return result
