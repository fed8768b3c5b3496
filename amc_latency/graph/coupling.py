"""Coupled groups: which modules share channels, so that a channel leaves all of them or none.

Every channel that a layer makes gets a label, and labels travel with the channels: a depthwise convolution hands them
on, a concatenation puts them side by side, flattening repeats them. Where two sets of channels must go together (a sum,
squeeze-and-excitation, the halves of a grouped convolution), their labels are tied. What is tied is one channel of a
coupled group. Where channels are dealt out, sliced, or given out as the network's logits, their labels are kept: such
a group is left whole, and says why. Tests compare the groups with Torch-Pruning's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Role = Literal["producer", "batch_norm", "prelu", "depthwise", "consumer"]
Labels = np.ndarray
"""int64 [values]: the label of each of a tensor's channels, or of each feature after flattening."""
MOST_JOINED = 2
"""Coupled groups that may set one layer's input together: what each pair of counts costs can still be told exactly."""


@dataclass(frozen=True)
class Member:
    """A module that has a group's channels."""

    module: str
    """its name in the network"""
    role: Role
    """producer: its outputs are cut; consumer: its inputs; batch_norm, prelu and depthwise (or grouped): both"""
    repeat: int = 1
    """neighbouring values that make up one channel: 49 in a linear layer's inputs after flattening 7x7, and the width
    of a group in a grouped convolution and around it"""
    because: str = ""
    """why it moves with the others"""
    offset: int = 0
    """where the channels begin among the module's own: others lie before them after a concatenation"""

    def __str__(self) -> str:
        repeat = f" ({self.repeat} values a channel)" if self.repeat > 1 else ""
        place = f" (from {self.offset} on)" if self.offset else ""
        return f"{self.role:10} {self.module}  {self.because}{repeat}{place}".rstrip()


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
    def least(self) -> int:
        """The fewest channels that it can keep: a grouped or depthwise convolution of one group would be an ordinary
        convolution, whose outputs can be cut on their own."""
        return min(2 if self.depthwise else 1, self.channels)

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
        """Depthwise and grouped convolutions, cut whole."""
        return self._names("depthwise")

    @property
    def batch_norms(self) -> tuple[str, ...]:
        """Batch norms, cut whole."""
        return self._names("batch_norm")

    def __str__(self) -> str:
        return "\n".join([f"{self.name}: {self.channels} channels", *(f"  {member}" for member in self.members)])

    def _names(self, role: Role) -> tuple[str, ...]:
        return tuple(dict.fromkeys(member.module for member in self.members if member.role == role))


@dataclass(frozen=True)
class LeftWhole:
    """A layer whose outputs are not cut."""

    module: str
    channels: int
    reason: str


@dataclass(frozen=True, eq=False)
class _Use:
    """A module and the labels of the values that it makes, reads or hands on."""

    module: str
    role: Role
    labels: Labels


class ChannelLabels:
    """The labels of a network's channels, while it is walked through."""

    def __init__(self) -> None:
        self._count = 0
        self._uses: list[_Use] = []
        self._ties: list[tuple[Labels, Labels, str]] = []
        self._kept: list[tuple[Labels, str]] = []
        self._joined: list[tuple[Labels, str]] = []

    def new(self, channels: int) -> Labels:
        """Labels of channels that nothing else has."""
        self._count += channels
        return np.arange(self._count - channels, self._count)

    def make(self, module: str, channels: int) -> Labels:
        """Labels of what a module makes; the same ones where it is called again."""
        known = next((use.labels for use in self._uses if (use.module, use.role) == (module, "producer")), None)
        if known is None:
            known = self.new(channels)
            self._uses.append(_Use(module, "producer", known))
        return known

    def use(self, module: str, role: Role, labels: Labels) -> None:
        """A module reads these, or hands them on. Where it is called again, both times' channels are tied."""
        known = next((use.labels for use in self._uses if (use.module, use.role) == (module, role)), None)
        if known is None:
            self._uses.append(_Use(module, role, labels))
        else:
            self.tie(known, labels, f"both are read by {module}, which is called twice")

    def tie(self, left: Labels, right: Labels, because: str) -> None:
        """Channel by channel, what must be cut together."""
        self._ties.append((left, right, because))

    def keep(self, labels: Labels, reason: str) -> None:
        """None of these is cut."""
        self._kept.append((labels, reason))

    def join(self, labels: Labels, where: str) -> None:
        """Channels of several makers lie side by side there, and a layer's size depends on all of them."""
        self._joined.append((labels, where))

    def groups(self, order: Sequence[str]) -> Grouping:
        """The coupled groups, in order of their first producer; `order` names all modules as they are executed."""
        classes = self._classes()
        kept: dict[int, str] = {}
        for labels, reason in self._kept:
            kept |= dict.fromkeys(classes[labels].tolist(), reason)
        while True:
            grouping = self._group(classes, kept, order)
            crowded = self._crowded(grouping)
            if not crowded:
                return grouping
            kept |= crowded

    def _classes(self) -> np.ndarray:
        """For each label the channel that it belongs to, when all ties are drawn."""
        none = [np.empty(0, int)]
        left = np.concatenate([tie[0] for tie in self._ties] or none)
        right = np.concatenate([tie[1] for tie in self._ties] or none)
        return _components(self._count, left, right)

    def _group(self, classes: np.ndarray, kept: dict[int, str], order: Sequence[str]) -> Grouping:
        groups: list[ChannelGroup] = []
        left_whole: list[LeftWhole] = []
        group_of = np.full(classes.max(initial=-1) + 1, -1)
        for uses in self._by_makers(classes):
            makers = [use for use in uses if use.role == "producer"]
            channels = list(dict.fromkeys(classes[makers[0].labels].tolist()))
            reason = next((kept[channel] for use in makers for channel in classes[use.labels] if channel in kept), None)
            members: list[Member] = []
            if reason is None:
                members, reason = self._members(classes, channels, uses)
            if reason is None and not any(member.role == "consumer" for member in members):
                reason = "nothing that could be cut reads them"
            if reason is not None:
                left_whole += [LeftWhole(use.module, len(use.labels), reason) for use in makers]
                continue
            group_of[channels] = len(groups)
            members.sort(key=lambda member: order.index(member.module))
            groups.append(ChannelGroup(makers[0].module, len(channels), tuple(members)))
        return Grouping(tuple(groups), tuple(left_whole), classes, group_of)

    def _by_makers(self, classes: np.ndarray) -> list[list[_Use]]:
        """The uses of each set of channels whose makers share some, in order of the first maker."""
        size = classes.max(initial=-1) + 1
        makers = [use for use in self._uses if use.role == "producer"]
        of_makers = [np.full(len(use.labels), size + i) for i, use in enumerate(makers)]
        none = [np.empty(0, int)]
        made = np.concatenate([classes[use.labels] for use in makers] or none)
        components = _components(size + len(makers), made, np.concatenate(of_makers or none))
        uses: dict[int, list[_Use]] = {int(components[classes[use.labels[0]]]): [] for use in makers}
        for use in self._uses:
            for component in set(components[classes[use.labels]].tolist()):
                if component in uses:
                    uses[component].append(use)
        return list(uses.values())

    def _members(self, classes: np.ndarray, channels: list[int], uses: list[_Use]) -> tuple[list[Member], str | None]:
        """The group's members, or why it cannot be cut: each must have all its channels, in their order."""
        members: list[Member] = []
        first = next(use for use in uses if use.role == "producer")
        for use in uses:
            blocks = _blocks(classes[use.labels], channels)
            if blocks is None or (use.role == "producer" and len(blocks) != 1):
                return [], f"{use.module} has them in another order, or only some of them"
            because = "" if use is first else self._because(use, classes)
            members += [Member(use.module, use.role, repeat, because, offset) for offset, repeat in blocks]
        return members, None

    def _because(self, use: _Use, classes: np.ndarray) -> str:
        if use.role == "consumer":
            return "reads them"
        if use.role != "producer":
            return "hands them on"
        own = set(classes[use.labels].tolist())
        return next((why for left, _, why in self._ties if own.intersection(classes[left].tolist())), "")

    def _crowded(self, grouping: Grouping) -> dict[int, str]:
        """Channels to keep, so that no layer's size depends on more than `MOST_JOINED` groups: the widest one stays."""
        crowded: dict[int, str] = {}
        for labels, where in self._joined:
            groups = grouping.group_of[grouping.classes[labels]]
            present = sorted({int(group) for group in groups if group >= 0})
            if len(present) > MOST_JOINED:
                widest = max(present, key=lambda group: (int((groups == group).sum()), -group))
                reason = f"{where} joins {len(present)} groups, of which only the widest is cut"
                for group in present:
                    if group != widest:
                        crowded |= dict.fromkeys(np.flatnonzero(grouping.group_of == group).tolist(), reason)
        return crowded


@dataclass(frozen=True)
class Grouping:
    """Coupled groups, what is left whole, and which group a label belongs to."""

    groups: tuple[ChannelGroup, ...]
    left_whole: tuple[LeftWhole, ...]
    classes: np.ndarray
    """the channel of each label"""
    group_of: np.ndarray
    """the group of each such channel; -1 for those that are never cut"""

    def parts(self, labels: Labels) -> int | tuple[tuple[int, int], ...] | None:
        """What sets the size of a tensor with these labels, as `amc_latency.lut.shapes.architecture.Channels`."""
        groups = self.group_of[self.classes[labels]]
        present = list(dict.fromkeys(groups[groups >= 0].tolist()))
        if len(present) == 1 and (groups >= 0).all():
            return int(present[0])
        parts = tuple((group, int((groups == group).sum()) // self.groups[group].channels) for group in present)
        return parts or None


def _components(size: int, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Which of `size` nodes hang together, when `left[i]` is linked with `right[i]`: a number for each node."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    return connected_components(coo_array((np.ones(len(left)), (left, right)), (size, size)), directed=False)[1]


def _blocks(have: np.ndarray, channels: list[int]) -> list[tuple[int, int]] | None:
    """Where in `have` all of `channels` lie in order: (offset, repeat) of each such block; None if one is broken."""
    wanted = np.isin(have, channels)
    places = np.flatnonzero(wanted)
    blocks = []
    while len(places):
        start = int(places[0])
        same = have[start:] == channels[0]
        repeat = len(same) if same.all() else int(np.argmin(same))
        block = np.repeat(channels, repeat)
        if not repeat or not np.array_equal(have[start : start + len(block)], block):
            return None
        blocks.append((start, repeat))
        places = places[len(block) :]
    return blocks
