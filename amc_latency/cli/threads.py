"""How torch's threads share the cores with other processes. Nothing here imports torch: it reads these settings once.

OpenMP's threads wait for each other at the end of every layer, and unless set they wait busily. On a machine that does
something else as well, a thread that only waits keeps the core from the one that it waits for: two threads then take
several times as long as one. Asleep, they don't, and no number changes: the same threads do the same sums.
"""

from __future__ import annotations

import math
import os
from collections.abc import MutableMapping
from pathlib import Path

WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Variables by which a user says how threads wait."""
CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
"""A container's own limit on cores, which OpenMP does not ask for."""


def share_cores(environ: MutableMapping[str, str] = os.environ, cpu_max: Path = CPU_MAX) -> None:
    """Let threads wait asleep, and start no more than the container may run at once; before torch is loaded.

    What the user has set is left.
    """
    if not any(name in environ for name in WAITING):
        environ["OMP_WAIT_POLICY"] = "passive"
    allowed = cores_allowed(cpu_max)
    if "OMP_NUM_THREADS" not in environ and allowed is not None and allowed < len(os.sched_getaffinity(0)):
        environ["OMP_NUM_THREADS"] = str(allowed)


def cores_allowed(cpu_max: Path = CPU_MAX) -> int | None:
    """Cores that a container's quota comes to, rounded up; None where there is no quota, or none can be read."""
    try:
        quota, period = cpu_max.read_text().split()
        return max(1, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        return None
