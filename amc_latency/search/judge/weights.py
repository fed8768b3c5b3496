"""Fine-grained pruning (AMC, arXiv 1802.03494, section 4): the smallest weights of each layer become zero.

No channel goes, so a runtime that multiplies zeros like all else gains nothing; what gets smaller is the number of
weights, and the file once it is packed. Here a group is a layer, and a count is how many of its weights stay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn

from amc_latency.errors import UserError
from amc_latency.graph.registry import is_weighted
from amc_latency.graph.trace import NetworkGraph, with_tensors
from amc_latency.lut.shapes.architecture import Architecture, ByGroup, Choices, Layer
from amc_latency.lut.shapes.shape import LayerShape
from amc_latency.measuring.profiling import Grid
from amc_latency.models.load import Network
from amc_latency.models.spec import ModelSpec
from amc_latency.prune.keep import check_used, layer_kinds
from amc_latency.search.costs.costs import Counts, PolicyCosts
from amc_latency.search.judge.damage import Damage, balanced
from amc_latency.search.judge.judge import Judge

STEPS = 20
"""Choices of a layer: what stays is a multiple of a 20th of its weights."""
FINER = 0.5**0.5
"""Below a 20th each choice is this share of the next: a few more, however low the bound."""


@dataclass(frozen=True, slots=True)
class SparseShape(LayerShape):
    """A layer shape of which some weights are zero; `text` is the dense one's, which takes a runtime as long."""

    group: int = 0
    kept: int = 0
    """weights that are not zero"""

    @property
    def params(self) -> int:
        """Weights that are not zero, and biases."""
        return self.kept + self.c_out


@dataclass(frozen=True)
class WeightArchitecture(Architecture):
    """A network whose groups are its layers with weights: `group_channels` counts those that are not zero.

    A layer's `out_group` is its place among the groups, None where it has no weights.
    """

    def shape_of(self, layer: Layer, counts: ByGroup) -> LayerShape:
        """The layer's shape when group `g` keeps `counts[g]` weights."""
        if not isinstance(layer.out_group, int):
            return layer.shape
        dense = {field.name: getattr(layer.shape, field.name) for field in fields(layer.shape)}
        return SparseShape(**dense, group=layer.out_group, kept=counts[layer.out_group])

    def scope(self, layer: Layer) -> tuple[int, ...]:
        """The layer's own group, if it has one."""
        return (layer.out_group,) if isinstance(layer.out_group, int) else ()

    def makes(self, layer: Layer, group: int) -> bool:
        """Whether it is the group's layer."""
        return layer.out_group == group


@dataclass(frozen=True)
class WeightGrid(Grid):
    """Which counts of weights a search may choose from; `step` is for channels.

    Twentieths of a layer's weights, to the nearest whole one. Bounds that are set hold to the weight, and are choices
    themselves; below a twentieth the steps get finer, each `FINER` of the next.
    """

    @property
    def unset(self) -> float | None:
        """None: the grid itself is the bound."""
        return None

    def choices(self, network: Network) -> Choices:
        """The counts that each layer may keep, ascending, of what `weight_network` gave.

        Raises `UserError` where the bounds leave a layer none.
        """
        names = weight_layers(network.model, network.graph)
        kinds = [layer_kinds(network.model, [name]) for name in names]
        check_used(self.min_keep, self.max_keep, set().union(*kinds), "layer with weights")
        counts = network.graph.architecture.group_channels
        return tuple(map(self._counts, names, counts, kinds))

    def _counts(self, name: str, count: int, kinds: Collection[str]) -> Counts:
        low, high = self.share_bounds(kinds)
        least = 1 if low is None else max(1, math.ceil(low * count - 1e-9))
        most = math.floor(high * count + 1e-9)
        if least > most:
            raise UserError(
                f"layer {name} has {count} weights, and no whole number of them is from {low or 0:g} to {high:g} of "
                "that: set other bounds by `min_keep` and `max_keep`"
            )
        shares = [i / STEPS for i in range(1, STEPS)]
        while low is not None and shares[0] * FINER > low:
            shares.insert(0, shares[0] * FINER)
        found = {max(1, round(share * count)) for share in shares} | {most} | (set() if low is None else {least})
        return tuple(sorted(each for each in found if least <= each <= most))


def weight_network(network: Network) -> Network:
    """The network as its weights are searched. Raises `UserError` for a layer that is all zeros."""
    names = weight_layers(network.model, network.graph)
    counts = tuple(int(_weight(network.model, name).count_nonzero()) for name in names)
    for name, count in zip(names, counts, strict=True):
        if not count:
            raise UserError(f"layer {name} has no weight that is not zero: there is nothing to prune in it")
    groups = {name: group for group, name in enumerate(names)}
    graph = network.graph
    layers = tuple(
        replace(layer, in_group=None, out_group=groups.get(name))
        for layer, name in zip(graph.architecture.layers, graph.layer_names, strict=True)
    )
    return replace(network, graph=replace(graph, architecture=WeightArchitecture(layers, counts), groups=()))


def weight_layers(model: nn.Module, graph: NetworkGraph) -> list[str]:
    """The convolutions and linear layers, in order of execution, each once."""
    modules = dict(model.named_modules())
    names = dict.fromkeys(graph.layer_names)
    return [name for name in names if is_weighted(modules.get(name))]


def masked(model: nn.Module, names: Sequence[str], counts: Sequence[int]) -> nn.Module:
    """A copy of `model` in which layer `names[g]` keeps its `counts[g]` largest weights by magnitude; the rest is 0."""
    kept = {f"{name}.weight": count for name, count in zip(names, counts, strict=True)}

    def tensor_of(name: str, tensor: Tensor) -> Tensor:
        zeros = tensor.numel() - kept.get(name, tensor.numel())
        if not zeros:
            return tensor.clone()
        smallest = tensor.abs().flatten().topk(zeros, largest=False, sorted=False).indices
        is_zero = torch.zeros(tensor.numel(), dtype=torch.bool, device=tensor.device)
        is_zero[smallest] = True
        # Not a product: a negative weight would become -0.0, which packs worse.
        return tensor.masked_fill(is_zero.view(tensor.shape), 0.0)

    return with_tensors(model, tensor_of)


@contextmanager
def zeros_held(network: nn.Module) -> Iterator[None]:
    """Within it, training leaves weights of convolutions and linear layers at 0 that are 0 now.

    Their gradients are 0; momentum and weight decay then have nothing to add to them.
    """
    with ExitStack() as hooks:
        for module in network.modules():
            if is_weighted(module):
                weight = module.get_parameter("weight")
                is_zero = weight.detach() == 0
                hook = weight.register_hook(lambda gradient, dead=is_zero: gradient.masked_fill(dead, 0.0))
                hooks.callback(hook.remove)
        yield


class WeightJudge(Judge):
    """Scores of policies that count weights: the others are zero, batch norm is recalibrated, nothing is refitted.

    `network` is what `weight_network` gave.
    """

    def spec(self, counts: Counts) -> ModelSpec:
        """That of the network as it was: no channel has gone."""
        return self.base.spec

    def training(self, network: nn.Module) -> AbstractContextManager[None]:
        """Zeros stay zeros."""
        return zeros_held(network)

    def refit_damages(self, costs: PolicyCosts) -> list[Damage]:
        """The share of a layer's squared weights that goes, in place of what least squares would miss."""
        lost = []
        for layer, counts, full in zip(self._layers, costs.choices, costs.full, strict=True):
            squares = _weight(self.base.model, layer).double().square().flatten().sort(descending=True).values
            share = 1 - squares.cumsum(0) / squares.sum()
            lost.append(share[torch.tensor(counts) - 1].clamp(min=0).cpu().numpy())
            if counts[-1] == full:
                lost[-1][-1] = 0.0
        return [balanced(lost), lost]

    def pruner(self) -> Callable[[Counts], nn.Module]:
        """What sets the smallest weights to zero."""
        return lambda counts: masked(self.model, self._layers, counts)

    @property
    def _layers(self) -> list[str]:
        return weight_layers(self.base.model, self.base.graph)


def _weight(model: nn.Module, name: str) -> Tensor:
    return model.get_parameter(f"{name}.weight").detach()
