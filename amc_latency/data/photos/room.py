"""Memory shared by threads and processes: each takes what it needs for a while, and waits until there is as much."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager

PIECES = 64
"""What is taken is rounded up to a share of all of this size."""


class Room:
    """`total` bytes, also for processes that are forked later. Who needs more than that gets all of it, alone."""

    def __init__(self, total: int) -> None:
        self._total = total
        forked = multiprocessing.get_context("fork")
        self._turn = forked.Lock()
        self._pieces = forked.Semaphore(PIECES)

    @contextmanager
    def taken(self, n_bytes: int) -> Iterator[None]:
        """Wait until so many bytes are left, and keep them until the block ends."""
        wanted = -(-min(n_bytes, self._total) * PIECES // self._total)
        # One at a time: two that had half of what they need each would wait for ever.
        with self._turn:
            for _ in range(wanted):
                self._pieces.acquire()
        try:
            yield
        finally:
            for _ in range(wanted):
                self._pieces.release()
