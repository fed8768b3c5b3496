"""What every image set is once it is loaded, and how its images become a network's input."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from amc_latency.errors import UserError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of pixels scaled to 0..1, one figure a channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __str__(self) -> str:
        """For people: to four digits, and its name if it has one."""
        figures = "/".join(",".join(f"{x:.4g}" for x in side) for side in (self.mean, self.std))
        names = [name for name in NORMALISATIONS if parse_normalisation(name, len(self.mean)) == self]
        return f"{figures} ({names[0]})" if names else figures

    @property
    def text(self) -> str:
        """As `parse_normalisation` reads it."""
        return "/".join(",".join(map(str, side)) for side in (self.mean, self.std))


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""of ImageNet's train images, as torchvision's weights expect it"""
NORMALISATIONS = {
    "imagenet": IMAGENET,
    "half": Normalisation((0.5,), (0.5,)),
    "lite": Normalisation((127 / 255,), (128 / 255,)),
    "cifar10": Normalisation((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": Normalisation((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "fashion_mnist": Normalisation((0.2860,), (0.3530,)),
    "none": Normalisation((0.0,), (1.0,)),
    "raw": Normalisation((0.0,), (1 / 255,)),
}
"""By name; one figure is that of every channel. `none` is for pixels of 0..1, and `raw` for those of 0..255."""


def parse_normalisation(text: str, channels: int | None = None) -> Normalisation:
    """Read a name of `NORMALISATIONS`, or "MEAN,.../STD,...", such as 0.485,0.456,0.406/0.229,0.224,0.225.

    With `channels`, a name's one figure is repeated for each. Raises UserError for anything else.
    """
    named = NORMALISATIONS.get(text)
    if named is not None:
        repeat = 1 if channels is None or len(named.mean) > 1 else channels
        return Normalisation(named.mean * repeat, named.std * repeat)
    try:
        mean, std = (tuple(float(part) for part in side.split(",")) for side in text.split("/"))
    except ValueError:
        mean, std = (), ()
    if (
        not mean
        or len(mean) != len(std)
        or not all(0 <= m <= 1 and 0 < s < 100 for m, s in zip(mean, std, strict=True))
    ):
        raise UserError(
            f"'{text}' is no normalisation: write {', '.join(NORMALISATIONS)}, or means and standard deviations of "
            "pixels scaled to 0..1, one figure a channel, as 0.485,0.456,0.406/0.229,0.224,0.225"
        )
    return Normalisation(mean, std)


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
