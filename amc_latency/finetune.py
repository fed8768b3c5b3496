"""Fine-tuning: a few epochs that give a cut network back what the cut took."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from amc_latency.data import Split, load_data
from amc_latency.models.checkpoint import save_checkpoint
from amc_latency.models.load import NetworkOptions, load_network
from amc_latency.training import EpochReport, TrainConfig, accuracy, fit


@dataclass(frozen=True)
class FinetuneConfig:
    """How to fine-tune. The defaults were chosen on held-back images, with the 8,000 bundled train images."""

    epochs: int = 4
    """passes over the images"""
    batch_size: int = 128
    """images a step"""
    learning_rate: float = 0.02
    """at the top of the schedule"""
    weight_decay: float = 5e-4
    """of convolution and linear weights"""
    label_smoothing: float = 0.05
    """share of the target spread over all classes"""
    warmup_epochs: float = 0.5
    """epochs of linear warm-up; after it a cosine falls to 0"""
    augment: bool = True
    """shift by up to 2 pixels and flip, at random"""
    image_size: int = 64
    """height and width of the network's input"""
    seed: int = 0
    """of the order of images and the augmentation"""


def finetune(
    model: nn.Module,
    split: Split,
    config: FinetuneConfig,
    checkpoint: Path | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
) -> None:
    """Fine-tune `model` in place on `split`, at full resolution throughout; resumes and raises like `fit`."""
    training = TrainConfig(
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        label_smoothing=config.label_smoothing,
        warmup_epochs=config.warmup_epochs,
        augment=config.augment,
        image_size=config.image_size,
        low_resolution_epochs=0,
        seed=config.seed,
    )
    fit(model, split, training, checkpoint, on_epoch)


@dataclass(frozen=True)
class FinetuneResult:
    """Accuracies in percent before and after."""

    held_back_before: float
    held_back: float
    test: float
    checkpoint: str


def finetune_checkpoint(
    model: str,
    out: Path,
    epochs: int,
    source: str,
    seed: int,
    on_epoch: Callable[[EpochReport], None] | None = None,
) -> FinetuneResult:
    """Fine-tune the checkpoint `model` and write `out`; goes on from `<out>.resume` after a stop.

    Raises what `load_network`, `load_data` and `fit` raise.
    """
    network = load_network(NetworkOptions(model))
    data = load_data(source)
    size = network.spec.input[1]
    before = accuracy(network.model, data.held_back, size)
    resume = out.with_name(out.name + ".resume")
    config = FinetuneConfig(epochs=epochs, image_size=size, seed=seed)
    finetune(network.model, data.train, config, resume, on_epoch)
    save_checkpoint(out, network.model, network.spec, {"source": data.source, "seed": str(seed)})
    resume.unlink(missing_ok=True)
    return FinetuneResult(
        before,
        accuracy(network.model, data.held_back, size),
        accuracy(network.model, data.test, size),
        str(out),
    )
