"""Slice channels out of a network: plan, validate, apply."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from amc_latency.graph import NetworkGraph, with_tensors

_SIZES = {
    (nn.Conv2d, "producer"): ("out_channels",),
    (nn.Conv2d, "consumer"): ("in_channels",),
    (nn.Conv2d, "depthwise"): ("in_channels", "out_channels", "groups"),
    (nn.Linear, "producer"): ("out_features",),
    (nn.Linear, "consumer"): ("in_features",),
    (nn.BatchNorm2d, "batch_norm"): ("num_features",),
}


def cut(model: nn.Module, graph: NetworkGraph, keep: Sequence[Tensor]) -> nn.Module:
    """A new network that has only the channels `keep[g]` of each coupled group; `model` is left as it is.

    `keep[g]` is an int64 tensor of ascending channel indices. Nothing is masked and no tensor is shared:
    weights, biases and batch-norm statistics are slices with storage of their own. Raises ValueError where
    `keep` doesn't fit.
    """
    check_keep(graph, keep)
    slices = _plan(graph, keep)
    small = with_tensors(model, lambda name, tensor: _sliced(tensor, slices.get(name)))
    for group, kept in zip(graph.groups, keep, strict=True):
        for member in group.members:
            module = small.get_submodule(member.module)
            for (kind, role), sizes in _SIZES.items():
                if role == member.role and isinstance(module, kind):
                    for size in sizes:
                        setattr(module, size, len(kept) * member.repeat)
    return small


def check_keep(graph: NetworkGraph, keep: Sequence[Tensor]) -> None:
    """Raises ValueError naming the group whose indices are not ascending, in range and at least one."""
    if len(keep) != len(graph.groups):
        raise ValueError(f"{len(keep)} sets of channels for a network of {len(graph.groups)} coupled groups")
    for group, kept in zip(graph.groups, keep, strict=True):
        if kept.dtype != torch.int64 or kept.dim() != 1 or len(kept) == 0:
            raise ValueError(f"{group.name}: the channels to keep must be a list of at least one int64 index")
        if kept[0] < 0 or kept[-1] >= group.channels or not bool((kept[1:] > kept[:-1]).all()):
            raise ValueError(f"{group.name}: the channels to keep must ascend within 0..{group.channels - 1}")


def value_indices(kept: Tensor, repeat: int) -> Tensor:
    """The positions of the `kept` channels' values where each channel has `repeat` neighbouring ones."""
    return kept if repeat == 1 else (kept[:, None] * repeat + torch.arange(repeat)).flatten()


def _plan(graph: NetworkGraph, keep: Sequence[Tensor]) -> dict[str, dict[int, Tensor]]:
    """For each tensor's name the indices to keep, by dimension."""
    slices: dict[str, dict[int, Tensor]] = {}
    for group, kept in zip(graph.groups, keep, strict=True):
        if len(kept) == group.channels:
            continue
        for member in group.members:
            if member.role == "consumer":
                slices.setdefault(f"{member.module}.weight", {})[1] = value_indices(kept, member.repeat)
            else:
                for tensor in ("weight", "bias", "running_mean", "running_var"):
                    slices.setdefault(f"{member.module}.{tensor}", {})[0] = kept
    return slices


def _sliced(tensor: Tensor, indices: dict[int, Tensor] | None) -> Tensor:
    if not indices:
        return tensor.clone()
    layout = torch.channels_last if _is_channels_last(tensor) else torch.contiguous_format
    for dim, kept in sorted(indices.items()):
        tensor = tensor.index_select(dim, kept.to(tensor.device))
    return tensor.contiguous(memory_format=layout)


def _is_channels_last(tensor: Tensor) -> bool:
    return tensor.dim() == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)
