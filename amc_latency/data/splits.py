"""What every image set is once it is loaded, and how its images become a network's input."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from amc_latency.data.augmentation import Augmentation, Mixed, shift_and_flip
from amc_latency.pixels import Normalisation

if TYPE_CHECKING:
    import torch


LEAST_IMAGES = 20
"""Of fewer there is nothing to hold back that would say anything."""
EVALUATED = 100
"""Images a batch, where nothing is trained; of images larger than 64x64 fewer, whose layers' outputs take as much.

MobileNetV1 and EfficientNet-Lite0 at 224x224 take 50 to 75 % longer by batches of 16 than by 4 to 8, on one core of a
Xeon (family 6, model 207): larger outputs leave its caches."""


class Split(ABC):
    """Labelled images, in an order that has nothing to do with the labels: `InMemory`, or `Streamed`."""

    labels: torch.Tensor
    """int64 [N]"""
    normalisation: Normalisation

    def __len__(self) -> int:
        return len(self.labels)

    @property
    @abstractmethod
    def channels(self) -> int:
        """C of a network's input."""

    @abstractmethod
    def at(self, indices: torch.Tensor | slice) -> Split:
        """The images that `indices` [M], a mask [N] or a slice pick."""

    def take(self, n: int) -> Split:
        """The first `n` images, or all if there are fewer."""
        return self.at(slice(0, n))

    @abstractmethod
    def labelled(self, labels: torch.Tensor) -> Split:
        """The same images with other labels int64 [N]."""

    @abstractmethod
    def fitted(self, channels: int, normalisation: Normalisation) -> Split:
        """The same for a network of so many `channels`: a grey image is repeated over three."""

    @abstractmethod
    def kept(self) -> InMemory:
        """All of it, decoded: for a few images that are looked at often. What can't be read is left out."""

    def inputs(self, size: tuple[int, int]) -> torch.Tensor:
        """A network's input, of all images at once: normalised float32 [N, C, h, w] for `size` (h, w), channels last.

        For a few images: of many see `parts`.
        """
        return self.kept().inputs(size)

    @abstractmethod
    def parts(self, size: tuple[int, int], batch_size: int = EVALUATED) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Inputs [n, C, h, w] as `inputs` gives them, and labels [n], in order, a batch in memory at a time.

        Of large images a batch is smaller. What can't be read is left out.
        """

    @abstractmethod
    def batches(
        self,
        dealt: Iterable[torch.Tensor],
        size: tuple[int, int],
        augmentation: Augmentation | None,
        generator: torch.Generator,
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """To train on: inputs [n, C, h, w] and labels of each batch of indices that is `dealt`, augmented.

        All chance comes from `generator`: the same one gives the same batches. Labels are int64 [n], or where images
        are mixed float32 [n, K], shares of the classes up to the largest label.
        """

    @abstractmethod
    def add_to(self, digest: Any) -> None:
        """Have a hash of hashlib see what tells this split from another."""


@dataclass(frozen=True)
class InMemory(Split):
    """Images uint8 [N, C, H, W] and labels int64 [N]."""

    images: torch.Tensor
    labels: torch.Tensor
    normalisation: Normalisation

    @property
    def channels(self) -> int:
        """C of the images."""
        return self.images.shape[1]

    def at(self, indices: torch.Tensor | slice) -> InMemory:
        """As `Split.at`."""
        return replace(self, images=self.images[indices], labels=self.labels[indices])

    def take(self, n: int) -> InMemory:
        """As `Split.take`."""
        return self.at(slice(0, n))

    def labelled(self, labels: torch.Tensor) -> InMemory:
        """As `Split.labelled`."""
        return replace(self, labels=labels)

    def fitted(self, channels: int, normalisation: Normalisation) -> InMemory:
        """As `Split.fitted`."""
        return replace(self, images=self.images.expand(-1, channels, -1, -1), normalisation=normalisation)

    def kept(self) -> InMemory:
        """Itself."""
        return self

    def inputs(self, size: tuple[int, int]) -> torch.Tensor:
        """As `Split.inputs`; images of another size are resized bilinearly."""
        return as_inputs(self.images, self.normalisation, size)

    def parts(self, size: tuple[int, int], batch_size: int = EVALUATED) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """As `Split.parts`."""
        batch_size = min(batch_size, at_once(size))
        for start in range(0, len(self), batch_size):
            batch = self.at(slice(start, start + batch_size))
            yield batch.inputs(size), batch.labels

    def batches(
        self,
        dealt: Iterable[torch.Tensor],
        size: tuple[int, int],
        augmentation: Augmentation | None,
        generator: torch.Generator,
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """As `Split.batches`."""
        changes = (augmentation or Augmentation.none()).settled(len(self), "pixels")
        if changes.is_by_image:
            from amc_latency.data.streamed import streamed

            yield from streamed(self).batches(dealt, size, changes, generator)
            return
        mixed = Mixed(changes, self.labels)
        for indices in dealt:
            images = shift_and_flip(self.images[indices], generator, changes)
            inputs = as_inputs(images, self.normalisation, size)
            yield mixed(inputs, self.labels[indices], generator)

    def add_to(self, digest: Any) -> None:
        """All pixels and labels."""
        digest.update(f"{tuple(self.images.shape)}".encode())
        digest.update(self.labels.contiguous().numpy().data)
        for images in self.images.split(1000):
            digest.update(images.contiguous().numpy().data)


def at_once(size: tuple[int, int]) -> int:
    """Images of `size` (h, w) that are a batch, where nothing is trained."""
    return max(1, min(EVALUATED, EVALUATED * 64 * 64 // (size[0] * size[1])))


def fewer_of_large(images: int, size: tuple[int, int], least: int) -> int:
    """`images`, or of images of a `size` (h, w) larger than 96x96 so many as have no more pixels, down to `least`."""
    return min(images, max(least, images * 96 * 96 // (size[0] * size[1])))


def as_inputs(images: torch.Tensor, normalisation: Normalisation, size: tuple[int, int]) -> torch.Tensor:
    """Bytes [N, C, H, W] as a network's input: normalised float32 [N, C, h, w] for `size` (h, w), channels last."""
    import torch

    mean, std = (
        torch.tensor(figures, dtype=torch.float32, device=images.device).view(-1, 1, 1)
        for figures in (normalisation.mean, normalisation.std)
    )
    return resized((images.float() / 255 - mean) / std, size)


def resized(inputs: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Floats [N, C, H, W] as [N, C, h, w], bilinearly where that is another `size` (h, w), channels last."""
    import torch
    from torch.nn import functional

    if tuple(inputs.shape[-2:]) != tuple(size):
        inputs = functional.interpolate(inputs, tuple(size), mode="bilinear", align_corners=False)
    return inputs.contiguous(memory_format=torch.channels_last)


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
    takes_as_given: bool = False
    """True if the user's own transforms make the network's input: nothing is normalised or augmented"""

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
        """What tells one set's content from another's: a sha256 of pixels and labels, or of what stands for them."""
        found = hashlib.sha256()
        for split in self.splits:
            split.add_to(found)
        return found.hexdigest()
