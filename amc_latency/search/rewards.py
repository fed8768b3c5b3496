"""What a policy is worth before fine-tuning: the accuracy of the network that is really cut to it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from amc_latency.graph import NetworkGraph
from amc_latency.prune.cut import cut
from amc_latency.prune.rank import consumer_l1, keep_indices
from amc_latency.prune.refit import Statistics, recalibrate_batch_norm, refit
from amc_latency.search.costs import Counts


class NetworkEvaluator:
    """Accuracy (0..1) of `model` cut to a policy, on held-back images; AMC's R_err is this less 1.

    Channels are chosen by the L1 norm of what reads them (AMC), weights refitted by least squares, batch norm
    recalibrated, and the sliced network is run: without both repairs accuracy is near chance and says nothing.

    `statistics` come from `refit.collect`; `calibration` are the images [N, C, H, W] for batch norm, `images` and
    `labels` [M] those that are scored. A policy seen before is answered from memory.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: NetworkGraph,
        statistics: Statistics,
        calibration: Tensor,
        images: Tensor,
        labels: Tensor,
        batch: int = 100,
    ) -> None:
        self.model = model.eval()
        self.graph = graph
        self.statistics = statistics
        self.calibration = calibration.contiguous(memory_format=torch.channels_last)
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.labels = labels
        self.batch = batch
        self._importance = consumer_l1(model, graph)
        self._known: dict[Counts, float] = {}

    def __call__(self, counts: Counts) -> float:
        """The accuracy of one policy. Raises `ValueError` for counts that don't fit the network."""
        if counts not in self._known:
            self._known[counts] = self.accuracy(self.network(counts))
        return self._known[counts]

    def network(self, counts: Counts) -> nn.Module:
        """The network cut to `counts`, refitted and recalibrated: what is scored, and fine-tuned in the end."""
        keep = [keep_indices(importance, count) for importance, count in zip(self._importance, counts, strict=True)]
        small = cut(self.model, self.graph, keep).to(memory_format=torch.channels_last)
        refit(small, self.model, self.graph, self.statistics, keep)
        recalibrate_batch_norm(small, self.calibration)
        return small

    def accuracy(self, network: nn.Module) -> float:
        """Share of the scored images that `network` gets right."""
        network.eval()
        with torch.inference_mode():
            correct = sum(
                int((network(images).argmax(1) == labels).sum())
                for images, labels in zip(self.images.split(self.batch), self.labels.split(self.batch), strict=True)
            )
        return correct / len(self.labels)
