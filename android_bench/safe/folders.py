"""Folders that a run works in: found again after a kill, removed at the end, and never a user's own."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import threading
from pathlib import Path
from types import TracebackType

from amc_latency.android_bench.safe.files import is_still

_MARKER = "made-by-amc-latency"


class WorkingFolder:
    """A folder beside a file, named after it, made when it is first asked for and removed when the block ends.

    What a killed run left there is found by the next one. Only a folder with our marker in it is used or removed.
    """

    def __init__(self, beside: Path) -> None:
        digest = hashlib.sha256(os.fsencode(beside.name)).hexdigest()[:16]
        self._path = beside.with_name(f".amc-latency-{digest}.work")
        self._marker: int | None = None
        self._making = threading.Lock()

    def path(self) -> Path:
        """The folder, which is there now. Raises `OSError` that says why it can't be."""
        with self._making:
            while self._marker is None:
                self._marker = self._taken()
        return self._path

    def __enter__(self) -> WorkingFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._marker is not None:
            if is_still(self._marker, self._path / _MARKER):
                shutil.rmtree(self._path, ignore_errors=True)
            os.close(self._marker)
            self._marker = None

    def _taken(self) -> int | None:
        """The folder's marker, opened and locked; None if the process that had it has removed the folder just now."""
        self._path.mkdir(mode=0o700, exist_ok=True)
        # What is looked at is what was opened: a path may name something else a moment later.
        try:
            folder = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            raise self._not_ours() from None
        try:
            there = os.listdir(folder)
            if there and _MARKER not in there:
                raise self._not_ours()
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            descriptor = os.open(_MARKER, flags, 0o600, dir_fd=folder)
        except FileNotFoundError:
            return None
        finally:
            os.close(folder)
        # Whoever has it is about to remove it: only one process at a time makes what belongs here.
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise self._not_ours()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if is_still(descriptor, self._path / _MARKER):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return None

    def _not_ours(self) -> FileExistsError:
        return FileExistsError(None, "is not a folder of amc-latency's: move it away", str(self._path))
