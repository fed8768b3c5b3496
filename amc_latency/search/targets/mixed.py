"""What a policy decides where layers have precisions of their own: these alone, or widths and precisions at once."""

from __future__ import annotations

from collections.abc import Sequence

from amc_latency.lut.prediction.predict import Predictor
from amc_latency.lut.shapes.architecture import Choices
from amc_latency.measuring.profiling import Grid
from amc_latency.models.load import Network
from amc_latency.quantize.architecture import mixed_architecture
from amc_latency.search.config import SearchConfig
from amc_latency.search.costs.costs import LatencyCosts, predicted_costs
from amc_latency.search.judge.mixed import MixedJudge
from amc_latency.search.targets.pruning import ChannelPruning


class PruningAndQuantization(ChannelPruning):
    """Channels are cut out, and layers run in the precision that suits each."""

    judge = MixedJudge

    def precisions(self, config: SearchConfig) -> tuple[str, ...]:
        """Those that layers may have."""
        return config.precision

    def latency(
        self, config: SearchConfig, network: Network, choices: Choices, predictor: Predictor, uncut_ms: float
    ) -> LatencyCosts:
        """The table's: layers, and the boundaries between precisions."""
        mixed = mixed_architecture(network.graph, config.precision)
        return predicted_costs(mixed, mixed.choices(choices), predictor)

    def names(self, config: SearchConfig, network: Network) -> Sequence[str | None]:
        """The coupled groups; nothing bounds precisions."""
        mixed = mixed_architecture(network.graph, config.precision)
        found: list[str | None] = [None] * len(mixed.full)
        for variable, group in zip(mixed.by_group, network.graph.groups, strict=True):
            found[variable] = f"group {group.name}"
        return found


class Quantization(PruningAndQuantization):
    """Layers run in the precision that suits each; the network stays as wide as it is."""

    def check(self, config: SearchConfig, network: Network) -> None:
        """Nothing: a network without anything to cut has precisions all the same."""

    def grid(self, config: SearchConfig) -> Grid:
        """The full width alone."""
        return Grid(1.0)
