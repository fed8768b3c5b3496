"""Coupled groups: which modules share channels, so that a channel leaves all of them or none."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from amc_latency.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch_pruning import DependencyGraph
    from torch_pruning.dependency import Group, Node

Role = Literal["producer", "batch_norm", "depthwise", "consumer"]


@dataclass(frozen=True)
class Member:
    """A module that has a group's channels."""

    module: str
    """its name in the network"""
    role: Role
    """producer: its outputs are cut; consumer: its inputs; batch_norm and depthwise: both"""
    repeat: int = 1
    """neighbouring values that make up one channel: 49 in a linear layer's inputs after flattening 7x7"""
    because: str = ""
    """the member that it shares channels with, and the operations between them"""


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that must be cut together: channel `i` is channel `i` of every member.

    In a residual stage `conv1 -> bn1 -> relu -> (+) -> relu -> next`, with `block.conv2 -> block.bn2` on the
    sum's other side, removing channel 3 of the sum removes output 3 of `conv1` and of `block.conv2` (two
    producers), entry 3 of both batch norms and input 3 of `next` (a consumer). Printing a group shows this.
    """

    name: str
    """the first producer's module name"""
    channels: int
    members: tuple[Member, ...]

    @property
    def producers(self) -> tuple[str, ...]:
        """Modules whose outputs are cut, in order of execution."""
        return self._names("producer")

    @property
    def consumers(self) -> tuple[str, ...]:
        """Convolutions and linear layers whose inputs are cut, in order of execution."""
        return self._names("consumer")

    @property
    def depthwise(self) -> tuple[str, ...]:
        """Depthwise convolutions, cut whole."""
        return self._names("depthwise")

    @property
    def batch_norms(self) -> tuple[str, ...]:
        """Batch norms of producers and depthwise convolutions."""
        return self._names("batch_norm")

    def __str__(self) -> str:
        width = max(len(member.module) for member in self.members)
        lines = [f"{self.name}: {self.channels} channels"]
        for member in self.members:
            repeat = f" ({member.repeat} values a channel)" if member.repeat > 1 else ""
            lines.append(f"  {member.module:{width}}  {member.role:10}  {member.because}{repeat}".rstrip())
        return "\n".join(lines)

    def _names(self, role: Role) -> tuple[str, ...]:
        return tuple(member.module for member in self.members if member.role == role)


def find_groups(
    model: nn.Module, example: Tensor, modules: Sequence[str], fixed: Collection[str]
) -> tuple[ChannelGroup, ...]:
    """The prunable coupled groups, in order of their first producer.

    `modules` names the network's convolutions, batch norms and linear layers in order of execution. Every
    parameter must require gradients and `model` be in eval mode, because Torch-Pruning follows autograd (meta
    tensors will do). A group that reaches one of `fixed` (producers of the network's outputs), or that nothing
    consumes, is left out.
    Raises UserError where a channel's values don't lie side by side.
    """
    import torch
    import torch_pruning

    with torch.enable_grad():
        graph = torch_pruning.DependencyGraph().build_dependency(model, example, verbose=False)
    groups, seen = [], set(fixed)
    for name in modules:
        channels = _prunable_outputs(model.get_submodule(name))
        if channels is None or name in seen:
            continue
        members = _members(graph, model, name, channels, modules)
        producers = [member.module for member in members if member.role == "producer"]
        prunable = any(member.role == "consumer" for member in members) and not seen.intersection(producers)
        seen.update(producers)
        if prunable:
            groups.append(ChannelGroup(name, channels, members))
    return tuple(groups)


def _prunable_outputs(module: nn.Module) -> int | None:
    """The output channels of a producer; None for a module that only passes channels on."""
    from torch import nn

    if isinstance(module, nn.Linear):
        return module.out_features
    if isinstance(module, nn.Conv2d) and module.groups == 1:
        return module.out_channels
    return None


def _members(
    graph: DependencyGraph, model: nn.Module, root: str, channels: int, modules: Sequence[str]
) -> tuple[Member, ...]:
    """Whatever loses a channel when output channels of the module `root` are cut, in order of execution."""
    module = model.get_submodule(root)
    prune = graph.get_pruner_of_module(module).prune_out_channels
    group: Group = graph.get_pruning_group(module, prune, list(range(channels)))
    sources: dict[Node, Node] = {}
    for item in group:
        sources.setdefault(item.dep.target, item.dep.source)
    names = {model.get_submodule(name): name for name in modules}
    members = []
    for item in group:
        name = names.get(item.dep.target.module)
        if name is None:  # an operation without channels of its own
            continue
        role = _role(item.dep.target.module, graph.is_out_channel_pruning_fn(item.dep.handler))
        repeat = _repeat(name, channels, item.idxs, item.root_idxs)
        because = "" if item.dep.source is item.dep.target else _because(item.dep.source, sources, names)
        members.append(Member(name, role, repeat, because))
    return tuple(sorted(members, key=lambda member: modules.index(member.module)))


def _role(module: nn.Module, cuts_outputs: bool) -> Role:
    from torch import nn

    if isinstance(module, nn.BatchNorm2d):
        return "batch_norm"
    if isinstance(module, nn.Conv2d) and module.groups > 1:
        return "depthwise"
    return "producer" if cuts_outputs else "consumer"


def _repeat(name: str, channels: int, indices: Sequence[int], channel_of: Sequence[int]) -> int:
    """How many neighbouring values make a channel of the module `name`, given the channel of each index."""
    repeat = len(indices) // channels
    if sorted(zip(indices, channel_of, strict=True)) != [(i, i // repeat) for i in range(channels * repeat)]:
        raise UserError(
            f"{name}: its channels are not in the order of those it is coupled with, which can't be cut; "
            "flatten, but don't shuffle or join channels before it"
        )
    return repeat


def _because(source: Node, sources: dict[Node, Node], names: Mapping[nn.Module, str]) -> str:
    """The nearest named module from `source` back towards the group's root, and the operations in between."""
    passed: list[str] = []
    while source.module not in names:
        operation = source.grad_fn.name().removesuffix("0").removesuffix("Backward") if source.grad_fn else "?"
        passed.insert(0, operation)
        source = sources[source]
    return f"with {names[source.module]}" + (f" via {', '.join(passed)}" if passed else "")
