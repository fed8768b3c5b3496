"""Photos of a folder as the items of a split."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from amc_latency.android_bench.safe.files import read_bytes
from amc_latency.android_bench.safe.limits import PHOTO_BYTES
from amc_latency.data.photos.decoding import decode
from amc_latency.data.photos.room import Room
from amc_latency.data.photos.view import View

SAMPLE = 1000
"""Photos of a split whose bytes a digest sees; of the others their names and sizes."""


@dataclass(frozen=True)
class PhotoFiles:
    """The files `names` of `folder`."""

    folder: Path
    names: Sequence[str]
    view: View
    room: Room

    def read(self, index: int) -> np.ndarray | str:
        """As `Items.read`."""
        return decode(self.folder / self.names[index], self.view, self.room)

    def name(self, index: int) -> str:
        """Its path within the folder."""
        return self.names[index]

    def add_to(self, digest: Any, indices: Sequence[int]) -> None:
        """Names and sizes of all, and the bytes of a sample; nothing is decoded."""
        for index in indices:
            digest.update(f"{self.names[index]}\0{_size(self.folder / self.names[index])}\n".encode("utf-8", "replace"))
        for index in sample(indices, SAMPLE):
            try:
                digest.update(read_bytes(self.folder / self.names[index], PHOTO_BYTES))
            except OSError as error:
                digest.update(str(error.strerror).encode())


def sample(indices: Sequence[int], n: int) -> Sequence[int]:
    """At most `n` of them, evenly spread: the same ones each time."""
    return indices[:: max(1, -(-len(indices) // n))]


def _size(path: Path) -> int | str:
    try:
        return os.stat(path).st_size
    except OSError as error:
        return str(error.strerror)
