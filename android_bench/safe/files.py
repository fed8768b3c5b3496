"""Files read within bounds, and files that are there whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

LONGEST_NAME = 255
"""Bytes of a file's name, on almost every file system."""
_PREFIX, _SUFFIX = ".amc-latency-", ".tmp"
_TEMPORARY = re.compile(rf"{re.escape(_PREFIX)}[0-9a-f]{{16}}{re.escape(_SUFFIX)}")
"""Names of our temporary files: short, so that they fit wherever the name of what they become does."""


@contextmanager
def regular_file(path: Path, most_bytes: int) -> Iterator[BinaryIO]:
    """A regular file of at most that size, open for reading.

    A FIFO or a device is refused without waiting for it. The path is looked up once, and what was opened is looked at:
    whoever swaps the file meanwhile gains nothing. Raises `OSError` that says why, with the path as its filename.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
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
        return read_whole(file, path, most_bytes)


def read_whole(file: BinaryIO, path: Path, most_bytes: int) -> bytes:
    """All of what `regular_file` gave, which may have grown since. Raises `OSError` as that does."""
    content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise _too_large(path, most_bytes)
    return content


def sidecar(path: Path, suffix: str) -> Path:
    """A file beside `path` that is named after it; where a folder's longest name is too short, after its digest."""
    name = path.name + suffix
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}{suffix}"
    return path.with_name(name)


@contextmanager
def replacing(path: Path, new: bool = False) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends well: a kill leaves the old or the new.

    The file keeps the permissions of the one that it replaces, and its owner and group where the system lets us. With
    `new`, `path` must not be there: of two that make it at once, one gets `FileExistsError`. What killed processes left
    in the folder is removed. Raises `OSError` if the file can't be made; then, as after any error in the block, `path`
    is as it was.
    """
    remove_leftovers(path.parent)
    replaced = None if new else _regular(path)
    # Nobody reads half of what they may not read the whole of.
    temporary, descriptor = _temporary(path.parent, 0o666 if replaced is None else 0o600)
    try:
        yield temporary
        if not is_still(descriptor, temporary):
            raise OSError(None, "was replaced while it was written", str(temporary))
        if replaced is not None:
            _take_permissions(descriptor, replaced)
        if new:
            os.link(temporary, path, follow_symlinks=False)
        else:
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that `replacing` made in `folder` and whose processes are gone. Raises nothing."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(OSError):
                    _remove_if_left(Path(entry.path))


def is_still(descriptor: int, path: Path) -> bool:
    """Whether `path` names the file that was opened as `descriptor`: it may have been replaced or removed since."""
    try:
        found, opened = os.stat(path), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino)


def _regular(path: Path) -> os.stat_result | None:
    """Of the file that is there; None for none, and for what is no regular file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def _take_permissions(descriptor: int, replaced: os.stat_result) -> None:
    """Give an own file the owner, group and permissions of another, as far as the system allows."""
    for owner in (replaced.st_uid, -1):
        try:
            os.fchown(descriptor, owner, replaced.st_gid)
            break
        except OSError:
            # Only root gives files away, but to another group of ours anybody may.
            continue
    mode = stat.S_IMODE(replaced.st_mode) & 0o777
    if os.fstat(descriptor).st_gid != replaced.st_gid:
        # Another group is as anybody else.
        mode = mode & ~0o070 | (mode & 0o007) << 3
    # A file system without permissions keeps none.
    with suppress(OSError):
        os.fchmod(descriptor, mode)


def _temporary(folder: Path, mode: int) -> tuple[Path, int]:
    """A file of nobody else's in `folder`, locked for as long as its descriptor is open."""
    while True:
        path = folder / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
        # Whoever else may write to the folder could have laid a link of that name.
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, mode)
        try:
            if _locked(descriptor) and is_still(descriptor, path):
                return path, descriptor
        except OSError:
            # A file system without locks: nobody takes the file for a left-over there.
            return path, descriptor
        # Another process looked at it for a left-over before it was locked, and removes it.
        os.close(descriptor)


def _remove_if_left(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        own = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
        # A living process holds its file's lock.
        if own and _locked(descriptor) and is_still(descriptor, path):
            path.unlink()
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _why_not(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "is a folder"
    return "is no regular file (a pipe, a device or a socket)"


def _too_large(path: Path, most_bytes: int) -> OSError:
    return OSError(None, f"is larger than {most_bytes / 1e6:,.0f} MB, the most that is read", str(path))
