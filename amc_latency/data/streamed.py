"""A split whose images are decoded when they are wanted, batch by batch, and not kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from amc_latency.console import Console
from amc_latency.data.augmentation import Augmentation, Kind, Mixed, drawn_seed, shift_and_flip
from amc_latency.data.items import Items, Kept, Rows, Skipped, read_all
from amc_latency.data.load import Streaming
from amc_latency.data.photos.view import View
from amc_latency.data.splits import EVALUATED, InMemory, Split, as_inputs, at_once
from amc_latency.data.workers import Change, read_batches
from amc_latency.pixels import Crop, Normalisation

if TYPE_CHECKING:
    from PIL import Image

FEW_READ = 32
"""Images by which it is told how much memory all of a split take."""


@dataclass(frozen=True)
class Streamed(Split):
    """Images that are read one by one, from files or a data set, by `workers.py`."""

    items: Items
    indices: torch.Tensor
    """which of the items, int64 [N]"""
    labels: torch.Tensor
    normalisation: Normalisation
    colours: int
    """channels that an image is read with, 1 or 3"""
    view: View
    skipped: Skipped
    kind: Kind = "photos"
    is_fixed: bool = True
    """whether an image is the same each time it is read: what a set's own transforms draw anew is not to be kept"""
    wanted: int = 0
    """channels of a network's input, `colours` unless set"""

    @property
    def channels(self) -> int:
        """C of a network's input."""
        return self.wanted or self.colours

    def at(self, indices: torch.Tensor | slice) -> Streamed:
        """As `Split.at`."""
        return replace(self, indices=self.indices[indices], labels=self.labels[indices])

    def take(self, n: int) -> Streamed:
        """As `Split.take`."""
        return self.at(slice(0, n))

    def labelled(self, labels: torch.Tensor) -> Streamed:
        """As `Split.labelled`."""
        return replace(self, labels=labels)

    def fitted(self, channels: int, normalisation: Normalisation) -> Streamed:
        """As `Split.fitted`; of tensors that are a network's input already nothing is normalised."""
        return replace(
            self, wanted=channels, normalisation=self.normalisation if self.kind == "tensors" else normalisation
        )

    def keeping(self, found: Mapping[int, np.ndarray]) -> Streamed:
        """Those images alone that were `found` when all were read, by index."""
        is_read = torch.tensor([int(index) in found for index in self.indices], dtype=torch.bool)
        return replace(self.at(is_read), items=Kept(self.items, found))

    def kept(self) -> InMemory:
        """As `Split.kept`, at the size that it was loaded for."""
        images, labels = [], []
        for some, places in self._read(self._in_order(EVALUATED), self._middle):
            images.append(some)
            labels.append(places)
        if not images:
            height, width = self.view.size
            empty = torch.empty(0, self.channels, height, width, dtype=torch.uint8)
            return InMemory(empty, self.labels[:0], self.normalisation)
        return InMemory(torch.cat(images), torch.cat(labels), self.normalisation)

    def parts(self, size: tuple[int, int], batch_size: int = EVALUATED) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """As `Split.parts`."""
        for images, labels in self._read(self._in_order(min(batch_size, at_once(size))), self._middle):
            yield as_inputs(images, self.normalisation, size), labels

    def batches(
        self,
        dealt: Iterable[torch.Tensor],
        size: tuple[int, int],
        augmentation: Augmentation | None,
        generator: torch.Generator,
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """As `Split.batches`. In place of an image that can't be read, another of its batch is there twice."""
        changes = (augmentation or Augmentation.none()).settled(len(self), self.kind)
        mixed = Mixed(changes, self.labels)
        change = self._middle
        if changes.is_by_image:
            fill = tuple(255 * mean for mean in self.normalisation.mean[: self.colours])
            change = _Changed(self.colours, changes.for_images(size, self.view.resample, self.view.middle, fill))
        for images, labels in self._read(list(dealt), change, drawn_seed(generator), filled=True):
            inputs = as_inputs(shift_and_flip(images, generator, changes), self.normalisation, size)
            yield mixed(inputs, labels, generator)

    def add_to(self, digest: Any) -> None:
        """Labels, and of the images what their source says."""
        digest.update(f"{len(self)} {self.view} {self.colours}".encode())
        digest.update(self.labels.contiguous().numpy().data)
        self.items.add_to(digest, self.indices.tolist())

    @property
    def _middle(self) -> Change:
        return _as_it_is if self.kind == "tensors" else _Changed(self.colours, self.view.middle)

    def _in_order(self, batch_size: int) -> list[torch.Tensor]:
        return list(torch.arange(len(self)).split(batch_size)) if len(self) else []

    def _read(
        self, dealt: list[torch.Tensor], change: Change, seed: int = 0, filled: bool = False
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Images [n, C, h, w] and labels of each batch of places in this split; with `filled` no batch is shorter."""
        batches = read_batches(self.items, [self.indices[places] for places in dealt], change, seed)
        for places, read in zip(dealt, batches, strict=True):
            self.skipped.add(read.unread)
            if not len(read.places):
                continue
            found = np.resize(np.arange(len(read.places)), len(places)) if filled else np.arange(len(read.places))
            images = torch.from_numpy(read.images[found] if len(found) > len(read.places) else read.images)
            labels = self.labels[places[torch.from_numpy(read.places[found])]]
            yield images.expand(-1, self.channels, -1, -1), labels
        self.skipped.tell()


@dataclass(frozen=True)
class _Changed:
    """From an array [H, W] or [H, W, 3] to one [C, h, w], by way of an image of Pillow."""

    colours: int
    change: Callable[[Image.Image], Any]

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        from PIL import Image

        image = Image.fromarray(pixels)
        mode = "L" if self.colours == 1 else "RGB"
        changed = self.change(image if image.mode == mode else image.convert(mode))
        if isinstance(changed, torch.Tensor):
            return changed.numpy()
        found = np.asarray(changed)
        return found[None] if found.ndim == 2 else found.transpose(2, 0, 1)


def _as_it_is(item: np.ndarray) -> np.ndarray:
    return item


def streamed(split: InMemory) -> Streamed:
    """Images in memory, to be changed one by one: of their own size, and as many channels as they have."""
    images = split.images
    height, width = images.shape[-2:]
    quiet = Skipped("memory", len(split), Console(quiet=True))
    indices = torch.arange(len(split))
    view = View((height, width), Crop(1.0))
    return Streamed(Rows(images), indices, split.labels, split.normalisation, images.shape[1], view, quiet, "pixels")


def kept_if_they_fit(splits: list[Streamed], streaming: Streaming, console: Console) -> list[Streamed]:
    """Train, held back and test, read now and kept if all three fit; what can't be read is left out.

    Else they stay as they are, which is said.
    """
    gib = sum(len(split) * _bytes_each(split) for split in splits) / 2**30
    if gib > streaming.memory_gib:
        console.say(
            f"{sum(map(len, splits)):,} images are {gib:.3g} GiB decoded, and up to {streaming.memory_gib:g} are kept: "
            "they are decoded whenever they are used"
        )
        return splits
    wanted: dict[int, tuple[Streamed, list[int]]] = {}
    for split in splits:
        if split.is_fixed:
            wanted.setdefault(id(split.items), (split, []))[1].extend(split.indices.tolist())
    found = {key: read_all(split.items, indices, split.skipped) for key, (split, indices) in wanted.items()}
    return [split.keeping(found[id(split.items)]) if split.is_fixed else split for split in splits]


def _bytes_each(split: Streamed) -> float:
    """What an image takes once it is read, by a few of them."""
    indices = split.indices[:: max(1, -(-len(split) // FEW_READ))].tolist()
    read = [item for item in map(split.items.read, indices) if not isinstance(item, str)]
    return sum(item.nbytes for item in read) / len(read) if read else 0.0
