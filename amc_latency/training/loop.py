"""The one training loop, shared by `train` and fine-tuning; resumable."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from amc_latency.accelerator import autocast_dtype, halving
from amc_latency.data import Split
from amc_latency.data.logits import right as hits_of
from amc_latency.data.splits import fewer_of_large
from amc_latency.errors import JobError, OptionError, UserError
from amc_latency.graph.operations import BATCH_NORMS
from amc_latency.prune.refit import recalibrate_batch_norm
from amc_latency.training.averaging import WeightAverage
from amc_latency.training.distillation import Objective, objective
from amc_latency.training.optimizers import optimizer_of
from amc_latency.training.outcome import outcome
from amc_latency.training.recipe import TrainConfig, TrainingPlan
from amc_latency.training.several import Processes, processes
from amc_latency.training.state import TrainingState

RECALIBRATION_IMAGES = 1024
"""that batch norms are estimated anew from, where training has left them behind"""
_FROM_BEFORE = 0.1
_REGISTER = 16
"""float32 values that a register of AVX-512 holds; 8 of AVX2's"""
_CHECKED_STEPS = 100
"""between two looks at whether the loss still is a number, for which a GPU has to be waited for"""


class DivergedError(JobError):
    """The loss is no number any more; the network is the one after the last whole epoch, or as it was before."""

    def __init__(self, epoch: int, loss: float, learning_rate: float) -> None:
        self.epoch = epoch
        """in which, counted from 1"""
        super().__init__(
            f"training diverged in epoch {epoch}: the loss is {loss}; lower `learning_rate`, {learning_rate:.3g} now"
        )


@dataclass(frozen=True)
class EpochReport:
    """One epoch: `epoch` counts from 1, `accuracy` is that of its own (augmented) batches, in percent."""

    epoch: int
    epochs: int
    image_size: tuple[int, int]
    loss: float
    accuracy: float
    seconds: float


def _batches(split: Split, config: TrainConfig, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The epoch's batches. Drawn from (seed, epoch) alone, so that a resumed run sees the very same ones."""
    generator = torch.Generator().manual_seed(config.seed * 100_003 + epoch)
    size = config.low_resolution if epoch < config.low_resolution_epochs else config.image_size
    images, passes = len(split), config.passes(len(split))
    steps = config.steps(images) // passes
    dealt: list[Tensor] = []
    for _ in range(passes):
        order = torch.randperm(images, generator=generator)
        dealt += order.tensor_split(steps) if config.deals(images) else order.split(config.batch(images))[:steps]
    return split.batches(dealt, size, config.augments, generator)


def fit(
    model: nn.Module,
    split: Split,
    config: TrainConfig,
    checkpoint: Path | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
    origin: str = "",
    teacher: nn.Module | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Train `model` in place on `split`, on the device where it is; it ends in eval mode.

    With `checkpoint`, the state is written there after every epoch, and a later call with the same path
    continues from it and ends in the same weights, bit for bit (on the same machine, device and thread count).
    `origin` tells apart runs that are alike but for the images, the weights that they start from, or the teacher: a
    network on the same device that takes the same images, whose outputs are followed as `config` says.
    Batch norms that follow too slowly are estimated anew at the end. Where memory runs out a batch is computed in
    parts, which `say` is told. Raises UserError for a checkpoint of another run, DivergedError, a JobError, if the
    loss stops being a number.
    """
    if len(split) < 2:
        raise UserError(f"training takes at least 2 images; got {len(split)}")
    plan = config.plan(len(split), teacher is not None)
    device = next(model.parameters()).device
    layout = memory_format(model)
    model.to(memory_format=layout)
    dtype = autocast_dtype(device, config.autocast)
    state = TrainingState(
        model,
        optimizer_of(plan.optimizer, model, plan.momentum, plan.weight_decay),
        WeightAverage(model, plan.ema_decay) if plan.ema_decay else None,
        torch.amp.GradScaler(device.type, enabled=dtype == torch.float16),
    )
    run = json.dumps({**({"origin": origin} if origin else {}), **asdict(config), **asdict(plan)})
    if checkpoint is not None and checkpoint.exists():
        state.load(checkpoint, run, config.epochs)
    several = processes(device)
    if plan.batch < 2 * several.count:
        raise OptionError("batch_size", f"is 2 images or more for each of {several.count} processes, not {plan.batch}")
    draws = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=draws), objective(plan, model, teacher) as wanted:
        step = _Step(state, plan, wanted, several, several.wrapped(model), device, layout, dtype, say)
        while state.epoch < config.epochs:
            before = _copied(state)
            # What a network draws itself, as dropout does, is the epoch's own: a resumed run draws the same.
            torch.manual_seed(config.seed * 100_003 + state.epoch)
            try:
                report = _epoch(step, split, config)
            except DivergedError:
                _put_back(state, before)
                raise
            several.as_first(model)
            if state.epoch == config.epochs and lagging(model, config.epochs * plan.steps):
                images = fewer_of_large(RECALIBRATION_IMAGES, config.image_size, plan.batch)
                few = split.take(images).inputs(config.image_size)
                few = few.contiguous(memory_format=layout).to(device)
                _put_average(state)
                recalibrate_batch_norm(model, few, plan.batch)
                state.average = None
            if checkpoint is not None and several.number == 0:
                state.save(checkpoint, run)
            if on_epoch is not None:
                on_epoch(report)
    _put_average(state)
    several.as_first(model)
    model.eval()


@dataclass
class _Step:
    """What takes a step of training."""

    state: TrainingState
    plan: TrainingPlan
    objective: Objective
    several: Processes
    network: nn.Module
    """the model, or what is called in its place"""
    device: torch.device
    layout: torch.memory_format
    dtype: torch.dtype | None
    say: Callable[[str], None]

    def take(self, images: Tensor, labels: Tensor, number: int) -> Tensor:
        """Take step `number`, counted from 0 over all epochs; [the loss's sum over the batch, how many are right]."""
        state, plan, optimizer = self.state, self.plan, self.state.optimizer
        whole = len(images)
        images, labels = self.several.part(images), self.several.part(labels)
        images, labels = images.contiguous(memory_format=self.layout).to(self.device), labels.to(self.device)
        for group in optimizer.param_groups:
            group["lr"] = plan.rate_at(number)
        size = math.ceil(len(images) / state.parts)
        # Others would wait for ever for a process that goes back a step.
        least = 2 if self.several.count == 1 else size
        sums, done = halving(
            lambda size: self._gradients(images, labels, whole, size), size, self.device, self.say, least
        )
        state.parts = max(state.parts, math.ceil(len(images) / done))
        if plan.clip_norm:
            state.scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(state.model.parameters(), plan.clip_norm)
        state.scaler.step(optimizer)
        state.scaler.update()
        if state.average is not None:
            state.average.update(state.model, number)
        return sums

    def _gradients(self, images: Tensor, labels: Tensor, whole: int, size: int) -> Tensor:
        """Those of a batch of `whole` images, computed in parts of about `size`."""
        self.state.optimizer.zero_grad()
        parts = math.ceil(len(images) / size)
        sums = torch.zeros(2, device=self.device)
        for some, own in zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True):
            with self._autocast():
                logits = self.network(some)
                loss = self.objective.loss(logits, own, some)
            # Gradients are averaged over processes, whose shares may differ by an image.
            share = len(some) * self.several.count / whole
            self.state.scaler.scale(loss if share == 1 else loss * share).backward()
            hits = hits_of(logits.detach(), own)
            sums += torch.stack([loss.detach().float() * len(some), hits.sum().float()])
        return sums

    def _autocast(self) -> AbstractContextManager[object]:
        return nullcontext() if self.dtype is None else torch.autocast(self.device.type, self.dtype)


def _epoch(step: _Step, split: Split, config: TrainConfig) -> EpochReport:
    """Train for an epoch."""
    state, plan = step.state, step.plan
    started = time.monotonic()
    state.model.train()
    sums, seen = torch.zeros(2, device=step.device), 0
    for number, (images, labels) in enumerate(_batches(split, config, state.epoch)):
        sums, seen = sums + step.take(images, labels, state.epoch * plan.steps + number), seen + len(labels)
        if number % _CHECKED_STEPS == 0:
            _check(float(step.several.summed(sums)[0]), state.epoch, plan)
    loss, hits = step.several.summed(sums).cpu().tolist()
    _check(loss, state.epoch, plan)
    state.epoch += 1
    size, seconds = (images.shape[-2], images.shape[-1]), time.monotonic() - started
    return EpochReport(state.epoch, config.epochs, size, loss / seen, 100 * hits / seen, seconds)


def _check(loss: float, epoch: int, plan: TrainingPlan) -> None:
    if not math.isfinite(loss):
        raise DivergedError(epoch + 1, loss, plan.learning_rate)


Copied = tuple[dict[str, Tensor], dict[str, Tensor] | None]


def _copied(state: TrainingState) -> Copied:
    average = None if state.average is None else _cloned(state.average.tensors)
    return _cloned(state.model.state_dict()), average


def _cloned(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _put_back(state: TrainingState, before: Copied) -> None:
    weights, average = before
    state.model.load_state_dict(weights if average is None else average)
    state.model.eval()


def _put_average(state: TrainingState) -> None:
    if state.average is not None:
        state.model.load_state_dict(state.average.tensors)


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
