"""What takes the steps of training, by name. PyTorch is loaded when one is made: options list the names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

Groups = Sequence[Mapping[str, Any]]
"""Parameters, and how they decay, as PyTorch's optimizers take them."""


@dataclass(frozen=True)
class OptimizerRecord:
    """An optimizer, and what suits it where a recipe says nothing."""

    make: Callable[[Groups, float], Optimizer]
    """of groups of parameters and the momentum"""
    rates: Mapping[str, float]
    """the learning rate for batches of 128, by the kind of training"""
    scaling: float
    """the rate falls as this power of the batch's size where that is smaller"""
    weight_decay: float


def _sgd(groups: Groups, momentum: float) -> Optimizer:
    from torch.optim import SGD

    return SGD([dict(group) for group in groups], momentum=momentum, nesterov=momentum > 0)


def _adamw(groups: Groups, momentum: float) -> Optimizer:
    from torch.optim import AdamW

    return AdamW([dict(group) for group in groups], betas=(momentum, 0.999))


OPTIMIZERS = {
    "sgd": OptimizerRecord(_sgd, {"train": 0.1, "finetune": 0.005}, 1.0, 5e-4),
    # Its steps don't grow with the gradients: the square root of the batch (Malladi et al., arXiv 2205.10287).
    "adamw": OptimizerRecord(_adamw, {"train": 0.002, "finetune": 0.001}, 0.5, 0.02),
}
"""By name, in the order in which messages list them."""


def optimizer_of(name: str, model: nn.Module, momentum: float, weight_decay: float) -> Optimizer:
    """The optimizer of a model's parameters; batch norms and biases don't decay."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    free = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
    return OPTIMIZERS[name].make(groups, momentum)
