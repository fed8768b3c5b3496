"""Which channels to keep: AMC's ranking by the weights that read them (env/channel_pruning_env.py)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from amc_latency.graph.registry import outputs_first
from amc_latency.graph.trace import NetworkGraph


def consumer_l1(model: nn.Module, graph: NetworkGraph) -> list[Tensor]:
    """The importance of each group's channels: the sum of |weight| over everything that reads the channel.

    One float tensor [channels] a group, in the order of `graph.groups`.
    """
    importances = []
    for group in graph.groups:
        importance = torch.zeros(group.channels)
        for member in group.members:
            if member.role == "consumer":
                # On the CPU, whose sums are the same everywhere: another rounding could be another order.
                weight = outputs_first(model.get_submodule(member.module)).detach().cpu()
                by_input = weight.abs().transpose(0, 1).flatten(1).sum(1)
                own = by_input[member.offset :][: group.channels * member.repeat]
                importance += own.view(group.channels, member.repeat).sum(1)
        importances.append(importance)
    return importances


def keep_indices(importance: Tensor, count: int) -> Tensor:
    """The `count` most important channels, in ascending order; of equal ones the lower index stays.

    Raises ValueError for a count outside 1..channels.
    """
    if not 1 <= count <= len(importance):
        raise ValueError(f"can't keep {count} of {len(importance)} channels")
    return keep_order(importance)[:count].sort().values


def keep_order(importance: Tensor) -> Tensor:
    """All channels, the most important first; of equal ones the lower index."""
    return torch.argsort(importance, descending=True, stable=True)
