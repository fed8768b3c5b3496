"""Widths and precisions together: the exact best policy of both by dynamic programming, and what is found around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from amc_latency.lut.prediction.predict import Predictor
from amc_latency.lut.shapes.architecture import Choices
from amc_latency.lut.shapes.precisions import FLOAT32, INT8
from amc_latency.models.load import Network
from amc_latency.prune.refit import Statistics, collect, recalibrate_batch_norm
from amc_latency.quantize.architecture import mixed_architecture
from amc_latency.quantize.error import OutputError
from amc_latency.quantize.fake import Simulator
from amc_latency.search.costs.clamp import Clamp
from amc_latency.search.costs.costs import Counts, LatencyCosts, predicted_costs
from amc_latency.search.judge.damage import Damage, refit_error
from amc_latency.search.judge.evaluator import RankedCut
from amc_latency.search.judge.mixed_damage import joined, measured_precisions, measured_widths
from amc_latency.search.judge.score import Score
from amc_latency.search.solvers.dynamic import solve
from amc_latency.search.solvers.iterated import iterated


@dataclass(frozen=True)
class MixedPolicy:
    """Widths and precisions that hold the target in prediction."""

    counts: Counts
    """channels of each coupled group"""
    precisions: tuple[str, ...]
    """of each layer"""
    predicted_ms: float
    damage: float
    """summed; see `mixed_damage.py`"""
    optimal: bool
    """whether no policy within the target has less"""


def choose_mixed(
    network: Network,
    predictor: Predictor,
    images: Tensor,
    target_ms: float,
    choices: Choices,
    precisions: Sequence[str] = (INT8, FLOAT32),
) -> MixedPolicy:
    """The widths and precisions of least damage that `predictor` says meet the target; groups may keep `choices`.

    Damage is measured on `images` [N, C, H, W], as the network takes them: a few dozen suffice. Raises `UserError` for
    a target out of reach, `MissingShapeError` for a table that lacks what can be reached.
    """
    search = MixedSearch(network, predictor, choices, precisions)
    statistics = collect(network.model, network.graph, images)
    cut = RankedCut(network.model, network.graph, statistics)

    def prune(counts: Counts) -> nn.Module:
        small = cut(counts)
        recalibrate_batch_norm(small, images)
        return small

    return search.best(search.damage(images, prune, statistics), target_ms)


class MixedSearch:
    """What choosing widths and precisions of a network takes: costs and damage, worked out once for any target."""

    def __init__(
        self,
        network: Network,
        predictor: Predictor,
        choices: Choices,
        precisions: Sequence[str],
    ) -> None:
        self.network = network
        self.mixed = mixed_architecture(network.graph, precisions)
        self.costs: LatencyCosts = predicted_costs(self.mixed, self.mixed.choices(choices), predictor)
        self.choices = choices

    def damage(self, images: Tensor, prune: Callable[[Counts], nn.Module], statistics: Statistics) -> Damage:
        """Of each value of each variable, measured on calibration images [N, C, H, W]."""
        model, graph = self.network.model, self.network.graph
        simulator = Simulator(model, graph)
        error = OutputError(simulator, model, images)
        widths = refit_error(model, graph, statistics, self.choices)
        full = graph.architecture.group_channels
        return joined(
            self.mixed,
            measured_widths(error, prune, self.choices, widths, full),
            measured_precisions(error, self.mixed, simulator.ranges(model, images)),
        )

    def best(self, damage: Damage, target_ms: float) -> MixedPolicy:
        """The policy of least damage within the target. Raises `UserError` for one out of reach."""
        solution = solve(self.costs, damage, Clamp(self.costs, target_ms).guide_limit)
        return self._policy(solution.counts, solution.damage, solution.optimal)

    def around(
        self, start: MixedPolicy, evaluate: Callable[[Counts], Score], target_ms: float, rounds: int
    ) -> MixedPolicy:
        """The best that rounds of measuring around `start`, and solving anew, find; `evaluate` takes variables."""
        values = self.mixed.values(start.counts, start.precisions)
        found = iterated(self.costs, evaluate, Clamp(self.costs, target_ms).guide_limit, values, rounds)
        return self._policy(found, np.nan, False)

    def _policy(self, values: Counts, damage: float, optimal: bool) -> MixedPolicy:
        mixed = self.mixed
        return MixedPolicy(mixed.counts(values), mixed.precisions(values), self.costs.ms(values), damage, optimal)
