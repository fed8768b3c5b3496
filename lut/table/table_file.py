"""A table's file as its one writer sees it: locked, appended to by whole lines, and known again."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from amc_latency.android_bench.safe.files import is_still
from amc_latency.lut.table.table_text import TableError


class TableWriteError(TableError):
    """A table that the disk or its permissions don't let us write."""


class TableGoneError(TableWriteError):
    """A table whose file was removed, or replaced by another, while it was open."""


class TableFile:
    """The file of a table that is read or written. Only one process writes it, from `lock` to `close`.

    `status` is that of the file that was read, of which `end` bytes are known: another one in its place is never
    written to.
    """

    def __init__(self, path: Path, status: os.stat_result | None = None, end: int = 0) -> None:
        self.path = path
        self._known = None if status is None else (status.st_dev, status.st_ino)
        self._end = end
        self._descriptor: int | None = None

    def lock(self) -> bytes:
        """Take the file for writing, and return the whole lines that others have added since it was read.

        Harmless when done twice. Raises `TableError` if another process has it, `TableWriteError` if it can't be
        written, and `TableGoneError`.
        """
        if self._descriptor is not None:
            return b""
        with self._errors():
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        try:
            with self._errors():
                # Two builds at once would also spoil each other's timings.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            status = os.fstat(descriptor)
            own = (status.st_dev, status.st_ino)
            if self._known not in (None, own) or not is_still(descriptor, self.path):
                raise TableGoneError(f"{self.path} is another file than the one that was read")
            with self._errors():
                end = _end_of_last_line(descriptor)
                added = os.pread(descriptor, max(0, end - self._end), self._end)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor, self._known, self._end = descriptor, own, end
        return added

    def append(self, line: bytes) -> None:
        """One whole line in one write: a kill leaves it there or torn at the end, never mixed with another.

        No fsync: a killed process loses nothing that it wrote, and a power cut costs seconds of timings,
        which the next run repeats; syncing each row would disturb the timings themselves. Raises as `lock` does.
        """
        assert self._descriptor is not None, "lock comes first"
        self.check()
        with self._errors():
            end = _end_of_last_line(self._descriptor)
            # What a kill has torn.
            os.ftruncate(self._descriptor, end)
            try:
                if os.write(self._descriptor, line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._descriptor, end)
                raise
            self._end = end + len(line)

    def check(self) -> None:
        """Raises `TableGoneError` if what was written is no longer found under the table's name."""
        if self._descriptor is not None and not is_still(self._descriptor, self.path):
            raise TableGoneError(f"{self.path} was removed or replaced while it was written")

    def close(self) -> None:
        """Let another process write; the next `lock` takes the file again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except BlockingIOError as error:
            raise TableError(f"another process is writing {self.path}: wait for it, or pass another `table`") from error
        except FileNotFoundError as error:
            raise TableGoneError(f"{self.path} is no longer there") from error
        except OSError as error:
            raise TableWriteError(
                f"cannot write to the latency table {self.path}: {error.strerror or error}; "
                "the rows before are safe: set it right and run again to continue"
            ) from error


def _end_of_last_line(descriptor: int) -> int:
    """The size of the file without a last line that lacks its newline."""
    end = os.fstat(descriptor).st_size
    while end > 0:
        start = max(0, end - 65536)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
