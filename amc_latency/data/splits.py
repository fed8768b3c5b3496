"""What every image set is once it is loaded, and how its images become a network's input."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from amc_latency.pixels import Normalisation

if TYPE_CHECKING:
    import torch


LEAST_IMAGES = 20
"""Of fewer there is nothing to hold back that would say anything."""


@dataclass(frozen=True)
class Split:
    """Images uint8 [N, C, H, W] and labels int64 [N], in an order that has nothing to do with the labels."""

    images: torch.Tensor
    labels: torch.Tensor
    normalisation: Normalisation

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, n: int) -> Split:
        """The first `n` images, or all if there are fewer."""
        return replace(self, images=self.images[:n], labels=self.labels[:n])

    def at(self, indices: torch.Tensor | slice) -> Split:
        """The images that `indices` [M], a mask [N] or a slice pick."""
        return replace(self, images=self.images[indices], labels=self.labels[indices])

    def inputs(self, size: tuple[int, int]) -> torch.Tensor:
        """A network's input: normalised float32 [N, C, h, w] for `size` (h, w), channels last."""
        import torch
        from torch.nn import functional

        mean, std = (
            torch.tensor(figures, dtype=torch.float32, device=self.images.device).view(-1, 1, 1)
            for figures in (self.normalisation.mean, self.normalisation.std)
        )
        x = (self.images.float() / 255 - mean) / std
        if tuple(x.shape[-2:]) != tuple(size):
            x = functional.interpolate(x, tuple(size), mode="bilinear", align_corners=False)
        return x.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class ImageData:
    """The three splits, and where they came from."""

    source: str
    train: Split
    held_back: Split
    """from the train images: nothing is trained on them, and every choice is made by them"""
    test: Split
    """for the figure at the end"""
    classes: int
    """labels are 0..classes - 1"""
    unlabelled: bool = False
    """True if labels are what the original network says of each image: accuracy is agreement with it"""

    @property
    def splits(self) -> tuple[Split, Split, Split]:
        """Train, held back and test."""
        return self.train, self.held_back, self.test

    @property
    def normalisation(self) -> Normalisation:
        """That of all splits."""
        return self.train.normalisation

    def with_splits(self, train: Split, held_back: Split, test: Split) -> ImageData:
        """The same with other splits."""
        return replace(self, train=train, held_back=held_back, test=test)

    def digest(self) -> str:
        """The sha256 of all pixels and labels: what tells one folder's content from another's."""
        found = hashlib.sha256()
        for split in self.splits:
            found.update(f"{tuple(split.images.shape)}".encode())
            found.update(split.labels.contiguous().numpy().data)
            for images in split.images.split(1000):
                found.update(images.contiguous().numpy().data)
        return found.hexdigest()
