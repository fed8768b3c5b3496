"""Files read within bounds, and files that are there whole or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def regular_file(path: Path, most_bytes: int) -> Iterator[BinaryIO]:
    """A regular file of at most that size, open for reading.

    A FIFO or a device is refused without waiting for it. Raises `OSError` that says why, with the path as its filename.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(None, _why_not(status.st_mode), str(path))
        if status.st_size > most_bytes:
            raise _too_large(path, most_bytes)
        with open(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def read_bytes(path: Path, most_bytes: int) -> bytes:
    """All of a regular file of at most that size. Raises `OSError` as `regular_file` does."""
    with regular_file(path, most_bytes) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise _too_large(path, most_bytes)
    return content


def _why_not(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "is a folder"
    return "is no regular file (a pipe, a device or a socket)"


def _too_large(path: Path, most_bytes: int) -> OSError:
    return OSError(None, f"is larger than {most_bytes / 1e6:,.0f} MB, the most that is read", str(path))
