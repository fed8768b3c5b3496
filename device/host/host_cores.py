"""This computer's cores as the system describes them: fast and slow kinds, hyper-threads, and which to time on.

What cannot be read, or makes no sense, is unknown: nothing here raises.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_CPUS = "sys/devices/system/cpu"
_ALIKE = 0.85
"""A core with less than this share of another's speed is of another kind; the favoured cores of a turbo are not."""
_MOST_CORES = 1 << 16
_NAMES = {2: ("fast", "slow"), 3: ("fast", "middle", "slow")}


@dataclass(frozen=True)
class CoreKind:
    """Cores of one speed, in a computer that has others too."""

    name: str
    """e.g. `P-core`, `slow`"""
    cores: tuple[int, ...]


def core_file(system: Path, core: int, name: str) -> Path:
    """A file of the system's that describes `core`."""
    return system / _CPUS / f"cpu{core}" / name


def read_text(path: Path) -> str:
    """The file's text without white space around it; empty where there is none."""
    try:
        return path.read_text(errors="replace").strip()
    except (OSError, ValueError):
        return ""


def read_number(path: Path) -> int | None:
    """The file's one whole number, zero or more; None for anything else."""
    return number(read_text(path))


def number(text: str) -> int | None:
    """A whole number, zero or more; None for anything else."""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def names_in(folder: Path) -> list[str]:
    """What lies in the folder, sorted; nothing where it cannot be read."""
    try:
        return sorted(os.listdir(folder))
    except (OSError, ValueError):
        return []


def core_list(text: str) -> list[int]:
    """The cores of a list as the system writes it, `0-3,8`; empty for what is no such list."""
    cores: set[int] = set()
    for part in text.split(","):
        found = re.fullmatch(r"([0-9]{1,6})(?:-([0-9]{1,6}))?", part.strip())
        if found is None:
            return []
        first, last = int(found[1]), int(found[2] or found[1])
        cores.update(range(first, min(last, _MOST_CORES) + 1))
    return sorted(cores)


def listed(cores: Iterable[int]) -> str:
    """Cores as a list with ranges: `0-3, 8`."""
    runs: list[list[int]] = []
    for core in sorted(cores):
        if runs and core == runs[-1][-1] + 1:
            runs[-1].append(core)
        else:
            runs.append([core])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def siblings(core: int, system: Path = Path("/")) -> frozenset[int]:
    """The hyper-threads of the core to which `core` belongs, itself among them."""
    return frozenset({core, *core_list(read_text(core_file(system, core, "topology/thread_siblings_list")))})


def core_kinds(system: Path = Path("/")) -> list[CoreKind]:
    """The kinds of cores in this computer, the fastest first; none where all are alike or nothing is known."""
    present = [int(name[3:]) for name in names_in(system / _CPUS) if re.fullmatch("cpu[0-9]{1,5}", name)]
    big, small = (core_list(read_text(system / f"sys/devices/cpu_{name}/cpus")) for name in ("core", "atom"))
    speeds = _speeds(present, system)
    if big and small:
        groups = [big, *_alike({core: speeds.get(core, 0) for core in small if core not in big})]
        names = ["P-core", "E-core", *["low-power E-core"] * len(groups)]
    else:
        groups = _alike(speeds)
        names = list(_NAMES.get(len(groups), [f"speed {place}" for place in range(1, len(groups) + 1)]))
    if len(groups) < 2:
        return []
    return [CoreKind(name, tuple(sorted(group))) for name, group in zip(names, groups, strict=False)]


def _alike(speeds: Mapping[int, int]) -> list[list[int]]:
    """Cores in groups of about one speed, the fastest first."""
    groups: list[list[int]] = []
    for core in sorted(speeds, key=lambda core: -speeds[core]):
        if groups and speeds[core] >= _ALIKE * speeds[groups[-1][0]]:
            groups[-1].append(core)
        else:
            groups.append([core])
    return groups


def kind_of(core: int, kinds: Iterable[CoreKind]) -> CoreKind | None:
    """The kind to which `core` belongs."""
    return next((kind for kind in kinds if core in kind.cores), None)


def timing_order(allowed: Iterable[int], system: Path = Path("/"), named: int | None = None) -> list[int]:
    """The cores in the order in which they should be timed on, the best last.

    That is the `named` one, or else the last of the fastest kind. Second hyper-threads of a core come first.
    """
    rank = {core: place for place, kind in enumerate(core_kinds(system)) for core in kind.cores}
    best_first = sorted(allowed, key=lambda core: (core != named, rank.get(core, len(rank)), -core))
    taken: set[int] = set()
    apart: list[int] = []
    second: list[int] = []
    for core in best_first:
        (second if core in taken else apart).append(core)
        taken |= siblings(core, system)
    return [*apart, *second][::-1]


def _speeds(cores: Iterable[int], system: Path) -> dict[int, int]:
    """Each core's speed in a unit of the system's; empty where they hardly differ."""
    cores = list(cores)
    for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        found = {core: read_number(core_file(system, core, name)) for core in cores}
        speeds = {core: speed for core, speed in found.items() if speed}
        if speeds and min(speeds.values()) < _ALIKE * max(speeds.values()):
            return speeds
    return {}
