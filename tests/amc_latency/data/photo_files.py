"""Photos that tests make, and what a network is shown of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from amc_latency.console import Console
from amc_latency.data.photos.decoding import decode
from amc_latency.data.photos.view import View
from amc_latency.pixels import Crop

QUIET = Console(quiet=True)


class Heard(Console):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    warn = say


def paint(path: Path, colour: int | tuple[int, int, int] = (200, 100, 50), size: tuple[int, int] = (12, 10)) -> None:
    """A file of one colour, whose red may serve as its number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if isinstance(colour, int) else "RGB", size, colour).save(path)


def numbered(folder: Path, n: int, first: int = 0) -> None:
    """PNG files whose red channel is their number."""
    for i in range(first, first + n):
        paint(folder / f"{i:03}.png", (i, 0, 0))


def looked_at(path: Path, size: tuple[int, int], crop: Crop | None = None) -> np.ndarray | str:
    """What a network is evaluated on of a file, bytes [h, w] or [h, w, 3]; why it can't be read, if it can't."""
    view = View(size, crop or Crop())
    found = decode(path, view)
    return found if isinstance(found, str) else np.asarray(view.middle(Image.fromarray(found)))
