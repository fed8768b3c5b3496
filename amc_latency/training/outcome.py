"""What a network says of labelled images, image by image: the one place where top-1, top-5 and loss are told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from amc_latency.data import Split
from amc_latency.data.logits import labels_of, loss_of, right
from amc_latency.training.intervals import interval_pct

TOP = 5
LEAST_CLASSES = 11
"""From so many on, top-5 accuracy is told as well."""


@dataclass(frozen=True)
class Outcome:
    """Of N images in order."""

    said: Tensor
    """the class that the network puts first, int64 [N]"""
    right: Tensor
    """whether that is the label, bool [N]"""
    top5: Tensor | None
    """whether the label is among its first five, bool [N]; None for a network of few classes"""
    loss: float
    """mean cross entropy in nats"""
    labels: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    """what they are, int64 [N]: images that could not be read are left out"""

    def __len__(self) -> int:
        return len(self.right)

    @property
    def accuracy_pct(self) -> float:
        """Percent that is right."""
        return 100 * int(self.right.sum()) / len(self)

    @property
    def top5_pct(self) -> float | None:
        """Percent whose label is among the first five."""
        return None if self.top5 is None else 100 * int(self.top5.sum()) / len(self)


@dataclass(frozen=True)
class Accuracy:
    """Of a network, or of a file, on labelled images."""

    accuracy_pct: float
    """percent whose label it puts first"""
    interval_95: tuple[float, float]
    """both ends of the 95 % interval"""
    images: int
    top5_pct: float | None = None
    """percent whose label is among the first five; None for 10 classes or fewer"""

    @property
    def text(self) -> str:
        """In a few words."""
        top5 = "" if self.top5_pct is None else f", top-5 {self.top5_pct:.2f} %"
        low, high = self.interval_95
        return f"{self.accuracy_pct:.2f} % (95 % between {low:.1f} and {high:.1f}) of {self.images:,} images{top5}"


def accuracy_of(found: Outcome) -> Accuracy:
    """What an outcome comes to."""
    return Accuracy(found.accuracy_pct, interval_pct(found.accuracy_pct, len(found)), len(found), found.top5_pct)


def outcome_of(batches: Iterable[tuple[Tensor, Tensor]]) -> Outcome:
    """The outcome of (logits [n, classes], labels [n]) batch by batch."""
    said, hits, top5, told, loss = [], [], [], [], 0.0
    for logits, labels in batches:
        told.append(labels.cpu())
        said.append(labels_of(logits).cpu())
        hits.append(right(logits, labels).cpu())
        if logits.shape[1] >= LEAST_CLASSES:
            top5.append(among_first(logits, labels).cpu())
        loss += float(loss_of(logits, labels, "sum"))
    all_right = torch.cat(hits)
    top5_right = torch.cat(top5) if top5 else None
    return Outcome(torch.cat(said), all_right, top5_right, loss / len(all_right), torch.cat(told))


def among_first(logits: Tensor, labels: Tensor, first: int = TOP) -> Tensor:
    """Whether each label is among the `first` largest logits, bool [n]; of equal ones the earlier class is larger."""
    own = logits.gather(1, labels[:, None])
    # Not `logits > own`: what is no number must not make a network look right.
    above = ~(logits <= own)
    earlier = (logits == own) & (torch.arange(logits.shape[1], device=logits.device) < labels[:, None])
    return (above | earlier).sum(1) < first


def outcome(model: nn.Module, split: Split, image_size: tuple[int, int], batch_size: int = 100) -> Outcome:
    """The outcome of PyTorch's own forward pass on all of `split`; the model ends in eval mode."""
    device = next(model.parameters()).device
    model.eval()

    def batches() -> Iterable[tuple[Tensor, Tensor]]:
        for inputs, labels in split.parts(image_size, batch_size):
            # Channels last is twice as fast on a CPU.
            images = inputs.to(device).contiguous(memory_format=torch.channels_last)
            yield model(images), labels.to(device)

    with torch.inference_mode():
        return outcome_of(batches())


def accuracy_line(found: Outcome) -> str:
    """The uncut network's accuracy on held-back images, its interval, and top-5 where that is told."""
    low, high = interval_pct(found.accuracy_pct, len(found))
    top5 = "" if found.top5_pct is None else f", top-5 {found.top5_pct:.2f} %"
    return (
        f"before anything is done the network gets {int(found.right.sum()):,} of {len(found):,} held-back images "
        f"right: {found.accuracy_pct:.2f} % (95 % between {low:.1f} and {high:.1f}){top5}"
    )
