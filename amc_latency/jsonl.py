"""One JSON object a line, appended as it comes: what a kill can tear is the last line, and that one is dropped."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from amc_latency.android_bench.safe.files import read_bytes
from amc_latency.android_bench.safe.limits import LINES_BYTES
from amc_latency.android_bench.safe.records import RecordError, exactly, from_json
from amc_latency.errors import JobError, UserError

T = TypeVar("T")


def drop_torn_line(path: Path) -> None:
    """Cut a torn last line off a file that is to be appended to; what was not there stays so.

    Raises `UserError` for a link and a file that can't be read, `JobError` for one that can't be written.
    """
    content, whole = _content(path)
    if len(whole) < len(content):
        try:
            with _to_write(path) as descriptor:
                os.ftruncate(descriptor, len(whole))
        except OSError as error:
            raise JobError(f"cannot write {path}: {error.strerror}") from error


def read_lines(path: Path, kind: type[T]) -> list[T]:
    """All whole lines as dataclasses, without a torn last one. Raises `UserError` naming a damaged line."""
    _, whole = _content(path)
    rows = []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            rows.append(exactly(from_json(line, dict[str, Any]), kind))
        except RecordError as error:
            raise UserError(
                f"{path}, line {number} is damaged: {line[:80]!r} ({error}). Start another folder"
            ) from error
    return rows


def append_line(path: Path, row: Any) -> None:
    """Add a dataclass as one line, in a single write.

    Raises `JobError` if it cannot be stored; the lines before still stand.
    """
    line = json.dumps(asdict(row)).encode() + b"\n"
    try:
        with _to_write(path, os.O_CREAT | os.O_APPEND) as descriptor:
            if os.write(descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise JobError(
            f"cannot write {path}: {error.strerror}. What is there is kept: set it right and run again to go on"
        ) from error


@contextmanager
def _to_write(path: Path, flags: int = 0) -> Iterator[int]:
    """A regular file, open for writing; `OSError` for anything else.

    A link is not followed: who gave away the folder would have us write, and cut, a file elsewhere.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | flags, 0o644)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "is no regular file")
        yield descriptor
    finally:
        os.close(descriptor)


def _content(path: Path) -> tuple[bytes, bytes]:
    """A file's bytes, and those of its whole lines; none where there is no file."""
    if path.is_symlink():
        raise UserError(
            f"{path} is a link, and would be written to: put the file itself there, or start another folder"
        )
    try:
        content = read_bytes(path, LINES_BYTES)
    except FileNotFoundError:
        return b"", b""
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}). Start another folder") from error
    return content, content[: content.rfind(b"\n") + 1]
