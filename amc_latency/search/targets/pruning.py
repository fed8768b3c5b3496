"""What a policy counts: channels of coupled groups, which are cut out, or weights of layers, the others being zero."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name

from amc_latency.errors import UserError
from amc_latency.lut.prediction.predict import Predictor
from amc_latency.lut.shapes.architecture import Choices
from amc_latency.lut.shapes.precisions import FLOAT32
from amc_latency.measuring.profiling import Grid
from amc_latency.models.load import Network
from amc_latency.search.config import SearchConfig
from amc_latency.search.costs.costs import LatencyCosts, predicted_costs
from amc_latency.search.judge.judge import Judge
from amc_latency.search.judge.task_judge import TaskJudge, TaskScores, TaskWeightJudge
from amc_latency.search.judge.weights import WeightGrid, WeightJudge, weight_layers, weight_network
from amc_latency.search.records import PRUNINGS, STAGES
from amc_latency.search.targets.zipped import zipped_bytes


class Pruning(ABC):
    """What the steps of a search ask of a kind of pruning."""

    unit: str
    """what a policy counts"""
    judge: type[Judge]
    """of labelled images"""
    task_judge: type[TaskScores]
    """of a task of the user's own"""
    options: tuple[str, ...]
    """fields of `SearchConfig` that set which counts there are"""
    shows_in_shapes: bool
    """whether networks of different policies differ in their layers' shapes, and so in milliseconds"""

    @abstractmethod
    def check(self, config: SearchConfig, network: Network) -> None:
        """Raise `UserError` where a network has nothing to prune."""

    @abstractmethod
    def view(self, network: Network) -> Network:
        """The network as it is searched: its groups are what policies count."""

    @abstractmethod
    def grid(self, config: SearchConfig) -> Grid:
        """Which counts a search may choose from."""

    @abstractmethod
    def profiled(self, config: SearchConfig) -> Grid:
        """Which counts its table must hold."""

    @abstractmethod
    def latency(
        self, config: SearchConfig, network: Network, choices: Choices, predictor: Predictor, uncut_ms: float
    ) -> LatencyCosts:
        """Predicted milliseconds of every policy; the uncut network's are `uncut_ms`. Raises `MissingShapeError`."""

    @abstractmethod
    def names(self, config: SearchConfig, network: Network) -> Sequence[str | None]:
        """What each count is of, in words; None for what `options` don't bound."""

    @abstractmethod
    def packed(self, files: Sequence[str]) -> list[int]:
        """Bytes of files once they are packed, where that is what gets smaller."""


class ChannelPruning(Pruning):
    """Channels of coupled groups are cut out: the network gets faster."""

    unit, judge, task_judge, shows_in_shapes = "channels", Judge, TaskJudge, True
    options = ("min_keep", "max_keep", "step")

    def check(self, config: SearchConfig, network: Network) -> None:
        """Raise `UserError` where nothing can be cut."""
        if not network.graph.groups:
            whole = "; ".join(f"{left.module}: {left.reason}" for left in network.graph.left_whole[:3])
            raise UserError(
                f"{config.model} has nothing to cut ({whole}); see `amc-latency inspect`, or `prune='weights'`"
            )

    def view(self, network: Network) -> Network:
        """As it is."""
        return network

    def grid(self, config: SearchConfig) -> Grid:
        """Multiples of the step within the bounds."""
        return Grid(config.min_keep, config.step, config.max_keep)

    def profiled(self, config: SearchConfig) -> Grid:
        """All of them: what later rounds can reach, the first one can too."""
        return replace(self.grid(config), precisions=self.precisions(config))

    def precisions(self, config: SearchConfig) -> tuple[str, ...]:
        """Those of layers in its table."""
        return (FLOAT32,)

    def latency(
        self, config: SearchConfig, network: Network, choices: Choices, predictor: Predictor, uncut_ms: float
    ) -> LatencyCosts:
        """The table's."""
        return predicted_costs(network.graph.architecture, choices, predictor)

    def names(self, config: SearchConfig, network: Network) -> Sequence[str | None]:
        """The coupled groups."""
        return [f"group {group.name}" for group in network.graph.groups]

    def packed(self, files: Sequence[str]) -> list[int]:
        """None: the files themselves get smaller."""
        return []


class WeightPruning(Pruning):
    """Weights become zero: the network gets smaller once it is packed, and no faster."""

    unit, judge, task_judge, shows_in_shapes = "weights", WeightJudge, TaskWeightJudge, False
    options = ("min_keep", "max_keep")

    def check(self, config: SearchConfig, network: Network) -> None:
        """Nothing here: a layer without weights to prune is found by `view`."""

    def view(self, network: Network) -> Network:
        """Its layers with weights are the groups."""
        return weight_network(network)

    def grid(self, config: SearchConfig) -> Grid:
        """Shares of a layer's weights within the bounds."""
        return WeightGrid(config.min_keep, config.step, config.max_keep)

    def profiled(self, config: SearchConfig) -> Grid:
        """The uncut network alone: zeros are no other layer shapes."""
        return Grid(1.0)

    def latency(
        self, config: SearchConfig, network: Network, choices: Choices, predictor: Predictor, uncut_ms: float
    ) -> LatencyCosts:
        """The uncut network's, whatever is zero: a runtime multiplies zeros as well."""
        return LatencyCosts(network.graph.architecture, choices, lambda shape: 0.0, uncut_ms)

    def names(self, config: SearchConfig, network: Network) -> Sequence[str | None]:
        """The layers with weights."""
        return [f"layer {name}" for name in weight_layers(network.model, network.graph)]

    def packed(self, files: Sequence[str]) -> list[int]:
        """By zlib."""
        return [zipped_bytes(Path(file).read_bytes()) for file in files]


def pruning_of(config: SearchConfig) -> Pruning:
    """The one that `config` names."""
    made: Pruning = resolve_name(STAGES[config.stages].strategy or PRUNINGS[config.prune].strategy)()
    return made
