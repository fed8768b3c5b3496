"""Folders that a run works in: found again after a kill, removed at the end, and never a user's own."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
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
        marker = self._path / _MARKER
        if self._path.is_symlink() or not (marker.exists() or not any(self._path.iterdir())):
            raise FileExistsError(None, "is not a folder of amc-latency's: move it away", str(self._path))
        try:
            descriptor = os.open(marker, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            return None
        # Whoever has it is about to remove it: only one process at a time makes what belongs here.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if is_still(descriptor, marker):
            return descriptor
        os.close(descriptor)
        return None
