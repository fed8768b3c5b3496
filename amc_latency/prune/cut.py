"""Slice channels out of a network: plan, validate, apply."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from amc_latency.graph.coupling import Member
from amc_latency.graph.registry import channels_of
from amc_latency.graph.trace import NetworkGraph, with_tensors

Places = tuple[str, int]
"""A module's name, and 0 for its outputs (or what it hands on), 1 for its inputs."""


def cut(model: nn.Module, graph: NetworkGraph, keep: Sequence[Tensor]) -> nn.Module:
    """A new network that has only the channels `keep[g]` of each coupled group; `model` is left as it is.

    `keep[g]` is an int64 tensor of ascending channel indices. Nothing is masked and no tensor is shared:
    weights, biases and batch-norm statistics are slices with storage of their own. Raises ValueError where
    `keep` doesn't fit.
    """
    check_keep(graph, keep)
    places = kept_places(model, graph, keep)
    slices: dict[str, dict[int, Tensor]] = {}
    for (name, side), kept in places.items():
        slices.setdefault(f"{name}.weight", {})[channels_of(model.get_submodule(name)).weight_dims[side]] = kept
        for tensor in () if side else ("bias", "running_mean", "running_var"):
            slices.setdefault(f"{name}.{tensor}", {})[0] = kept
    small = with_tensors(model, lambda name, tensor: _sliced(tensor, slices.get(name)))
    for (name, side), kept in places.items():
        module = small.get_submodule(name)
        channels_of(module).resize(module, _count(module, side), len(kept))
    return small


def kept_places(model: nn.Module, graph: NetworkGraph, keep: Sequence[Tensor]) -> dict[Places, Tensor]:
    """Which outputs and inputs of each module stay, ascending; modules that lose nothing are left out."""
    masks: dict[Places, Tensor] = {}
    for group, kept in zip(graph.groups, keep, strict=True):
        if len(kept) == group.channels:
            continue
        for member in group.members:
            place = (member.module, int(member.role == "consumer"))
            if place not in masks:
                module = model.get_submodule(member.module)
                masks[place] = torch.ones(getattr(module, _count(module, place[1])), dtype=torch.bool)
            mask = masks[place][member.offset :][: group.channels * member.repeat]
            mask[:] = False
            mask[value_indices(kept, member.repeat)] = True
    return {place: mask.nonzero().flatten() for place, mask in masks.items()}


def _count(module: nn.Module, side: int) -> str:
    """The attribute that counts a module's outputs (0) or inputs (1)."""
    channels = channels_of(module)
    return (channels.inputs or channels.outputs) if side else channels.outputs


def check_keep(graph: NetworkGraph, keep: Sequence[Tensor]) -> None:
    """Raises ValueError naming the group whose indices are not ascending, in range and as many as it has to keep."""
    if len(keep) != len(graph.groups):
        raise ValueError(f"{len(keep)} sets of channels for a network of {len(graph.groups)} coupled groups")
    for group, kept in zip(graph.groups, keep, strict=True):
        if kept.dtype != torch.int64 or kept.dim() != 1 or len(kept) == 0:
            raise ValueError(f"{group.name}: the channels to keep must be a list of at least one int64 index")
        if kept[0] < 0 or kept[-1] >= group.channels or not bool((kept[1:] > kept[:-1]).all()):
            raise ValueError(f"{group.name}: the channels to keep must ascend within 0..{group.channels - 1}")
        if len(kept) < group.least:
            raise ValueError(f"{group.name}: {group.least} channels at least must be kept, for {group.depthwise[0]}")


def value_indices(kept: Tensor, repeat: int) -> Tensor:
    """The positions of the `kept` channels' values where each channel has `repeat` neighbouring ones."""
    return kept if repeat == 1 else (kept[:, None] * repeat + torch.arange(repeat)).flatten()


def ranked_values(member: Member, order: Tensor, values: int, size: int) -> Tensor:
    """The positions of a layer's `size` values a row: those of the member's channels last, ranked by `order`.

    `values` are those of one channel: `member.repeat` times the kernel's.
    """
    first = member.offset * values // member.repeat
    ranked = first + value_indices(order, values)
    is_other = torch.ones(size, dtype=torch.bool)
    is_other[ranked] = False
    return torch.cat([is_other.nonzero().flatten(), ranked])


def _sliced(tensor: Tensor, indices: dict[int, Tensor] | None) -> Tensor:
    if not indices:
        return tensor.clone()
    layout = torch.channels_last if _is_channels_last(tensor) else torch.contiguous_format
    for dim, kept in sorted(indices.items()):
        tensor = tensor.index_select(dim, kept.to(tensor.device))
    return tensor.contiguous(memory_format=layout)


def _is_channels_last(tensor: Tensor) -> bool:
    return tensor.dim() == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)
