"""Where streamed images come from, one at a time, and which of them could not be read."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from amc_latency.console import Console
from amc_latency.errors import UserError

if TYPE_CHECKING:
    import torch

MOST_BROKEN = 0.1
NAMED = 3


class Items(Protocol):
    """Images by their index."""

    def read(self, index: int) -> np.ndarray | str:
        """Bytes [H, W] or [H, W, 3], or floats [C, h, w] that are a network's input; why not, if it can't be read."""
        ...

    def name(self, index: int) -> str:
        """What a message calls it."""
        ...

    def add_to(self, digest: Any, indices: Sequence[int]) -> None:
        """Have a hash of hashlib see what tells these images from others."""
        ...


@dataclass(frozen=True)
class Rows:
    """Those of a tensor, uint8 [N, C, H, W]."""

    images: torch.Tensor

    def read(self, index: int) -> np.ndarray:
        """As `Items.read`."""
        pixels = self.images[index].numpy()
        return pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)

    def name(self, index: int) -> str:
        """As `Items.name`."""
        return f"image {index}"

    def add_to(self, digest: Any, indices: Sequence[int]) -> None:
        """All pixels."""
        digest.update(self.images.contiguous().numpy().data)


@dataclass(frozen=True)
class Kept:
    """Other items, some of which are kept as they were read."""

    items: Items
    found: Mapping[int, np.ndarray]

    def read(self, index: int) -> np.ndarray | str:
        """As `Items.read`."""
        kept = self.found.get(index)
        return self.items.read(index) if kept is None else kept

    def name(self, index: int) -> str:
        """As `Items.name`."""
        return self.items.name(index)

    def add_to(self, digest: Any, indices: Sequence[int]) -> None:
        """As if none were kept."""
        self.items.add_to(digest, indices)


@dataclass
class Skipped:
    """Images that can't be read: each is named once, however often it is come across."""

    where: str
    total: int
    """images that there are"""
    console: Console
    why: dict[str, str] = field(default_factory=dict)
    """by name"""
    _told: int = 0

    def add(self, unread: Mapping[str, str]) -> None:
        """Take names and reasons. Raises UserError once they are more than a tenth of all."""
        self.why.update(unread)
        if len(self.why) > MOST_BROKEN * self.total:
            raise UserError(f"{self._text()}; repair or remove them")

    def tell(self) -> None:
        """Say what is new, in a line."""
        if len(self.why) > self._told:
            self.console.warn(f"{self._text(self._told)}; left out")
            self._told = len(self.why)

    def _text(self, first: int = 0) -> str:
        new = [f"{name} ({why})" for name, why in list(self.why.items())[first:]]
        more = f" and {len(new) - NAMED} more" if len(new) > NAMED else ""
        count = f"{len(self.why)} of {self.total} images can't be read"
        return f"{self.where}: {count}: {', '.join(new[:NAMED])}{more}"


def read_all(items: Items, indices: Sequence[int], skipped: Skipped) -> dict[int, np.ndarray]:
    """Those of `indices` that can be read, by index; the others are told. Raises UserError where they are many."""
    found, unread = {}, {}
    with (
        # Pillow's warnings of odd metadata name no file.
        warnings.catch_warnings(action="ignore"),
        ThreadPoolExecutor(cores()) as pool,
        skipped.console.progress("decoding", len(indices)) as meter,
    ):
        for index, item in zip(indices, pool.map(items.read, indices), strict=True):
            if isinstance(item, str):
                unread[items.name(index)] = item
            else:
                found[index] = item
            meter.update(meter.done + 1)
    skipped.add(unread)
    skipped.tell()
    return found


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0))
