"""Photos from files: decoded, resized, cropped to their middle, and kept as bytes."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from amc_latency.android_bench.safe.files import regular_file
from amc_latency.android_bench.safe.limits import MB, PHOTO_BYTES, PHOTO_PIXELS
from amc_latency.android_bench.safe.memory import available_bytes
from amc_latency.console import Console
from amc_latency.data.pixel_modes import as_bytes, levels_of
from amc_latency.data.room import Room
from amc_latency.errors import UserError

if TYPE_CHECKING:
    import torch

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif", ".pbm", ".pnm")
"""those of torchvision's ImageFolder, and more that are of the same kinds; of several pictures the first counts"""
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
"""Pillow's for these: others, such as EPS, have it run a program."""
_LARGE_PIXELS = 16 * MB
"""Photos up to this size are decoded whole, as ever."""
_ENOUGH = 4
"""A larger one to at least so many times the size that it is then shrunk to."""
_BYTES_A_PIXEL = 12
"""Four bytes of each colour's three: as decoded, turned, converted, and cut."""
_ROOM_BYTES = 768 * MB
BORDER = (1 - 224 / 256) / 2
"""Left out at each edge: ImageNet's usual evaluation resizes the short side to 256 and keeps the middle 224."""
MOST_BROKEN = 0.1
NAMED = 3


def decode(
    folder: Path, names: Sequence[str], size: tuple[int, int], console: Console
) -> tuple[torch.Tensor, list[bool]]:
    """The files `names` of `folder` as uint8 [M, C, h, w] for `size` (h, w), and which of them could be read.

    C is 1 if all are grey, else 3. What can't be read is left out and named in a line; UserError if that is more
    than a tenth.
    """
    import torch

    height, width = size
    pixels = np.empty((len(names), 3, height, width), np.uint8)
    read: list[bool] = []
    broken: list[str] = []
    grey = True
    # Pillow's warnings of odd metadata name no file.
    quiet = warnings.catch_warnings(action="ignore")
    with quiet, ThreadPoolExecutor(os.cpu_count()) as pool, console.progress("decoding", len(names)) as meter:
        found = pool.map(partial(_photo, size=size, room=_room()), (folder / name for name in names))
        for done, (name, photo) in enumerate(zip(names, found, strict=True), start=1):
            read.append(not isinstance(photo, str))
            if isinstance(photo, str):
                broken.append(f"{name} ({photo})")
            else:
                grey &= photo.ndim == 2
                pixels[done - 1 - len(broken)] = photo if photo.ndim == 2 else photo.transpose(2, 0, 1)
            meter.update(done)
    if broken:
        more = f" and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
        text = f"{folder}: {len(broken)} of {len(names)} images can't be read: {', '.join(broken[:NAMED])}{more}"
        if len(broken) > MOST_BROKEN * len(names):
            raise UserError(f"{text}; repair or remove them")
        console.warn(f"{text}; left out")
    images = torch.from_numpy(pixels[: len(names) - len(broken)])
    return (images[:, :1].clone() if grey else images), read


def _room() -> Room:
    """What all threads may take to decode: a part of what is free, so that several large photos wait for each other."""
    available = available_bytes()
    return Room(_ROOM_BYTES if available is None else min(_ROOM_BYTES, available // 4))


def _photo(path: Path, size: tuple[int, int], room: Room | None = None) -> np.ndarray | str:
    """The middle of a photo, [h, w] if it is grey and else [h, w, 3]; why it can't be read, if it can't.

    It is decoded when `room` has the memory that this takes.
    """
    from PIL import Image, ImageOps

    try:
        # From an open file: of a path, Pillow scrambles an uncompressed TIFF that is to be turned.
        with regular_file(path, PHOTO_BYTES) as file, Image.open(file, formats=FORMATS) as opened:
            if opened.width * opened.height > _LARGE_PIXELS:
                # A JPEG, and nothing else, can be decoded at an eighth, a quarter or half of its size.
                opened.draft(None, (_ENOUGH * size[1], _ENOUGH * size[0]))
            pixels = opened.width * opened.height
            if pixels > PHOTO_PIXELS:
                raise ValueError(f"{pixels:,} pixels are more than the {PHOTO_PIXELS:,} that are decoded")
            levels = levels_of(opened)
            with room.taken(_BYTES_A_PIXEL * pixels) if room else nullcontext():
                image = as_bytes(ImageOps.exif_transpose(opened), levels)
                return np.asarray(ImageOps.fit(image, size[::-1], Image.Resampling.BILINEAR, BORDER))
    except MemoryError:
        return "there is not enough memory for it"
    except Exception as error:
        # A damaged file makes Pillow's decoders raise almost anything.
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        return str(error).partition(" <_io.")[0] or type(error).__name__
