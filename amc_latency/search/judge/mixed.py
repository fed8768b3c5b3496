"""What a policy of widths and precisions is worth: the network that is cut to it, rounded as a file would be.

A policy here is a tuple of values of the variables of a `MixedArchitecture`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor, fx, nn

from amc_latency.accelerator import on
from amc_latency.data import Split
from amc_latency.data.decoded import Decoded, inputs_of
from amc_latency.lut.shapes.mixed import MixedArchitecture
from amc_latency.models.spec import ModelSpec
from amc_latency.prune.refit import recalibrate_batch_norm
from amc_latency.quantize.architecture import mixed_architecture
from amc_latency.quantize.error import OutputError
from amc_latency.quantize.fake import Simulator
from amc_latency.quantize.ranges import Ranges
from amc_latency.search.costs.costs import Counts, PolicyCosts
from amc_latency.search.judge.damage import Damage, refit_error
from amc_latency.search.judge.evaluator import NetworkEvaluator, RankedCut
from amc_latency.search.judge.judge import Judge
from amc_latency.search.judge.mixed_damage import joined, measured_precisions, measured_widths
from amc_latency.search.judge.score import Score

RANGED = 100
"""Images that ranges are taken from: more made no difference to the bundled network's file."""
COMPARED = 64
"""Images whose outputs say what a width or a precision costs alone."""


def compared(size: tuple[int, int]) -> int:
    """How many of these, of images of this height and width: fewer where each takes longer and has more to compare."""
    return min(COMPARED, max(16, COMPARED * 96 * 96 // (size[0] * size[1])))


class RoundedCut:
    """Makes a policy's network: cut, its batch norms recalibrated, its tensors ranged anew, and rounded.

    `cut` makes the network of a policy's counts; `calibration` are images [N, C, H, W].
    """

    def __init__(
        self, mixed: MixedArchitecture, simulator: Simulator, cut: Callable[[Counts], nn.Module], calibration: Tensor
    ) -> None:
        self.mixed, self.simulator = mixed, simulator

        # Around an incumbent most policies differ in their precisions alone.
        @lru_cache(maxsize=2)
        def ready(counts: Counts) -> tuple[nn.Module, Ranges]:
            network = cut(counts)
            recalibrate_batch_norm(network, calibration)
            return network, simulator.ranges(network, calibration[:RANGED])

        self._ready = ready

    def plain(self, counts: Counts) -> nn.Module:
        """The network of a policy's counts before it is rounded, in eval mode."""
        return self._ready(counts)[0]

    def __call__(self, values: Counts) -> fx.GraphModule:
        """The network of a policy, in eval mode."""
        network, ranges = self._ready(self.mixed.counts(values))
        return self.simulator.network(network, self.mixed.precisions(values), ranges)


class PlainForward:
    """Runs networks in eval mode by their own modules, batch by batch, on images [M, C, H, W]; see `CheckedForward`."""

    def __init__(self, images: Tensor | Decoded, device: torch.device, batch: int) -> None:
        self._images, self._device, self._batch = images, device, batch

    def logits(self, network: nn.Module, counts: Counts) -> Iterator[Tensor]:
        """The logits of each batch in turn."""
        for images in self._images.split(self._batch):
            with torch.inference_mode():
                made: Tensor = network(images)
            yield made

    def frozen(self, network: nn.Module, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits and labels of each batch of `split`."""
        size = (self._images.shape[-2], self._images.shape[-1])
        for images, labels in split.parts(size, self._batch):
            with torch.inference_mode():
                made: Tensor = network.eval()(images.to(self._device))
            yield made, labels.to(self._device)


class MixedJudge(Judge):
    """Scores of policies of widths and precisions, by networks that are cut and rounded, not fine-tuned.

    `network` gives the cut network before it is rounded, which can be fine-tuned and exported in its precisions.
    """

    @cached_property
    def mixed(self) -> MixedArchitecture:
        """The variables of policies."""
        return mixed_architecture(self.base.graph, self.config.precisions)

    def precisions(self, counts: Counts) -> tuple[str, ...]:
        """As `Judge.precisions`."""
        return self.mixed.precisions(counts)

    def channels(self, counts: Counts) -> Counts:
        """As `Judge.channels`."""
        return self.mixed.counts(counts)

    def policy(self, counts: Counts) -> dict[str, Any]:
        """As `Judge.policy`: the channels of each coupled group, and the precision of each layer by its name."""
        precisions = dict(zip(self.base.graph.layer_names, self.precisions(counts), strict=True))
        return {**super().policy(counts), "channels": list(self.channels(counts)), "precisions": precisions}

    def shipped(self, network: nn.Module, counts: Counts) -> nn.Module:
        """As `Judge.shipped`: rounded, by ranges of its own."""
        there = on(network, self.device).eval()
        ranges = self._simulator.ranges(there, self.range_images)
        return self._simulator.network(there, self.precisions(counts), ranges)

    def pruner(self) -> RoundedCut:
        """What makes a policy's network, rounded."""
        return self._rounded

    def network(self, counts: Counts) -> nn.Module:
        """The network cut to a policy's widths, refitted and recalibrated; the uncut one as it is, if nothing goes."""
        channels = self.mixed.counts(counts)
        if channels == self.base.graph.architecture.group_channels:
            return copy.deepcopy(self.base.model)
        return copy.deepcopy(self._rounded.plain(channels)).cpu()

    def evaluated_finally(self, counts: Counts) -> Score:
        """As `Judge.evaluated_finally`."""
        return self._ask(lambda evaluator: evaluator.judged(self._rounded(counts), self.data.held_back))

    def _original_final(self) -> Score:
        return self._judged(self.original.model)

    def spec(self, counts: Counts) -> ModelSpec:
        """What the checkpoint of a policy's network says of it."""
        return super().spec(self.mixed.counts(counts))

    def refit_damages(self, costs: PolicyCosts) -> list[Damage]:
        """How far each group's counts and each layer's precisions move the outputs."""
        if costs.choices not in self._measured:
            self._measured[costs.choices] = self._measure(costs)
        return [self._measured[costs.choices]]

    def _measure(self, costs: PolicyCosts) -> Damage:
        choices = [costs.choices[variable] for variable in self.mixed.by_group]
        images, graph = self.calibration[: compared(self.image_size)], self.base.graph
        error = OutputError(self._simulator, self.model, images)
        refit = refit_error(self.model, graph, self.statistics, choices)
        widths = measured_widths(error, self._rounded.plain, choices, refit, graph.architecture.group_channels)
        ranges = self._simulator.ranges(self.model, self.range_images)
        return joined(self.mixed, widths, measured_precisions(error, self.mixed, ranges))

    @cached_property
    def _measured(self) -> dict[tuple[Counts, ...], Damage]:
        """By choices: it takes minutes, and every attempt and baseline of a search asks."""
        return {}

    @cached_property
    def _simulator(self) -> Simulator:
        return Simulator(self.model, self.base.graph)

    @cached_property
    def _rounded(self) -> RoundedCut:
        cut = RankedCut(self.model, self.base.graph, self.statistics)
        recalibrating = self.calibration[: self.config.recalibrating(self.image_size)]
        return RoundedCut(self.mixed, self._simulator, cut, recalibrating)

    @cached_property
    def evaluator(self) -> NetworkEvaluator:
        """Made when the first policy must be judged."""
        held_back = self.data.held_back.take(self.config.images).kept()
        images = inputs_of(held_back, self.image_size, self.device)
        return NetworkEvaluator(
            self.model,
            self.base.graph,
            self.pruner(),
            self.calibration,
            images,
            held_back.labels.to(self.device),
            self._batch,
            self.say,
            PlainForward(images, self.device, self._batch),
        )
