"""The one training loop, shared by `train` and fine-tuning: SGD with a cosine schedule, resumable."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from amc_latency.data import Split
from amc_latency.data.augmentation import Augmentation
from amc_latency.data.logits import correct, loss_of
from amc_latency.errors import JobError, OptionError, UserError
from amc_latency.graph.operations import BATCH_NORMS
from amc_latency.models.files.weights import check_fit, read_tensors, write_tensors
from amc_latency.prune.refit import recalibrate_batch_norm
from amc_latency.training.outcome import outcome

LARGEST = 1_000_000_000
"""Any number of epochs, images a batch, or a seed; times 100,003 it is a seed of PyTorch's too."""
RECALIBRATION_IMAGES = 1024
"""that batch norms are estimated anew from, where training has left them behind"""
LEAST_BATCHES = 16
"""In an epoch, of the images that are many enough for it."""
_FROM_BEFORE = 0.1
_REGISTER = 16
"""float32 values that a register of AVX-512 holds; 8 of AVX2's"""


@dataclass(frozen=True)
class TrainConfig:
    """How to train. The defaults are those of the bundled checkpoint."""

    epochs: int = 16
    """passes over the images"""
    batch_size: int | None = None
    """images a step; `batch_size_for` the number of images unless set"""
    drop_last: bool = True
    """whether a last, smaller batch is left out, if that is a small part of the images; else all of an epoch's images
    are dealt to batches of like size"""
    learning_rate: float | None = None
    """at the top of the schedule; unless set `rate_of_128`, in proportion less for smaller batches than 128"""
    rate_of_128: float = 0.1
    momentum: float = 0.9
    """Nesterov's"""
    weight_decay: float = 5e-4
    """of convolution and linear weights; batch norm and biases have none"""
    label_smoothing: float = 0.05
    """share of the target spread over all classes"""
    teacher_share: float = 0.0
    """of the loss, where there is a teacher: how far its outputs are followed, and not the labels"""
    warmup_epochs: float = 1.0
    """epochs of linear warm-up; after it a cosine falls to 0"""
    augment: bool = True
    """shift by up to 2 pixels and flip, at random"""
    image_size: tuple[int, int] = (64, 64)
    """height and width of the network's input"""
    low_resolution_epochs: int = 6
    """first epochs at `low_resolution`, where a step costs less"""
    low_resolution: tuple[int, int] = (32, 32)
    """height and width in those first epochs"""
    seed: int = 0
    """of the order of images and the augmentation"""

    def __post_init__(self) -> None:
        too_few = self.batch_size is not None and self.batch_size < 2
        if self.epochs < 1 or too_few or min(*self.image_size, *self.low_resolution) < 8:
            raise UserError(
                f"training takes at least 1 epoch, batches of 2 and images of 8x8; got {self.epochs} epochs, batches "
                f"of {self.batch_size} and {self.image_size[0]}x{self.image_size[1]}"
            )
        for name, value in (("epochs", self.epochs), ("batch_size", self.batch_size or 2), ("seed", self.seed)):
            if not 0 <= value <= LARGEST:
                raise OptionError(name, f"is from 0 to {LARGEST:,}, not {value}")
        if self.learning_rate is not None and not 0 <= self.learning_rate < math.inf:
            raise UserError(f"a learning rate is a positive number such as 0.005, not {self.learning_rate:g}")

    def batch(self, images: int) -> int:
        """Images a step, of so many in all."""
        return self.batch_size or batch_size_for(images)

    def rate(self, images: int) -> float:
        """The learning rate at the top of the schedule: as many steps of small batches would else go much further."""
        if self.learning_rate is not None:
            return self.learning_rate
        return self.rate_of_128 * min(1.0, self.batch(images) / 128)

    def steps(self, images: int) -> int:
        """Steps an epoch."""
        batch = self.batch(images)
        # One image alone has no variance for a batch norm.
        return min(math.ceil(images / batch), images // 2) if self.deals(images) else images // batch

    def deals(self, images: int) -> bool:
        """Whether each epoch shows all images, in batches of like size."""
        return not self.drop_last or images < LEAST_BATCHES * self.batch(images)


def batch_size_for(images: int) -> int:
    """A sixteenth of the images, at least 16 and at most 128, but never more than an eighth: few images make few steps.

    No less than 2 either: batch norms are not trained by single images.
    """
    return max(2, min(128, max(16, images // LEAST_BATCHES), images // 8))


@dataclass(frozen=True)
class EpochReport:
    """One epoch: `epoch` counts from 1, `accuracy` is that of its own (augmented) batches, in percent."""

    epoch: int
    epochs: int
    image_size: tuple[int, int]
    loss: float
    accuracy: float
    seconds: float


def learning_rate(config: TrainConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of a step, counted from 0 over all epochs: linear warm-up, then a cosine to 0."""
    top = config.rate_of_128 if config.learning_rate is None else config.learning_rate
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return top * (step + 1) / warmup
    done = (step - warmup) / max(1, config.epochs * steps_per_epoch - warmup)
    return top * (1 + math.cos(math.pi * done)) / 2


def _batches(split: Split, config: TrainConfig, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The epoch's batches. Drawn from (seed, epoch) alone, so that a resumed run sees the very same ones."""
    generator = torch.Generator().manual_seed(config.seed * 100_003 + epoch)
    size = config.low_resolution if epoch < config.low_resolution_epochs else config.image_size
    order = torch.randperm(len(split), generator=generator)
    steps = config.steps(len(split))
    dealt = order.tensor_split(steps) if config.deals(len(split)) else order.split(config.batch(len(split)))[:steps]
    return split.batches(dealt, size, Augmentation() if config.augment else None, generator)


def _optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.SGD:
    decayed = [p for p in model.parameters() if p.ndim > 1]
    free = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, momentum=config.momentum, nesterov=True)


def _save(path: Path, model: nn.Module, optimizer: torch.optim.SGD, run: str, epoch: int) -> None:
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        # A parameter that got no gradient has none.
        if (momentum := optimizer.state[parameter].get("momentum_buffer")) is not None:
            tensors[f"momentum.{name}"] = momentum
    write_tensors(path, tensors, {"run": run, "epoch": str(epoch)})


def _load(path: Path, model: nn.Module, optimizer: torch.optim.SGD, run: str) -> int:
    """Put the state at `path` into model and optimizer; return how many epochs it has had."""
    tensors, metadata = read_tensors(path)
    if metadata.get("run") != run:
        raise UserError(
            f"{path}: belongs to another training run ({metadata.get('run', 'no training state')}), "
            f"not to {run}; delete it to start over, or resume with the same settings"
        )
    weights = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    check_fit(path, model, weights)
    model.load_state_dict(weights)
    try:
        for name, parameter in model.named_parameters():
            if (momentum := tensors.get(f"momentum.{name}")) is not None:
                optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(momentum)
        return int(metadata["epoch"])
    except (KeyError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: no whole training state ({error}); delete it to start over") from error


@torch.random.fork_rng(devices=[])
def fit(
    model: nn.Module,
    split: Split,
    config: TrainConfig,
    checkpoint: Path | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
    origin: str = "",
    teacher: nn.Module | None = None,
) -> None:
    """Train `model` in place on `split`; it ends in eval mode.

    With `checkpoint`, the state is written there after every epoch, and a later call with the same path
    continues from it and ends in the same weights, bit for bit (on the same machine and thread count).
    `origin` tells apart runs that are alike but for the images, the weights that they start from, or the teacher: a
    network in eval mode that takes the same images, whose outputs are followed by `config.teacher_share`.
    Batch norms that follow too slowly are estimated anew at the end. Raises UserError for a checkpoint of another run,
    JobError if the loss stops being a number.
    """
    if len(split) < 2:
        raise UserError(f"training takes at least 2 images; got {len(split)}")
    steps = config.steps(len(split))
    device = next(model.parameters()).device
    layout = memory_format(model)
    model.to(memory_format=layout)
    optimizer = _optimizer(model, config)
    rated = replace(config, learning_rate=config.rate(len(split)))
    run = json.dumps({"images": len(split), **({"origin": origin} if origin else {}), **asdict(config)})
    first = 0
    if checkpoint is not None and checkpoint.exists():
        first = _load(checkpoint, model, optimizer, run)
    for epoch in range(first, config.epochs):
        started = time.monotonic()
        model.train()
        # What a network draws itself, as dropout does, is the epoch's own: a resumed run draws the same.
        torch.manual_seed(config.seed * 100_003 + epoch)
        loss_sum, right, seen = 0.0, 0, 0
        for step, (images, labels) in enumerate(_batches(split, config, epoch)):
            images, labels = images.contiguous(memory_format=layout).to(device), labels.to(device)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(rated, epoch * steps + step, steps)
            logits = model(images)
            loss = loss_of(logits, labels, label_smoothing=config.label_smoothing)
            if teacher is not None:
                loss = (1 - config.teacher_share) * loss + config.teacher_share * _distance(logits, teacher, images)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss_sum += loss.item() * len(labels)
            right += correct(logits, labels)
            seen += len(labels)
        if not math.isfinite(loss_sum):
            raise JobError(f"training diverged in epoch {epoch + 1}: the loss is {loss_sum}; lower learning_rate")
        if epoch + 1 == config.epochs and lagging(model, config.epochs * steps):
            few = split.take(RECALIBRATION_IMAGES).inputs(config.image_size)
            recalibrate_batch_norm(model, few.contiguous(memory_format=layout).to(device), config.batch(len(split)))
        if checkpoint is not None:
            _save(checkpoint, model, optimizer, run, epoch + 1)
        if on_epoch is not None:
            size, seconds = (images.shape[-2], images.shape[-1]), time.monotonic() - started
            on_epoch(EpochReport(epoch + 1, config.epochs, size, loss_sum / seen, 100 * right / seen, seconds))
    model.eval()


def _distance(logits: torch.Tensor, teacher: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy in nats between what `teacher` says of `images` and the `logits` [N, classes].

    One logit is that of the second of two classes, by sigmoid: its softmax would always be 1.
    """
    with torch.no_grad():
        said = teacher(images)
    if logits.shape[1] == 1:
        return functional.binary_cross_entropy_with_logits(logits, said.sigmoid())
    return functional.cross_entropy(logits, said.softmax(1))


def lagging(model: nn.Module, steps: int) -> bool:
    """Whether a batch norm's running statistics still are to more than a tenth those from before so many steps.

    MNASNet's follow by 0.0003 a step, EfficientNet's by 0.01: a few epochs of fine-tuning change the weights and leave
    them behind. On EfficientNet-Lite0 and 12 steps that alone took agreement from 24 to 4 %.
    """
    norms = [module for module in model.modules() if isinstance(module, BATCH_NORMS)]
    return any(norm.momentum is not None and (1 - norm.momentum) ** steps > _FROM_BEFORE for norm in norms)


def memory_format(model: nn.Module) -> torch.memory_format:
    """How the tensors of a network that is trained lie in memory: channels last, the fastest, where that is safe.

    oneDNN 3.12, in PyTorch 2.14, writes past its memory in the weights' gradient of a strided 1x1 convolution of fewer
    channels than a register holds, if channels lie last: it crashes, hangs, or the gradient is wrong (oneDNN's issue
    6035). The shortcuts of a ResNet are such convolutions once they are cut.
    """
    convolutions = [module for module in model.modules() if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))]
    strided = [conv for conv in convolutions if conv.kernel_size == (1, 1) and max(conv.stride) > 1]
    is_safe = all(conv.weight.shape[1] >= _REGISTER for conv in strided)
    return torch.channels_last if is_safe else torch.contiguous_format


def accuracy(model: nn.Module, split: Split, image_size: tuple[int, int], batch_size: int = 100) -> float:
    """Top-1 accuracy on all of `split`, in percent (0..100); the model is left in eval mode."""
    return judged(model, split, image_size, batch_size)[0]


def judged(model: nn.Module, split: Split, image_size: tuple[int, int], batch_size: int = 100) -> tuple[float, float]:
    """Top-1 accuracy in percent and mean cross entropy in nats on all of `split`; ends in eval mode."""
    found = outcome(model, split, image_size, batch_size)
    return found.accuracy_pct, found.loss
