"""Proxies of the damage that cutting a coupled group does, as dynamic programming adds them up.

Each gives one float64 array a group, a number for each of its choices, 0 where nothing is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from amc_latency.data.logits import loss_of
from amc_latency.graph.coupling import Member
from amc_latency.graph.registry import outputs_first
from amc_latency.graph.trace import NetworkGraph
from amc_latency.prune.cut import ranked_values
from amc_latency.prune.rank import consumer_l1, keep_order
from amc_latency.prune.refit import Statistics, cholesky, ridge_for
from amc_latency.search.costs.costs import Counts, PolicyCosts
from amc_latency.search.judge.score import Score

Evaluate = Callable[[Counts], Score]
Damage = list[np.ndarray]


def refit_error(
    model: nn.Module, graph: NetworkGraph, statistics: Statistics, choices: Sequence[Sequence[int]]
) -> Damage:
    """The share of its readers' output variance that a group's cut takes away, after least-squares refit.

    The channels go in the order in which `rank.py` lets them go. The readers' shares are averaged, each the same:
    a sum over a residual stage would weigh a group by how many layers happen to read it, and a mean by variance
    would let the one with the largest outputs, which batch norm scales back anyway, speak for all.
    A reader without statistics is treated as if its inputs were independent and equally strong.
    """
    damage = []
    for group, importance, counts in zip(graph.groups, consumer_l1(model, graph), choices, strict=True):
        order = keep_order(importance)
        lost = np.zeros(group.channels)
        for member in group.members:
            if member.role != "consumer":
                continue
            weight = outputs_first(model.get_submodule(member.module)).detach().cpu().double()
            values = member.repeat * weight[0, 0].numel()
            columns = ranked_values(member, order, values, weight[0].numel())
            weight = weight.flatten(1)[:, columns]
            if member.module in statistics:
                moments = _moments(model, graph, member.module, statistics)[columns][:, columns]
                weight = weight.to(moments.device) @ cholesky(moments, ridge_for(statistics[member.module]))
            # With G = L L', the best fit on the first m columns misses sum_{j >= m} |(W L)_j|^2.
            by_value = weight.square().sum(0)
            by_channel = by_value[-group.channels * values :].view(group.channels, values).sum(1).cpu().numpy()
            lost += by_channel / (float(by_value.sum()) or 1.0) / len(group.consumers)
        damage.append(_beyond(lost, counts))
    return damage


def balanced(damage: Damage) -> Damage:
    """Each group's damage over the square root of its largest: the default for what `refit_error` says.

    Near the classifier a few directions hold nearly all of the variance, and what the logits need is not
    in them alone: there an error share of 1 % costs as much loss as one of 10 % further up. On the bundled
    network dynamic programming's policies lose less loss with this at 0.5, 0.35 and 0.25 of the milliseconds.
    """
    return [values / np.sqrt(values.max()) if values.max() > 0 else values.copy() for values in damage]


def taylor(
    model: nn.Module,
    graph: NetworkGraph,
    images: Tensor,
    labels: Tensor,
    choices: Sequence[Sequence[int]],
    batch_size: int = 64,
) -> Damage:
    """The summed first-order Taylor importance of the channels that go (Molchanov et al., arXiv 1906.10771).

    A channel's importance is the mean over `images` of (d loss / d gate)^2, where the gate, 1, multiplies the
    channel wherever it is read. The channels go in the order in which `rank.py` lets them go. In nats squared; it
    knows nothing of refit.
    """
    model.eval()
    gates: dict[int, Tensor] = {}
    importance = [np.zeros(group.channels) for group in graph.groups]
    hooks = []
    for index, group in enumerate(graph.groups):
        for member in group.members:
            if member.role == "consumer":
                module = model.get_submodule(member.module)
                hooks.append(module.register_forward_pre_hook(_gated(gates, index, member)))
    try:
        for batch, wanted in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            for index, group in enumerate(graph.groups):
                gates[index] = torch.ones(len(batch), group.channels, device=batch.device, requires_grad=True)
            # Summed, so that each image's gates have the gradient of its own loss.
            loss = loss_of(model(batch), wanted, "sum")
            for index, gradient in enumerate(torch.autograd.grad(loss, [gates[i] for i in range(len(importance))])):
                importance[index] += gradient.double().square().sum(0).cpu().numpy()
    finally:
        for hook in hooks:
            hook.remove()
    return [
        _beyond(values[keep_order(rank).numpy()] / len(images), counts)
        for values, rank, counts in zip(importance, consumer_l1(model, graph), choices, strict=True)
    ]


def measured(
    evaluate: Evaluate,
    costs: PolicyCosts,
    points: int = 5,
    around: Counts | None = None,
    reach: float = 1.0,
) -> tuple[Damage, int]:
    """The loss that each group's counts add when it alone leaves `around` (the widest policy unless set).

    Evaluated at about `points` counts, spread evenly over the choices that are at most the share `reach` of all
    away, and read in between by monotone interpolation: noise that makes a narrower group look better is first
    evened out (isotonic regression), then PCHIP. `evaluate` must ask about the same images each time. Counts out
    of reach are `inf`, which forbids them; those narrower than `around` are 0 or more, wider ones 0 or less.
    Returns the evaluations made beside the damage.
    """
    from scipy.interpolate import PchipInterpolator
    from scipy.optimize import isotonic_regression

    around = costs.widest if around is None else around
    base = evaluate(around).loss
    evaluations = 1
    damage = []
    for group, here in enumerate(costs.indices(around)):
        choices = costs.choices[group]
        first, last = reachable(here, len(choices), reach)
        spread = np.linspace(first, last, min(points + 1, last - first + 1)).round().astype(int)
        places = sorted({here, *map(int, spread)})
        losses = []
        for place in places:
            counts = (*around[:group], choices[place], *around[group + 1 :])
            losses.append(base if place == here else evaluate(counts).loss)
        evaluations += len(places) - 1
        values = np.full(len(choices), np.inf)
        if len(places) == 1:
            values[here] = 0.0
        else:
            falling = isotonic_regression(losses, increasing=False).x
            inside = np.arange(first, last + 1)
            keeps = np.array(choices, dtype=float)
            values[inside] = PchipInterpolator(keeps[places], falling)(keeps[inside])
            values[inside] -= values[here]
        damage.append(values)
    return damage, evaluations


def reachable(here: int, choices: int, reach: float) -> tuple[int, int]:
    """The first and the last choice that are at most the share `reach` of all `choices`, or one, away from `here`."""
    distance = max(1, round(reach * choices))
    return max(0, here - distance), min(choices - 1, here + distance)


def _beyond(by_rank: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """What is lost with each count if only that many of the first are kept; exactly 0 for all of them."""
    return np.array([by_rank[count:].sum() for count in counts])


def _moments(model: nn.Module, graph: NetworkGraph, name: str, statistics: Statistics) -> Tensor:
    """What refit fits on: the covariance, or the uncentred moments where nothing can take up a lost mean."""
    inputs = statistics[name]
    if model.get_submodule(name).bias is None and name not in graph.batch_norms:
        return inputs.covariance + torch.outer(inputs.mean, inputs.mean)
    return inputs.covariance


def _gated(
    gates: dict[int, Tensor], index: int, member: Member
) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    def hook(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (x,) = args
        gate = gates[index]
        # A linear layer after flattening reads each channel as several neighbouring values.
        own = gate.repeat_interleave(member.repeat, dim=1)
        after = x.shape[1] - member.offset - own.shape[1]
        gate = functional.pad(own, (member.offset, after), value=1.0)
        return (x * gate.view(*gate.shape, *[1] * (x.dim() - 2)),)

    return hook
