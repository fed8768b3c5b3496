"""The command line in forks of a process, away from this computer's keys, tables, caches and phones."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from amc_latency.device.base import Protocol
from amc_latency.device.registry import get_device
from amc_latency.lut.table.table import LatencyTable

from tests.integration.fork_server import Forked, ForkServer

_ROOT = Path(__file__).resolve().parents[2]
PLACES = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        """What `--json` printed, of a command that went well."""
        assert self.code == 0, self.err
        return json.loads(self.out)


@dataclass(frozen=True)
class Cli:
    """Runs commands with `home` as the user's folder."""

    home: Path
    server: ForkServer

    @property
    def environment(self) -> dict[str, str]:
        """What makes a process look there, and ask no adb server that a developer runs."""
        places = {name: str(self.home / name) for name in PLACES}
        # Threads that wait for one another spin: where other tests run, one is five times as fast as two.
        return {**places, "ANDROID_ADB_SERVER_PORT": "1", "PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1"}

    def start(self, *arguments: object) -> Forked:
        """A command that runs."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("ADB_", "ANDROID_"))}
        return self.server.start(list(map(str, arguments)), {**inherited, **self.environment}, self.home)

    def run(self, *arguments: object) -> Outcome:
        """A command that has ended."""
        with self.start(*arguments) as process:
            out, err = process.communicate(timeout=250)
        return Outcome(process.wait(), out, err)


QUICK = Protocol(warmup=1, runs=3, min_time_ms=0.0, max_runs=1000, rounds=1, clock="wall", statistic="median")
"""A phone's own takes 0.3 s a layer."""


def make_table(path: Path, address: str, protocol: Protocol = QUICK) -> None:
    """An empty table of the phone there: `profile` and `search` go by a table's own protocol."""
    with get_device(address) as device:
        LatencyTable.create(path, device.identity, replace(protocol, timeout_s=60.0))


def table_lines(path: Path) -> list[tuple[str, int]]:
    """Key and round of every row, also of rows that later ones replace; a torn last line is none."""
    *whole, _ = path.read_text().split("\n")
    rows = [line.split("\t") for line in whole if not line.startswith("#")][1:]
    return [(cells[0], int(cells[1])) for cells in rows]
