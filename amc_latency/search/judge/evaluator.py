"""What a policy is worth before fine-tuning: the accuracy of the network that is really cut to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from amc_latency.data import Split
from amc_latency.data.decoded import Decoded
from amc_latency.data.logits import correct, loss_of
from amc_latency.data.splits import at_once
from amc_latency.graph.trace import NetworkGraph
from amc_latency.prune.cut import cut
from amc_latency.prune.rank import consumer_l1, keep_indices, keep_order
from amc_latency.prune.refit import RankedRefit, Statistics, recalibrate_batch_norm
from amc_latency.search.costs.costs import Counts
from amc_latency.search.judge.checked import CheckedForward
from amc_latency.search.judge.score import Score
from amc_latency.training.outcome import Outcome, outcome_of

FIRST_IMAGES = 200
"""After these, to the end of their batch, a policy may be given up; later there is little left to save."""
STANDARD_ERRORS = 3.0
"""How far below the best it must then be: of those that are as good, about one in 500 is by bad luck."""


class Forward(Protocol):
    """How the networks of policies are run."""

    def logits(self, small: nn.Module, counts: Counts) -> Iterator[Tensor]:
        """The logits of each batch of the images that policies are scored by, of what was pruned to `counts`."""

    def frozen(self, network: nn.Module, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits and labels of each batch of `split`, of a network in eval mode."""


class NetworkEvaluator:
    """Accuracy (0..1) of `model` cut to a policy, on held-back images; AMC's R_err is this less 1.

    `prune` makes a policy's network of `model`, batch norm is recalibrated, and that network is run: without repairs
    accuracy is near chance and says nothing. `calibration` are the images [N, C, H, W] for batch norm, `images` and
    `labels` [M] those that are scored. `say` is told where the fast forward pass is wrong (see `checked.py`), which
    another `forward` may stand in for.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: NetworkGraph,
        prune: Callable[[Counts], nn.Module],
        calibration: Tensor,
        images: Tensor | Decoded,
        labels: Tensor,
        batch: int | None = None,
        say: Callable[[str], None] = lambda text: None,
        forward: Forward | None = None,
    ) -> None:
        self.model = model.eval()
        self.graph = graph
        self.prune = prune
        self.calibration = calibration.contiguous(memory_format=torch.channels_last)
        self.labels = labels
        self.batch = batch or at_once((images.shape[-2], images.shape[-1]))
        self._forward: Forward = forward or CheckedForward(
            self.model, graph, self.calibration, images, labels, self.batch, say
        )

    def __call__(self, counts: Counts, best: float = 0.0) -> Score:
        """The score of one policy; by the first images only, where these show that `best` is out of its reach.

        What is given up early has the accuracy and loss of the images seen. Raises `ValueError` for counts that don't
        fit the network.
        """
        small = self.prune(counts)
        right = seen = 0
        loss = 0.0
        for logits, labels in zip(self._forward.logits(small, counts), self.labels.split(self.batch), strict=True):
            right += correct(logits, labels)
            loss += float(loss_of(logits, labels, "sum"))
            is_first = seen < FIRST_IMAGES <= seen + len(labels)
            seen += len(labels)
            if is_first and is_hopeless(right / seen, seen, best, len(self.labels)):
                break
        return Score(right / seen, loss / seen, seen)

    def judged(self, network: nn.Module, split: Split) -> Score:
        """The score of `network`, cut from the model or the model itself and perhaps fine-tuned, on all of `split`."""
        found = self.outcome(network, split)
        top5 = None if found.top5 is None else int(found.top5.sum()) / len(found)
        return Score(int(found.right.sum()) / len(found), found.loss, len(found), top5)

    def outcome(self, network: nn.Module, split: Split) -> Outcome:
        """The same, image by image."""
        return outcome_of(self._forward.frozen(network, split))

    def network(self, counts: Counts) -> nn.Module:
        """The network pruned to `counts` and recalibrated: what is scored, and fine-tuned in the end."""
        small = self.prune(counts)
        recalibrate_batch_norm(small, self.calibration)
        return small


class RankedCut:
    """Cuts `model` to a policy: channels chosen by the L1 norm of what reads them (AMC), weights refitted.

    `statistics` come from `refit.collect`. Raises `ValueError` for counts that don't fit the network.
    """

    def __init__(self, model: nn.Module, graph: NetworkGraph, statistics: Statistics) -> None:
        self.model = model
        self.graph = graph
        self._importance = consumer_l1(model, graph)
        rankings = [keep_order(importance) for importance in self._importance]
        self._refit = RankedRefit(model, graph, statistics, rankings)

    def __call__(self, counts: Counts) -> nn.Module:
        """The sliced network, its batch norms not recalibrated yet."""
        keep = [keep_indices(importance, count) for importance, count in zip(self._importance, counts, strict=True)]
        small = cut(self.model, self.graph, keep)
        self._refit.apply(small, keep)
        return small


def is_hopeless(accuracy: float, seen: int, best: float, images: int) -> bool:
    """Whether a policy as good as `best` would hardly get only `accuracy` of the first `seen` of so many images right.

    By `STANDARD_ERRORS` of a share of `seen` images drawn from them without replacement.
    """
    error = math.sqrt(max(best * (1 - best), 0) / seen * (1 - seen / images))
    return accuracy < best - STANDARD_ERRORS * error and seen < images
