"""Images that are decoded and become a network's input batch by batch, each time anew: a quarter of the memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

if TYPE_CHECKING:
    import torch

    from amc_latency.data.splits import InMemory

FLOAT_BYTES = 256 * 2**20
"""Inputs that take no more are made once: those of small images cost more to make than to keep."""


def inputs_of(split: InMemory, size: tuple[int, int], device: torch.device) -> torch.Tensor | Decoded:
    """A split's inputs for `size` (h, w) on `device`; where they are large, on a CPU, what makes them when asked."""
    channels, (height, width) = split.channels, size
    if device.type == "cpu" and 4 * len(split) * channels * height * width > FLOAT_BYTES:
        return Decoded(split, size, device)
    return split.inputs(size).to(device)


@dataclass(frozen=True)
class Decoded:
    """What stands for the inputs [N, C, h, w] of a split, of `size` (h, w), on a `device`."""

    of: InMemory
    size: tuple[int, int]
    device: torch.device

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the inputs."""
        return (len(self.of), self.of.channels, *self.size)

    def split(self, batch: int) -> Batches:
        """As `Tensor.split`."""
        return Batches(self, batch)


@dataclass(frozen=True)
class Batches(Sequence["torch.Tensor"]):
    """The inputs, `batch` images each, the last ones perhaps fewer."""

    images: Decoded
    batch: int

    def __len__(self) -> int:
        return -(-len(self.images.of) // self.batch)

    @overload
    def __getitem__(self, index: int) -> torch.Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[torch.Tensor]: ...
    def __getitem__(self, index: int | slice) -> torch.Tensor | Sequence[torch.Tensor]:
        numbers = range(len(self))[index]
        if isinstance(numbers, range):
            return [self[number] for number in numbers]
        start = numbers * self.batch
        part = self.images.of.at(slice(start, start + self.batch))
        return part.inputs(self.images.size).to(self.images.device)
