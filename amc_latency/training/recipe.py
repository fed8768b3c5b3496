"""How a network is trained: what a user may say of it, and what it is unless they do. It loads no PyTorch.

`Recipe` has the options, all None unless set. `TrainConfig` adds what a program says of a run, and `TrainConfig.plan`
decides each by the kind of training (`KINDS`) and the number of images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from typing import Any

from amc_latency.arguments.names import find
from amc_latency.arguments.settings import Rule, at_least, between, check_settings, positive, setting
from amc_latency.data.augmentation import AUGMENTATIONS, Augmentation
from amc_latency.data.splits import fewer_of_large
from amc_latency.errors import OptionError, UserError
from amc_latency.training.optimizers import OPTIMIZERS

TRAINING = "Training"
"""The group of options."""
LARGEST = 1_000_000_000
"""Any number of epochs, images a batch, or a seed; times 100,003 it is a seed of PyTorch's too."""
LEAST_BATCHES = 16
"""In an epoch, of the images that are many enough for it."""
BATCH = 128
"""images a step, of the images that are many enough; rates are for it"""
LEAST_BATCH = 16
"""unless there are fewer than 128 images"""


def _cosine(done: float) -> float:
    return (1 + math.cos(math.pi * done)) / 2


SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": _cosine,
    "linear": lambda done: 1 - done,
    "constant": lambda done: 1.0,
}
"""By name: the share of the highest rate that is left when this share of the steps after warm-up is done."""
OF_TEACHERS = ("distillation", "temperature", "feature_matching")
"""Options that mean something where there is a teacher."""
AUTOCASTS = ("auto", "off", "bfloat16", "float16")


@dataclass(frozen=True)
class Kind:
    """What a kind of training takes where a recipe says nothing."""

    warmup_epochs: float
    distillation: float
    """where there is a teacher"""
    drop_last: bool
    epoch_steps: int


KINDS = {
    "train": Kind(warmup_epochs=1.0, distillation=0.0, drop_last=True, epoch_steps=1),
    "finetune": Kind(warmup_epochs=0.5, distillation=0.9, drop_last=False, epoch_steps=32),
}
LABEL_SMOOTHING, MOMENTUM, TEMPERATURE = 0.05, 0.9, 1.0


def _one_of(names: Collection[str], what: str) -> Rule:
    return Rule(lambda name: find(dict.fromkeys(names, True), name, what), "")


_share = between(0, 1, "is from 0 to 1")


@dataclass(frozen=True)
class Recipe:
    """The options of training, alike for `train`, `finetune` and what a search does with its networks."""

    optimizer: str | None = setting(
        None,
        f"what takes the steps: {', '.join(OPTIMIZERS)}; sgd unless set",
        TRAINING,
        rule=_one_of(OPTIMIZERS, "optimizer"),
    )
    learning_rate: float | None = setting(
        None,
        "highest of training: 0.1 from random weights, 0.005 of fine-tuning, with adamw 0.002 and 0.001, unless set; "
        "less for batches under 128",
        TRAINING,
        rule=positive(" such as 0.005"),
    )
    schedule: str | None = setting(
        None,
        f"how the rate falls after the warm-up: {', '.join(SCHEDULES)}; cosine unless set",
        TRAINING,
        rule=_one_of(SCHEDULES, "schedule"),
    )
    warmup_epochs: float | None = setting(
        None,
        "epochs in which the rate rises: 1 from random weights, 0.5 of fine-tuning, unless set",
        TRAINING,
        rule=at_least(0),
    )
    batch_size: int | None = setting(
        None,
        "images a training step: a sixteenth of all, from 16 to 128, but no more than an eighth, and of images larger "
        "than 96x96 fewer, unless set",
        TRAINING,
        rule=Rule(lambda images: images >= 2, "is 2 or more images"),
    )
    epoch_steps: int | None = setting(
        None,
        "steps an epoch at least: fewer images than that takes are shown several times; 32 of fine-tuning by another "
        "network's outputs unless set",
        TRAINING,
        rule=between(1, 1_000_000, "is from 1 to 1,000,000"),
    )
    augmentation: str | None = setting(
        None,
        "what chance does to train images: auto by the data, none, or names with figures such as flip,crop=0.35; "
        f"there are {', '.join(AUGMENTATIONS)}",
        TRAINING,
        rule=Rule(lambda text: bool(Augmentation.of(text)), ""),
    )
    momentum: float | None = setting(
        None,
        "Nesterov's of sgd, the first beta of adamw: 0.9 unless set",
        TRAINING,
        rule=Rule(lambda share: 0 <= share < 1, "is from 0 to below 1"),
    )
    weight_decay: float | None = setting(
        None,
        "of convolution and linear weights: 0.0005, with adamw 0.02, unless set",
        TRAINING,
        rule=at_least(0),
    )
    label_smoothing: float | None = setting(
        None, "share of each label that is spread over all classes: 0.05 unless set", TRAINING, rule=_share
    )
    clip_norm: float | None = setting(
        None, "largest norm of the gradients, which are scaled down to it; none unless set", TRAINING, rule=at_least(0)
    )
    ema_decay: float | None = setting(
        None,
        "an average of the weights takes their place at the end, which keeps this share of itself at each step, such "
        "as 0.999; none unless set",
        TRAINING,
        rule=Rule(lambda share: 0 <= share < 1, "is from 0 to below 1"),
    )
    distillation: float | None = setting(
        None,
        "share of the loss that follows the teacher's outputs and not the labels: 0.9 of fine-tuning unless set, 0.9 "
        "of its accuracy where that is the network itself",
        TRAINING,
        rule=_share,
    )
    temperature: float | None = setting(
        None, "what both outputs are divided by before they are compared: 1 unless set", TRAINING, rule=positive("")
    )
    feature_matching: float | None = setting(
        None,
        "weight of how far the network looks elsewhere than the teacher, by maps of attention; none unless set",
        TRAINING,
        rule=at_least(0),
    )
    autocast: str | None = setting(
        None,
        f"how a GPU computes in training: {', '.join(AUTOCASTS)}; auto is bfloat16 on an NVIDIA GPU that has it, else "
        "float16, and float32 elsewhere",
        TRAINING,
        rule=_one_of(AUTOCASTS, "autocast"),
    )

    def __post_init__(self) -> None:
        check_settings(self)


def recipe_of(config: Recipe) -> dict[str, Any]:
    """The options of training alone, by name."""
    return {each.name: getattr(config, each.name) for each in fields(Recipe)}


@dataclass(frozen=True)
class TrainConfig(Recipe):
    """A run of training. The defaults are those of the bundled checkpoint."""

    epochs: int = 16
    """passes over the images"""
    kind: str = "train"
    """of `KINDS`: what is taken where the options say nothing"""
    augment: bool = True
    """whether chance changes images at all"""
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

    @property
    def augments(self) -> Augmentation | None:
        """What chance does to images; None for nothing."""
        return Augmentation.of(self.augmentation or "auto") if self.augment else None

    def batch(self, images: int) -> int:
        """Images a step, of so many in all."""
        return self.batch_size or batch_size_for(images, self.image_size)

    def rate(self, images: int) -> float:
        """The learning rate at the top of the schedule: as many steps of small batches would else go much further."""
        if self.learning_rate is not None:
            return self.learning_rate
        record = OPTIMIZERS[self.optimizer or "sgd"]
        return record.rates[self.kind] * min(1.0, self.batch(images) / BATCH) ** record.scaling

    def steps(self, images: int) -> int:
        """Steps an epoch."""
        return self.passes(images) * self._steps_a_pass(images)

    def passes(self, images: int) -> int:
        """How often an epoch shows each image."""
        return math.ceil((self.epoch_steps or KINDS[self.kind].epoch_steps) / self._steps_a_pass(images))

    def _steps_a_pass(self, images: int) -> int:
        batch = self.batch(images)
        # One image alone has no variance for a batch norm.
        return min(math.ceil(images / batch), images // 2) if self.deals(images) else images // batch

    def deals(self, images: int) -> bool:
        """Whether all images are shown, in batches of like size; else a last, smaller batch of each epoch is left out.

        That is a small part of the images.
        """
        return not KINDS[self.kind].drop_last or images < LEAST_BATCHES * self.batch(images)

    def plan(self, images: int, has_teacher: bool = False) -> TrainingPlan:
        """What is done, of so many images."""
        kind, optimizer = KINDS[self.kind], self.optimizer or "sgd"
        steps = self.steps(images)
        return TrainingPlan(
            images=images,
            epochs=self.epochs,
            steps=steps,
            batch=self.batch(images),
            optimizer=optimizer,
            learning_rate=self.rate(images),
            schedule=self.schedule or "cosine",
            warmup_steps=round(_or(self.warmup_epochs, kind.warmup_epochs) * steps),
            momentum=_or(self.momentum, MOMENTUM),
            weight_decay=_or(self.weight_decay, OPTIMIZERS[optimizer].weight_decay),
            label_smoothing=_or(self.label_smoothing, LABEL_SMOOTHING),
            clip_norm=_or(self.clip_norm, 0.0),
            ema_decay=_or(self.ema_decay, 0.0),
            distillation=_or(self.distillation, kind.distillation) if has_teacher else 0.0,
            temperature=_or(self.temperature, TEMPERATURE),
            feature_matching=_or(self.feature_matching, 0.0) if has_teacher else 0.0,
        )


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


@dataclass(frozen=True)
class TrainingPlan:
    """A recipe for a number of images, nothing left open; a 0 leaves out what it is the weight or the norm of."""

    images: int
    epochs: int
    steps: int
    """an epoch"""
    batch: int
    optimizer: str
    learning_rate: float
    schedule: str
    warmup_steps: int
    momentum: float
    weight_decay: float
    label_smoothing: float
    clip_norm: float
    ema_decay: float
    distillation: float
    temperature: float
    feature_matching: float

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0 over all epochs: a linear warm-up, then the schedule."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.epochs * self.steps - self.warmup_steps)
        return self.learning_rate * SCHEDULES[self.schedule](done)

    @property
    def text(self) -> str:
        """In a line."""
        told = [
            f"{self.optimizer} at {self.learning_rate:.3g}",
            f"{self.epochs} epochs of {self.steps:,} steps, {self.batch} images each",
            f"weight decay {self.weight_decay:g}",
            f"label smoothing {self.label_smoothing:g}",
        ]
        told += [f"gradients clipped at {self.clip_norm:g}"] if self.clip_norm else []
        told += [f"weights averaged by {self.ema_decay:g}"] if self.ema_decay else []
        told += [f"{self.distillation:g} of the loss by the teacher"] if self.distillation else []
        told += [f"feature matching {self.feature_matching:g}"] if self.feature_matching else []
        return f"training: {', '.join(told)}"


def batch_size_for(images: int, size: tuple[int, int]) -> int:
    """A sixteenth of the images, at least 16 and at most 128, but never more than an eighth: few images make few steps.

    No less than 2 either: batch norms are not trained by single images. Of a `size` (h, w) larger than 96x96 fewer, 23
    at 224x224: on a CPU EfficientNet-Lite0 trains there on 10.6 images a second by 16, and on 3.4 by 64.
    """
    most = fewer_of_large(BATCH, size, LEAST_BATCH)
    return max(2, min(most, max(LEAST_BATCH, images // LEAST_BATCHES), images // 8))
