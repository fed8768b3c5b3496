"""Judges policies of widths and precisions by labelled images: what is cut is rounded as its int8 file will be."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

from torch import nn

from amc_latency.accelerator import on
from amc_latency.data.decoded import inputs_of
from amc_latency.lut.shapes.mixed import MixedArchitecture
from amc_latency.models.spec import ModelSpec
from amc_latency.quantize.architecture import mixed_architecture
from amc_latency.quantize.error import OutputError
from amc_latency.quantize.fake import Simulator
from amc_latency.search.costs.costs import Counts, PolicyCosts
from amc_latency.search.judge.damage import Damage, refit_error
from amc_latency.search.judge.judge import Judge
from amc_latency.search.judge.mixed import MixedEvaluator
from amc_latency.search.judge.mixed_damage import joined, measured_precisions, measured_widths
from amc_latency.search.judge.score import Score, Tested
from amc_latency.training.outcome import Outcome, outcome


class MixedJudge(Judge):
    """Scores of policies whose numbers are values of the variables of `mixed`: counts of channels, and precisions.

    What is fine-tuned is float32; what is scored and tested rounds weights and tensors as TFLite does, over the ranges
    that they have on `range_images`.
    """

    @cached_property
    def mixed(self) -> MixedArchitecture:
        """The variables."""
        return mixed_architecture(self.base.graph, self.config.precisions)

    def evaluated(self, counts: Counts, best: float) -> Score:
        """By the episodes' images; none is given up early."""
        return self._rounded(counts)

    def evaluated_finally(self, counts: Counts) -> Score:
        """By all held-back images."""
        return _score(outcome(self._rounded.network(counts), self.data.held_back, self.image_size))

    def _original_final(self) -> Score:
        return _score(outcome(on(self.original.model, self.device), self.data.held_back, self.image_size))

    def network(self, counts: Counts) -> nn.Module:
        """The network cut to a policy's channels, refitted and recalibrated, in float32."""
        return super().network(self.mixed.counts(counts))

    def precisions(self, counts: Counts) -> tuple[str, ...]:
        """The precision of each layer."""
        return self.mixed.precisions(counts)

    def shipped(self, network: nn.Module, counts: Counts) -> nn.Module:
        """The network in the precisions of a policy."""
        there = on(network, self.device).eval()
        ranges = self._simulator.ranges(there, self.range_images)
        return self._simulator.network(there, self.precisions(counts), ranges)

    def tested(self, network: nn.Module) -> Tested:
        """By PyTorch's own modules."""
        found = outcome(on(network, self.device), self.data.test, self.image_size)
        return Tested(found.accuracy_pct, len(found), found.top5_pct, found)

    def spec(self, counts: Counts) -> ModelSpec:
        """That of the cut network, which is float32."""
        return replace(self.base.spec, channels=self.mixed.counts(counts))

    def refit_damages(self, costs: PolicyCosts) -> list[Damage]:
        """How far each channel count and each precision alone moves the outputs."""
        mixed, graph, images = self.mixed, self.base.graph, self.range_images
        choices = [costs.choices[variable] for variable in mixed.by_group]
        error = OutputError(self._simulator, self.model, images)
        widths = measured_widths(
            error,
            self._cut,
            choices,
            refit_error(self.model, graph, self.statistics, choices),
            graph.architecture.group_channels,
        )
        ranges = self._simulator.ranges(self.model, images)
        return [joined(mixed, widths, measured_precisions(error, mixed, ranges))]

    @cached_property
    def _simulator(self) -> Simulator:
        return Simulator(self.model, self.base.graph)

    def _cut(self, counts: Counts) -> nn.Module:
        return on(super().network(counts), self.device).eval()

    @cached_property
    def _rounded(self) -> MixedEvaluator:
        held_back = self.data.held_back.take(self.config.images).kept()
        return MixedEvaluator(
            self.mixed,
            self._simulator,
            self._cut,
            self.range_images,
            inputs_of(held_back, self.image_size, self.device),
            held_back.labels.to(self.device),
            self._batch,
        )


def _score(found: Outcome) -> Score:
    top5 = None if found.top5 is None else int(found.top5.sum()) / len(found)
    return Score(int(found.right.sum()) / len(found), found.loss, len(found), top5)
