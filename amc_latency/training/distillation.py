"""What training lowers: the labels' loss, what a teacher says, and where it looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from amc_latency.data.logits import loss_of
from amc_latency.training.recipe import TrainingPlan


@dataclass
class Objective:
    """The loss of a batch under a plan; `teacher` is a network in eval mode that takes the same images, or None."""

    plan: TrainingPlan
    teacher: nn.Module | None = None
    maps: tuple[Maps, Maps] | None = None
    """of the network and the teacher, where features are matched"""

    def loss(self, logits: Tensor, labels: Tensor, images: Tensor) -> Tensor:
        """In nats, mean over N images: of logits [N, outputs], and labels int64 [N] or shares [N, classes]."""
        plan, share = self.plan, self.plan.distillation
        if self.teacher is None:
            return loss_of(logits, labels, label_smoothing=plan.label_smoothing)
        with torch.no_grad():
            said = self.teacher(images)
        loss = logits.new_zeros(())
        if share < 1:
            loss = (1 - share) * loss_of(logits, labels, label_smoothing=plan.label_smoothing)
        if share:
            loss = loss + share * distance(logits, said, plan.temperature)
        if self.maps is not None:
            loss = loss + plan.feature_matching * attention_distance(*(maps.take() for maps in self.maps))
        return loss


@contextmanager
def objective(plan: TrainingPlan, model: nn.Module, teacher: nn.Module | None) -> Iterator[Objective]:
    """The loss that `plan` asks for. Features are watched within it."""
    if teacher is None or not (plan.distillation or plan.feature_matching):
        yield Objective(plan)
        return
    teacher.eval()
    if not plan.feature_matching:
        yield Objective(plan, teacher)
        return
    with watched(model) as own, watched(teacher) as wanted:
        yield Objective(plan, teacher, (own, wanted))


def distance(logits: Tensor, said: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean divergence (Kullback-Leibler, in nats) of outputs [N, classes] from what a teacher `said`.

    Both are softened by `temperature`, whose square keeps the gradients as large (Hinton et al., arXiv 1503.02531).
    One output is the logit of the second of two classes: its softmax would always be 1.
    """
    if logits.shape[1] == 1:
        logits, said = (torch.cat([torch.zeros_like(each), each], 1) for each in (logits, said))
    own, wanted = ((each.float() / temperature).log_softmax(1) for each in (logits, said))
    return functional.kl_div(own, wanted, reduction="batchmean", log_target=True) * temperature**2


Map = tuple[tuple[int, int], Tensor]
"""Height and width, and where a layer looks: [N, height * width], of length 1 each."""


@dataclass
class Maps:
    """The last feature map of each size that a forward pass made."""

    features: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def see(self, output: object) -> None:
        """Keep a layer's output, if it is a feature map [N, C, H, W] of more than one position."""
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
            self.features[output.shape[2], output.shape[3]] = output

    def take(self) -> dict[tuple[int, int], Tensor]:
        """By size; the next forward pass begins anew."""
        taken, self.features = self.features, {}
        return taken


@contextmanager
def watched(model: nn.Module) -> Iterator[Maps]:
    """The feature maps of a model's forward passes within it."""
    maps = Maps()
    hook: Callable[..., None] = lambda module, args, output: maps.see(output)  # noqa: E731
    with ExitStack() as hooks:
        for module in model.modules():
            if not any(module.children()):
                hooks.callback(module.register_forward_hook(hook).remove)
        yield maps


def attention_distance(own: dict[tuple[int, int], Tensor], wanted: dict[tuple[int, int], Tensor]) -> Tensor:
    """Mean squared distance, 0..4, of where two networks look: at each resolution, by the last feature map of it.

    A map of attention is the sum of squares over channels, scaled to length 1 (Zagoruyko and Komodakis, arXiv
    1612.03928): a cut network has one of its teacher's size, however many channels it has lost. Where no size is alike,
    0.
    """
    sizes = [size for size in own if size in wanted]
    total = torch.zeros((), device=next(iter(own.values())).device if own else None)
    for size in sizes:
        total = total + (attention(own[size]) - attention(wanted[size])).square().sum(1).mean()
    return total / max(1, len(sizes))


def attention(features: Tensor) -> Tensor:
    """The map of attention of a feature map [N, C, H, W], as [N, H * W]."""
    return functional.normalize(features.float().square().sum(1).flatten(1))
