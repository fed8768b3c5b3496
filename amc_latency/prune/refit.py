"""Repair a cut network without training: least-squares refit, batch-norm statistics.

AMC (env/channel_pruning_env.py) regresses a cut layer's original outputs on its remaining original inputs. The
outputs are W X, so the second moments of the inputs are all that this takes: they are collected once, and an
episode solves one small linear system a layer. Unlike AMC's, it covers k x k convolutions too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from amc_latency.accelerator import float64_device
from amc_latency.graph.coupling import Member
from amc_latency.graph.operations import BATCH_NORMS
from amc_latency.graph.registry import channels_of, outputs_first
from amc_latency.graph.trace import NetworkGraph
from amc_latency.prune.cut import check_keep, kept_places, ranked_values, value_indices

COLLECTED_BATCH = 64
POINTS = 64
"""Positions of an image that a layer's input is looked at."""
RIDGE = 1e-6
RIDGE_OF_FEW_ROWS = 0.3
"""For each time that a layer has as many features again as rows; 0.1 to 1 do about as well, 1e-6 far worse."""


@dataclass(frozen=True)
class InputStatistics:
    """Second moments of what a layer's weights multiply: inputs, or k x k input patches in the weights' order."""

    mean: Tensor
    """float64 [features]"""
    covariance: Tensor
    """float64 [features, features], around the mean, divided by `rows`"""
    rows: int
    """input vectors seen"""


Statistics = Mapping[str, InputStatistics]
"""By module name, for each consumer of a coupled group."""


def ridge_for(inputs: InputStatistics) -> float:
    """The ridge that refit takes unless set: `RIDGE`, and more where a layer has more features than rows.

    So it is where a classifier behind a global pool has one row an image. Without more ridge the least squares
    would hit the calibration images exactly, and miss others by more than no refit does.
    """
    return max(RIDGE, RIDGE_OF_FEW_ROWS * (len(inputs.mean) / inputs.rows - 1))


def collect(
    model: nn.Module,
    graph: NetworkGraph,
    images: Tensor,
    points: int = POINTS,
    batch_size: int = COLLECTED_BATCH,
    max_features: int = 5000,
    seed: int = 0,
) -> Statistics:
    """The input statistics of every consumer of a coupled group, from float images [N, C, H, W] where `model` is.

    They are summed there, or on the CPU if there is no float64.
    Of each image a layer's input vectors at `points` random output positions are used (all, where it has no
    more): 500 images give 32,000 rows, as many as AMC regresses on and several times the features of the widest
    layer, at a cost that doesn't grow with resolution. More points made no difference on the bundled network.
    Layers with over `max_features` features (VGG's 25,088 after flattening would take 5 GB) are left out, and
    `refit` leaves them as they were cut, as it does dilated convolutions.
    """
    generator, exact = torch.Generator().manual_seed(seed), float64_device(images.device)
    sums: dict[str, tuple[Tensor, Tensor]] = {}
    rows: dict[str, int] = {}

    def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle | None:
        features = outputs_first(module)[0].numel()
        if features > max_features or not channels_of(module).refits(module):
            return None
        sums[name] = (
            torch.zeros(features, dtype=torch.float64, device=exact),
            torch.zeros(features, features, dtype=torch.float64, device=exact),
        )
        rows[name] = 0

        def add(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            x = input_rows(module, args[0], points, generator).to(exact).double()
            sums[name][0].add_(x.sum(0))
            sums[name][1].addmm_(x.T, x)
            rows[name] += len(x)

        return module.register_forward_pre_hook(add)

    names = dict.fromkeys(name for group in graph.groups for name in group.consumers)
    hooks = [watch(name, model.get_submodule(name)) for name in names]
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for batch in images.split(batch_size):
                model(batch)
    finally:
        model.train(was_training)
        for hook in hooks:
            if hook is not None:
                hook.remove()
    statistics = {}
    for name, (total, square) in sums.items():
        mean = total / rows[name]
        statistics[name] = InputStatistics(mean, square.div_(rows[name]).sub_(torch.outer(mean, mean)), rows[name])
    return statistics


def input_rows(module: nn.Module, x: Tensor, points: int, generator: torch.Generator) -> Tensor:
    """The vectors that a linear layer's or a convolution's weights multiply, [rows, features].

    Of each image at most `points` output positions, the same ones for the whole batch.
    """
    rows = channels_of(module).rows
    assert rows is not None
    return rows(module, x, points, generator)


def refit(
    small: nn.Module,
    model: nn.Module,
    graph: NetworkGraph,
    statistics: Statistics,
    keep: Sequence[Tensor],
    ridge: float | None = None,
) -> None:
    """`RankedRefit` for a single cut: `small` is `cut(model, graph, keep)`, and its weights are set."""
    check_keep(graph, keep)
    orders = [_kept_first(kept, group.channels) for group, kept in zip(graph.groups, keep, strict=True)]
    RankedRefit(model, graph, statistics, orders, ridge).apply(small, keep)


class RankedRefit:
    """Sets weights of networks cut from `model` so that their layers reproduce `model`'s outputs.

    With S the kept inputs, R the removed ones and G the covariance, `W_S + W_R G_RS (G_SS + ridge)^-1` is the
    least-squares solution, and the mean that is lost goes into the layer's bias or its batch norm's running
    mean. A layer with neither is fitted on uncentred moments. `ridge`, a share of G's mean diagonal, pulls
    towards the weights that are there; `ridge_for` tells it unless it is given. Layers that lost no input, and
    depthwise ones, stay as they are.

    `orders` ranks each group's channels, and every cut keeps the first of them. So one Cholesky factor L of G
    in that order does for all cuts, its leading block being the factor of G_SS: `G_RS G_SS^-1 = L_RS L_SS^-1`.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: NetworkGraph,
        statistics: Statistics,
        orders: Sequence[Tensor],
        ridge: float | None = None,
    ) -> None:
        self.model = model
        self.graph = graph
        self.orders = list(orders)
        reads: dict[str, list[tuple[int, Member]]] = {}
        for index, group in enumerate(graph.groups):
            for member in group.members:
                if member.role == "consumer" and member.module in statistics:
                    reads.setdefault(member.module, []).append((index, member))
        self._ranked: dict[str, tuple[int, _RankedLayer]] = {}
        self._joined: dict[str, _Layer] = {}
        for name, members in reads.items():
            own_ridge = ridge_for(statistics[name]) if ridge is None else ridge
            if len(members) > 1:
                self._joined[name] = _Layer(model, graph, name, statistics[name], own_ridge)
            else:
                ((index, member),) = members
                layer = _RankedLayer(model, graph, member, statistics[name], self.orders[index], own_ridge)
                self._ranked[name] = index, layer

    def apply(self, small: nn.Module, keep: Sequence[Tensor]) -> None:
        """Set the weights of `small`, which is `cut(model, graph, keep)`.

        Raises ValueError where `keep[g]`, ascending, is not the first channels of `orders[g]`.
        """
        check_keep(self.graph, keep)
        for group, order, kept in zip(self.graph.groups, self.orders, keep, strict=True):
            if not torch.equal(order[: len(kept)].sort().values, kept):
                raise ValueError(f"{group.name}: the channels to keep are not the first {len(kept)} of its ranking")
        places = kept_places(self.model, self.graph, keep)
        with torch.no_grad():
            for name, (index, ranked) in self._ranked.items():
                if (name, 1) in places:
                    ranked.apply(small, len(keep[index]), places.get((name, 0)))
            for name, joined in self._joined.items():
                if (name, 1) in places:
                    joined.apply(small, places[name, 1], places.get((name, 0)))


class _Layer:
    """What refit needs of a layer whose inputs come from several groups: each cut is solved anew."""

    def __init__(self, model: nn.Module, graph: NetworkGraph, name: str, inputs: InputStatistics, ridge: float) -> None:
        self.name, self.norm, self.ridge = name, graph.batch_norms.get(name), ridge
        layer = model.get_submodule(name)
        weight = outputs_first(layer).detach().to(inputs.mean.device).double()
        self.values = weight[0, 0].numel()
        self.mean = inputs.mean
        self.weight = weight.flatten(1)
        self.moments = inputs.covariance
        if self.norm is None and layer.bias is None:
            self.moments = self.moments + torch.outer(self.mean, self.mean)

    def apply(self, small: nn.Module, inputs: Tensor, outputs: Tensor | None) -> None:
        """Refit the layer in `small`, which kept these of its inputs and `outputs` (None: all)."""
        kept = value_indices(inputs, self.values)
        weight = self.weight if outputs is None else self.weight[outputs]
        factor = cholesky(self.moments[kept][:, kept], self.ridge)
        lost = weight.clone()
        lost[:, kept] = 0
        solution = weight[:, kept] + torch.cholesky_solve((lost @ self.moments[:, kept]).T, factor).T
        _set(small, self.name, self.norm, solution, weight @ self.mean - solution @ self.mean[kept])


class _RankedLayer:
    """What refit needs of a layer that one group's channels are cut from, its inputs ranked."""

    def __init__(
        self,
        model: nn.Module,
        graph: NetworkGraph,
        member: Member,
        inputs: InputStatistics,
        order: Tensor,
        ridge: float,
    ) -> None:
        self.name, self.norm = member.module, graph.batch_norms.get(member.module)
        layer = model.get_submodule(self.name)
        weight = outputs_first(layer).detach().to(inputs.mean.device).double()
        self.values = member.repeat * weight[0, 0].numel()
        self.ranked = ranked = ranked_values(member, order, self.values, weight[0].numel())
        self.always = len(ranked) - self.values * len(order)
        self.mean = inputs.mean[ranked]
        self.weight = weight.flatten(1)[:, ranked]
        self.output_mean = self.weight @ self.mean
        moments = inputs.covariance[ranked][:, ranked]
        if self.norm is None and layer.bias is None:
            moments.addr_(self.mean, self.mean)
        self.factor = cholesky(moments, ridge)

    def apply(self, small: nn.Module, kept: int, outputs: Tensor | None) -> None:
        """Refit the layer in `small`, which kept so many of the group's channels, and these `outputs` (None: all)."""
        n = self.always + kept * self.values
        weight, output_mean = self.weight, self.output_mean
        if outputs is not None:
            weight, output_mean = weight[outputs], output_mean[outputs]
        solution = weight[:, :n] + torch.linalg.solve_triangular(
            self.factor[:n, :n], weight[:, n:] @ self.factor[n:, :n], upper=False, left=False
        )
        lost_mean = output_mean - solution @ self.mean[:n]
        _set(small, self.name, self.norm, solution[:, self.ranked[:n].argsort()], lost_mean)


def _set(small: nn.Module, name: str, norm_name: str | None, solution: Tensor, lost_mean: Tensor) -> None:
    """Put a solution [outputs, values] into a layer, and what it misses on average into its bias or batch norm."""
    layer: Any = small.get_submodule(name)
    weight = outputs_first(layer)
    weight.copy_(solution.reshape(weight.shape))
    norm = None if norm_name is None else small.get_submodule(norm_name)
    if layer.bias is not None:
        layer.bias.add_(lost_mean.to(layer.bias))
    elif isinstance(norm, BATCH_NORMS) and norm.running_mean is not None:
        norm.running_mean.sub_(lost_mean.to(norm.running_mean))


def _kept_first(kept: Tensor, channels: int) -> Tensor:
    is_removed = torch.ones(channels, dtype=torch.bool)
    is_removed[kept] = False
    return torch.cat([kept, is_removed.nonzero().flatten()])


def cholesky(moments: Tensor, ridge: float) -> Tensor:
    """Lower factor of `moments + ridge * mean diagonal`; the ridge grows until there is one."""
    scale = float(moments.diagonal().mean()) or 1.0
    while True:
        ridged = moments.clone()
        ridged.diagonal().add_(ridge * scale)
        factor, failed = torch.linalg.cholesky_ex(ridged)
        if not int(failed):
            return factor
        ridge = max(ridge * 100, 1e-12)


def recalibrate_batch_norm(model: nn.Module, images: Tensor, batch_size: int = 128) -> None:
    """Re-estimate every batch norm's running mean and variance from `images`, in place; ends in eval mode.

    The statistics are averages over batches, all with the same weight, so a last, smaller batch is left out.
    """
    norms = [module for module in model.modules() if isinstance(module, BATCH_NORMS)]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        with torch.no_grad():
            for batch in images.split(batch_size):
                if len(batch) == min(batch_size, len(images)):
                    model(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.eval()
