"""Memory shared by threads: each takes what it needs for a while, and waits until there is as much."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class Room:
    """`total` bytes. Who needs more than that gets all of it, alone."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._left = total
        self._changed = Condition()

    @contextmanager
    def taken(self, n_bytes: int) -> Iterator[None]:
        """Wait until so many bytes are left, and keep them until the block ends."""
        wanted = min(n_bytes, self._total)
        with self._changed:
            self._changed.wait_for(lambda: self._left >= wanted)
            self._left -= wanted
        try:
            yield
        finally:
            with self._changed:
                self._left += wanted
                self._changed.notify_all()
