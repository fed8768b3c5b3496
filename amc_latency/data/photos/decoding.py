"""Photos from files: decoded whatever their kind, turned upright, shrunk, and handed over as bytes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from amc_latency.android_bench.safe.files import regular_file
from amc_latency.android_bench.safe.limits import MB, PHOTO_BYTES, PHOTO_PIXELS
from amc_latency.android_bench.safe.memory import available_bytes
from amc_latency.data.photos.pixel_modes import as_bytes, is_grey, levels_of
from amc_latency.data.photos.room import Room
from amc_latency.data.photos.view import View

if TYPE_CHECKING:
    from PIL import Image

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
_PROGRESSIVE_BYTES_A_PIXEL = 6
"""A progressive JPEG's coefficients of its full size are all kept until the last scan, however small it is decoded."""
_ROOM_BYTES = 768 * MB
_HEADER_BYTES = 4096
_GAP = rb"(?:\s|#[^\r\n]*[\r\n])"
_ENDLESS_COMMENT = re.compile(rb"P\d" + _GAP + rb"*(?:\d+" + _GAP + rb"+){0,2}\d*#[^\r\n]*\Z")
"""Before the third number of a PPM, after which its pixels begin: Pillow reads it byte by byte."""


def room_to_decode() -> Room:
    """What all threads and processes may take: a part of what is free, so that several large photos wait in turn."""
    available = available_bytes()
    return Room(_ROOM_BYTES if available is None else max(1, min(_ROOM_BYTES, available // 4)))


def decode(path: Path, view: View, room: Room | None = None) -> np.ndarray | str:
    """A photo, shrunk for `view`: bytes [H, W] if it is grey and else [H, W, 3]; why it can't be read, if it can't.

    It is decoded when `room` has the memory that this takes.
    """
    from PIL import ImageOps

    try:
        with _opened(path) as opened:
            coefficients = 0
            if "progressive" in opened.info:
                coefficients = _PROGRESSIVE_BYTES_A_PIXEL * opened.width * opened.height
                if coefficients > _ROOM_BYTES:
                    raise ValueError(
                        f"a progressive JPEG of {opened.width}x{opened.height} pixels takes too much memory"
                    )
            if opened.width * opened.height > _LARGE_PIXELS:
                # A JPEG, and nothing else, can be decoded at an eighth, a quarter or half of its size.
                opened.draft(None, (_ENOUGH * view.size[1], _ENOUGH * view.size[0]))
            pixels = opened.width * opened.height
            if pixels > PHOTO_PIXELS:
                raise ValueError(f"{pixels:,} pixels are more than the {PHOTO_PIXELS:,} that are decoded")
            levels = levels_of(opened)
            with room.taken(_BYTES_A_PIXEL * pixels + coefficients) if room else nullcontext():
                return np.asarray(view.shrunk(as_bytes(ImageOps.exif_transpose(opened), levels)))
    except Exception as error:
        return reason(error)


def shows_grey(path: Path) -> bool | None:
    """Whether a photo's header says that `decode` makes it grey; None if it can't be read."""
    try:
        with _opened(path) as opened:
            return is_grey(opened)
    except Exception:  # `decode` says why
        return None


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    from PIL import Image

    # From an open file: of a path, Pillow scrambles an uncompressed TIFF that is to be turned.
    with regular_file(path, PHOTO_BYTES) as file:
        if not os.fstat(file.fileno()).st_size:
            raise ValueError("an empty file")
        start = file.read(_HEADER_BYTES)
        if len(start) == _HEADER_BYTES and _ENDLESS_COMMENT.match(start):
            raise ValueError(f"a comment that does not end within {_HEADER_BYTES:,} bytes")
        file.seek(0)
        with Image.open(file, formats=FORMATS) as opened:
            yield opened


def reason(error: Exception) -> str:
    """Why an image can't be read, in a few words: a damaged file makes Pillow's decoders raise almost anything."""
    if isinstance(error, MemoryError):
        return "there is not enough memory for it"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip().partition(" <_io.")[0].splitlines() or [type(error).__name__])[0]
