"""What a policy of widths and precisions is worth: the network that is cut to it, rounded as a file would be."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor, fx, nn

from amc_latency.data.decoded import Decoded
from amc_latency.data.logits import correct, loss_of
from amc_latency.lut.shapes.mixed import MixedArchitecture
from amc_latency.quantize.fake import Simulator
from amc_latency.quantize.ranges import Ranges
from amc_latency.search.costs.costs import Counts
from amc_latency.search.judge.score import Score


class MixedEvaluator:
    """Accuracy and loss of policies, which are values of the variables of `mixed`, on labelled images [M, C, H, W].

    `prune` makes the network of a policy's counts, ready to be run; its ranges are taken anew, on `calibration` images.
    """

    def __init__(
        self,
        mixed: MixedArchitecture,
        simulator: Simulator,
        prune: Callable[[Counts], nn.Module],
        calibration: Tensor,
        images: Tensor | Decoded,
        labels: Tensor,
        batch: int = 100,
    ) -> None:
        self.mixed, self.simulator = mixed, simulator
        self.images, self.labels, self.batch = images, labels, batch

        # Around an incumbent most policies differ in their precisions alone.
        @lru_cache(maxsize=2)
        def pruned(counts: Counts) -> tuple[nn.Module, Ranges]:
            network = prune(counts).eval()
            return network, simulator.ranges(network, calibration, batch)

        self._pruned = pruned

    def network(self, values: Counts) -> fx.GraphModule:
        """The network of a policy, in eval mode."""
        network, ranges = self._pruned(self.mixed.counts(values))
        return self.simulator.network(network, self.mixed.precisions(values), ranges)

    def __call__(self, values: Counts) -> Score:
        """The score of one policy."""
        network, right, loss = self.network(values), 0, 0.0
        with torch.inference_mode():
            for images, labels in zip(self.images.split(self.batch), self.labels.split(self.batch), strict=True):
                logits = network(images)
                right += correct(logits, labels)
                loss += float(loss_of(logits, labels, "sum"))
        return Score(right / len(self.labels), loss / len(self.labels), len(self.labels))
