"""How much memory may still be taken, as far as the system says."""

from __future__ import annotations

import re
from pathlib import Path


def available_bytes(root: Path = Path("/")) -> int | None:
    """Of the computer and of this process's container the smaller; None where neither says."""
    known = [found for found in (_of_computer(root), _of_container(root)) if found is not None]
    return min(known, default=None)


def _of_computer(root: Path) -> int | None:
    try:
        found = re.search(r"^MemAvailable: +(\d{1,15}) kB$", (root / "proc/meminfo").read_text(), re.MULTILINE)
    except (OSError, ValueError):
        return None
    return None if found is None else 1024 * int(found[1])


def _of_container(root: Path) -> int | None:
    """By cgroup 2, then by the one before it."""
    folder = root / "sys/fs/cgroup"
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            return max(0, int((folder / limit).read_text()) - int((folder / used).read_text()))
        except (OSError, ValueError):
            # `max` is no limit.
            continue
    return None
