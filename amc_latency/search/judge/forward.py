"""Forward passes of one cut network after another: recalibrated and fused, and what policies share computed once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from amc_latency.data.decoded import Decoded
from amc_latency.graph.trace import NetworkGraph
from amc_latency.prune.fused import Folded, Step, Values, fused_steps

CALIBRATION_BATCH = 128
"""As `recalibrate_batch_norm`, whose statistics are averages over batches."""
SHARED_GROUPS = 2
"""What depends on the first two coupled groups only is kept for later policies: deeper beginnings are too many."""
MEMORY_BYTES = 512 * 2**20
"""What is kept takes no more."""


class CutForward:
    """Runs networks that were cut from `model` on the same images [M, C, H, W], batch by batch.

    Batch norm is recalibrated on `calibration` [N, C, H, W] first. The numbers are those of `recalibrate_batch_norm`
    and PyTorch's own modules but for float rounding, and do not depend on what was run before.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: NetworkGraph,
        calibration: Tensor,
        images: Tensor | Decoded,
        batch: int = 100,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self.steps = fused_steps(model, graph)
        self.input = next(iter(self.steps[0].node.graph.nodes))
        whole = len(calibration) // CALIBRATION_BATCH * CALIBRATION_BATCH or len(calibration)
        self.calibration = calibration[:whole].split(CALIBRATION_BATCH)
        self.batches: Sequence[Tensor] = images.split(batch)
        self.memory_bytes = memory_bytes
        self._ends = _shared_ends(self.steps)
        self._kept: OrderedDict[tuple[int, ...], _Beginning] = OrderedDict()

    def logits(self, small: nn.Module, counts: Sequence[int]) -> Iterator[Tensor]:
        """The logits of each batch in turn, of `small`, the network that was cut to `counts` and refitted.

        Its weights must follow from `counts`; the statistics in its batch norms are neither read nor set.
        """
        beginnings = [self._beginning(end, groups, counts) for end, groups in self._ends]
        with torch.inference_mode():
            folded = self.calibrate(small, beginnings)
        for i, images in enumerate(self.batches):
            done = next((b for b in reversed(beginnings) if i in b.batches), None)
            end, values = (done.end, dict(done.batches[i])) if done else (0, {self.input: images})
            with torch.inference_mode():
                for position, step in enumerate(self.steps[end:], end + 1):
                    step.run(small, values, folded)
                    for beginning in beginnings:
                        if beginning.end == position and beginning.folded and self._room(beginning, _bytes(values)):
                            beginning.batches[i] = dict(values)
            yield values[self.steps[-1].result]

    def frozen(self, network: nn.Module, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """The logits of each batch [N, C, H, W] in turn, of a network of this structure in eval mode, cut or not."""
        folded: Folded = {}
        for images in batches:
            values: Values = {self.input: images}
            with torch.inference_mode():
                for step in self.steps:
                    if step.folds is not None and step.folds not in folded:
                        folded[step.folds] = step.freeze(network, values)
                    step.run(network, values, folded)
            yield values[self.steps[-1].result]

    def knows_beginning(self, counts: Sequence[int]) -> bool:
        """Whether `logits` would go on from what an earlier policy has left."""
        known = (self._kept.get((end, *(counts[group] for group in groups))) for end, groups in self._ends)
        return any(beginning.folded for beginning in known if beginning is not None)

    def calibrate(self, small: nn.Module, beginnings: Sequence[_Beginning]) -> Folded:
        """Every convolution of `small`, its batch norm fitted on the calibration images and folded in."""
        done = next((b for b in reversed(beginnings) if b.folded), None)
        end, folded = (done.end, dict(done.folded)) if done else (0, {})
        batches: list[Values] = [{self.input: images} for images in self.calibration]
        if done:
            batches = [dict(values) for values in done.calibration]
        for position, step in enumerate(self.steps[end:], end + 1):
            if step.folds is not None:
                folded[step.folds] = step.fold(small, batches)
            else:
                for values in batches:
                    step.run(small, values, folded)
            for beginning in beginnings:
                if beginning.end == position and self._room(beginning, sum(map(_bytes, batches))):
                    beginning.folded, beginning.calibration = dict(folded), [dict(values) for values in batches]
        return folded

    def _beginning(self, end: int, groups: Sequence[int], counts: Sequence[int]) -> _Beginning:
        key = (end, *(counts[group] for group in groups))
        beginning = self._kept.setdefault(key, _Beginning(end))
        self._kept.move_to_end(key)
        return beginning

    def _room(self, wanted: _Beginning, more: int) -> bool:
        """Make room for `more` bytes in `wanted`, forgetting what was used longest ago; False where there is none."""
        if wanted.bytes + more > self.memory_bytes:
            return False
        in_use = sum(beginning.bytes for beginning in self._kept.values())
        for key in list(self._kept):
            if in_use + more > self.memory_bytes and self._kept[key] is not wanted:
                in_use -= self._kept.pop(key).bytes
        if in_use + more > self.memory_bytes:
            return False
        wanted.bytes += more
        return True


@dataclass
class _Beginning:
    """What the first steps of a policy came to, for the next policy that begins with the same counts."""

    end: int
    """how many steps"""
    folded: Folded = field(default_factory=dict)
    calibration: list[Values] = field(default_factory=list)
    batches: dict[int, Values] = field(default_factory=dict)
    """of the scored images; a network that was given up has not seen all"""
    bytes: int = 0


def _shared_ends(steps: Sequence[Step]) -> list[tuple[int, tuple[int, ...]]]:
    """How many steps there are until a third group comes in, a second, ...; and which groups those depend on."""
    ends: dict[tuple[int, ...], int] = {}
    groups: frozenset[int] = frozenset()
    for position, step in enumerate(steps, 1):
        groups |= step.groups
        if 1 <= len(groups) <= SHARED_GROUPS:
            ends[tuple(sorted(groups))] = position
    return [(end, groups) for groups, end in ends.items()]


def _bytes(values: Values) -> int:
    return sum(value.nbytes for value in values.values() if isinstance(value, Tensor))
