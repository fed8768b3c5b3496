"""The most memory that a benchmark and its workers take, looked at while it makes progress."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from amc_latency.console import Console


class PeakMemory:
    """The most that this process and any one of its workers have had resident, together."""

    def __init__(self) -> None:
        self.megabytes = 0.0

    def look(self) -> None:
        """Take note of the peaks so far; a worker's is lost when it ends. Rusage won't do: a forked child's starts at
        its parent's, before it becomes another program.
        """
        own = Path("/proc/self")
        workers = [Path("/proc", pid) for file in own.glob("task/*/children") for pid in file.read_text().split()]
        now = _peak_kib(own) + max(map(_peak_kib, workers), default=0)
        self.megabytes = max(self.megabytes, round(now * 1024 / 1e6))


def _peak_kib(process: Path) -> int:
    try:
        status = (process / "status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), 0)


class Meter(Console):
    """A console that shows no message and looks at the memory whenever progress is made."""

    def __init__(self, memory: PeakMemory) -> None:
        super().__init__()
        self.memory = memory

    def say(self, text: str) -> None: ...

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Any]:
        with super().progress(what, total) as meter:
            update = meter.update

            def looking(*values: Any) -> None:
                self.memory.look()
                update(*values)

            meter.update = looking
            yield meter
