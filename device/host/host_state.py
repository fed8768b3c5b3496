"""What about this computer makes timings longer or unsteady, in lines for the user: limits, clock, power, load.

Read from Linux's own files; what cannot be read, or makes no sense, is unknown and nothing is said of it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from amc_latency.device.conditions import conditions_text
from amc_latency.device.host.host_cores import (
    core_file,
    core_kinds,
    kind_of,
    listed,
    names_in,
    number,
    read_number,
    read_text,
    siblings,
)

_MOVING = ("powersave", "ondemand", "conservative", "schedutil", "interactive")
"""Governors that follow the load."""
_BUSY_PCT = 30
"""From this share on other work on a core is said: the system counts in hundredths of a second."""
_LOOK_S = 0.1
_CGROUPS = "sys/fs/cgroup"
_NEW_MOUNTS = ("", "unified")
_OLD_MOUNTS = ("cpu", "cpu,cpuacct", "cpuacct,cpu")


@dataclass(frozen=True)
class HostConditions:
    """What is known of this computer while a row is timed; None is what the system does not say."""

    core: int | None = None
    """the core that is timed on"""
    core_kind: str | None = None
    """in a computer with several kinds, see `amc_latency.device.host.host_cores.CoreKind`"""
    governor: str | None = None
    khz: int | None = None
    """the core's frequency now"""
    turbo: bool | None = None
    quota_cores: float | None = None
    """how many cores' time the cgroup may use"""
    on_battery: bool | None = None

    @property
    def text(self) -> str:
        """One line of JSON without what is unknown."""
        return conditions_text(self)


@dataclass(frozen=True)
class HostState:
    """This computer right before a timing."""

    conditions: HostConditions
    lines: tuple[str, ...]
    """what the user should know of it; none where all is well"""


def host_state(
    cores: Sequence[int],
    threads: int = 1,
    workers: Sequence[int] = (),
    system: Path = Path("/"),
    wait: Callable[[], object] = lambda: time.sleep(_LOOK_S),
) -> HostState:
    """This computer as a device finds it that times `threads` threads on the last of `cores`, all that it may use.

    `workers` are the cores of all devices that time side by side: the last one's speaks of what concerns them all.
    `wait` passes between two looks at the load.
    """
    conditions = host_conditions(cores[-1] if cores else None, system)
    used = list(cores[-threads:]) if threads <= len(cores) else []
    lines: list[str | None] = []
    if not workers or workers[-1] == conditions.core:
        together = list(workers) or used
        lines += [
            _quota_line(conditions.quota_cores, max(threads, len(workers)), bool(workers)),
            _few_cores_line(cores, threads),
            _hyperthread_line(together, cores, bool(workers), system),
            _kind_line(together, cores, bool(workers), system),
            _governor_line(conditions, system),
            _limit_line(conditions, system),
            _turbo_line(conditions),
            _battery_line(conditions),
        ]
    lines.append(_load_line(used or cores, workers, system, wait))
    return HostState(conditions, tuple(line for line in lines if line is not None))


def host_conditions(core: int | None, system: Path = Path("/")) -> HostConditions:
    """What is known now of this computer, and of the core that is timed on."""
    conditions = HostConditions(turbo=turbo(system), quota_cores=quota_cores(system), on_battery=on_battery(system))
    if core is None:
        return conditions
    kind = kind_of(core, core_kinds(system))
    governor = read_text(core_file(system, core, "cpufreq/scaling_governor"))
    return replace(
        conditions,
        core=core,
        core_kind=None if kind is None else kind.name,
        governor=governor if re.fullmatch("[a-z_]{1,30}", governor) else None,
        khz=read_number(core_file(system, core, "cpufreq/scaling_cur_freq")) or None,
    )


def quota_cores(system: Path = Path("/")) -> float | None:
    """How many cores' time this process may use: the smallest quota of its cgroup and of those around it."""
    quotas: list[float] = []
    for line in read_text(system / "proc/self/cgroup").splitlines() or ["0::/", "0:cpu:/"]:
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if names and "cpu" not in names.split(","):
            continue
        quota_in = _old_quota if names else _new_quota
        for mount in _OLD_MOUNTS if names else _NEW_MOUNTS:
            quotas += [quota for folder in _folders(system / _CGROUPS / mount, path) if (quota := quota_in(folder))]
    return min(quotas, default=None)


def _folders(mount: Path, path: str) -> list[Path]:
    """The cgroup's folder and those above it; of one outside the container only the container's own."""
    parts = PurePosixPath(path).parts[1:]
    if ".." in parts or len(parts) > 100:
        return [mount]
    return [mount.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]


def _new_quota(folder: Path) -> float | None:
    match read_text(folder / "cpu.max").split():
        case [quota]:
            return _ratio(number(quota), 100_000)
        case [quota, period]:
            return _ratio(number(quota), number(period))
    return None


def _old_quota(folder: Path) -> float | None:
    return _ratio(read_number(folder / "cpu.cfs_quota_us"), read_number(folder / "cpu.cfs_period_us"))


def _ratio(quota_us: int | None, period_us: int | None) -> float | None:
    return quota_us / period_us if quota_us and period_us else None


def turbo(system: Path = Path("/")) -> bool | None:
    """Whether the CPU may exceed its nominal frequency."""
    no_turbo = read_number(system / "sys/devices/system/cpu/intel_pstate/no_turbo")
    if no_turbo is not None:
        return no_turbo == 0
    boost = read_number(system / "sys/devices/system/cpu/cpufreq/boost")
    return None if boost is None else boost != 0


def on_battery(system: Path = Path("/")) -> bool | None:
    """Whether this computer runs on its battery; None where it has no supply that says so."""
    folder = system / "sys/class/power_supply"
    plugged: list[bool] = []
    discharging: list[bool] = []
    for name in names_in(folder):
        kind = read_text(folder / name / "type")
        if kind == "Battery" and read_text(folder / name / "scope") != "Device":
            # A mouse's battery is of the scope Device.
            status = read_text(folder / name / "status")
            discharging += [status == "Discharging"] if status not in ("", "Unknown") else []
        elif kind in ("Mains", "USB"):
            online = read_number(folder / name / "online")
            # A laptop has several USB sockets, most of which supply nothing.
            plugged += [online > 0] if online is not None and (online or kind == "Mains") else []
    if any(plugged):
        return False
    return any(discharging) or bool(plugged) if discharging or plugged else None


def busy_pct(cores: Iterable[int], system: Path, wait: Callable[[], object]) -> dict[int, float]:
    """What share of each core's time went into work, or to other virtual machines, while `wait` passed."""
    before = _jiffies(system)
    cores = [core for core in cores if core in before]
    if not cores:
        return {}
    wait()
    after = _jiffies(system)
    found = {}
    for core in cores:
        work, whole = (now - then for now, then in zip(after.get(core, (0, 0)), before[core], strict=True))
        if 0 <= work <= whole and whole:
            found[core] = 100 * work / whole
    return found


def _jiffies(system: Path) -> dict[int, tuple[int, int]]:
    """Each core's time since the start: at work, and altogether."""
    found = {}
    for line in read_text(system / "proc/stat").splitlines():
        name, *cells = line.split() or [""]
        times = [number(cell) for cell in cells[:8]]
        if re.fullmatch("cpu[0-9]{1,5}", name) and len(times) >= 5:
            known = [each or 0 for each in times]
            # user, nice, system, idle, waiting for input and output, ..
            found[int(name[3:])] = (sum(known) - known[3] - known[4], sum(known))
    return found


def _quota_line(quota: float | None, threads: int, workers: bool) -> str | None:
    if quota is None or quota >= threads:
        return None
    what = "1 thread is timed" if threads == 1 else f"{threads} {'workers' if workers else 'threads'} are timed"
    judge = ", or judge by thread CPU time" if threads == 1 or workers else ""
    return (
        f"this container or cgroup may use {_share(quota)}, and {what}: the system stops them when that is used up. "
        f"Wall times include the waiting; thread CPU time does not. Allow {threads} or more (docker run --cpus "
        f"{threads}){judge}"
    )


def _share(quota: float) -> str:
    return f"{quota:.3g} of a core" if quota < 1 else "1 core" if quota == 1 else f"{quota:.3g} cores"


def _few_cores_line(cores: Sequence[int], threads: int) -> str | None:
    if not cores or threads <= len(cores):
        return None
    have = "1 core" if len(cores) == 1 else f"{len(cores)} cores"
    return (
        f"{threads} threads are timed and this process may use {have}: they are not pinned and wait for each other, so "
        f"timings are long and unsteady. Take at most {len(cores)}, or allow more cores (taskset, docker --cpuset-cpus)"
    )


def _hyperthread_line(used: Sequence[int], cores: Sequence[int], workers: bool, system: Path) -> str | None:
    shared = {core: siblings(core, system) & set(used) for core in used}
    groups = sorted({tuple(sorted(group)) for group in shared.values() if len(group) > 1})
    if not groups:
        return None
    which = "; ".join(" and ".join(map(str, group)) for group in groups)
    apart = len({siblings(core, system) for core in (*used, *cores)})
    return (
        f"cores {which} are hyper-threads of one core{'' if len(groups) == 1 else ' each'} and share its hardware: "
        f"timings are longer than on cores of their own. Take at most {apart} {_noun(apart, workers)}"
    )


def _noun(count: int, workers: bool) -> str:
    return ("worker" if workers else "thread") + ("" if count == 1 else "s")


def _kind_line(used: Sequence[int], cores: Sequence[int], workers: bool, system: Path) -> str | None:
    kinds = core_kinds(system)
    parts = [(kind, [core for core in used if core in kind.cores]) for kind in kinds]
    parts = [(kind, part) for kind, part in parts if part]
    if not parts:
        return None
    (kind, part), *others = parts
    if others:
        of = ", ".join(f"{listed(part)} ({kind.name})" for kind, part in parts)
        most = len(part)
        return (
            f"{'workers' if workers else 'threads'} are timed on cores of different speed: {of}. The slow ones hold up "
            f"the fast ones. Take at most {most} {_noun(most, workers)}"
        )
    is_timed = f"core {part[0]} is timed" if len(part) == 1 else f"cores {listed(part)} are timed"
    if kind == kinds[0]:
        rest = ", ".join(f"{listed(each.cores)} ({each.name})" for each in kinds[1:])
        return f"{is_timed} ({kind.name}); an app on the slower cores of this computer, {rest}, takes longer"
    faster = [core for each in kinds[: kinds.index(kind)] for core in each.cores]
    forbidden = set(faster).isdisjoint(cores)
    return f"{is_timed} ({kind.name}), which is slower than cores {listed(faster)} of this computer" + (
        ": this process may not use those. Allow it (taskset, docker --cpuset-cpus) to time the fastest"
        if forbidden
        else ": leave the choice of cores to the program to time the fastest"
    )


def _governor_line(conditions: HostConditions, system: Path) -> str | None:
    if conditions.core is None or conditions.governor not in _MOVING:
        return None
    low, high = (
        read_number(core_file(system, conditions.core, f"cpufreq/cpuinfo_{end}_freq")) for end in ("min", "max")
    )
    between = f" between {_ghz(low)} and {_ghz(high)} GHz" if low and high else ""
    return (
        f"the governor {conditions.governor} moves the clock of core {conditions.core}{between} with the load: timings "
        "may wander. To hold it up: sudo cpupower frequency-set -g performance"
    )


def _limit_line(conditions: HostConditions, system: Path) -> str | None:
    if conditions.core is None:
        return None
    limit, high = (
        read_number(core_file(system, conditions.core, f"cpufreq/{name}_max_freq")) for name in ("scaling", "cpuinfo")
    )
    if not limit or not high or limit >= 0.95 * high:
        return None
    return (
        f"the clock of core {conditions.core} is limited to {_ghz(limit)} of {_ghz(high)} GHz: timings are longer than "
        f"at full speed. To lift that: sudo cpupower frequency-set -u {high}"
    )


def _ghz(khz: int) -> str:
    return f"{khz / 1e6:.2g}"


def _turbo_line(conditions: HostConditions) -> str | None:
    if conditions.turbo is not False:
        return None
    return (
        "turbo is switched off: timings are steadier, and longer than those of an app on a computer with it. Leave it "
        "so for all timings that you compare"
    )


def _battery_line(conditions: HostConditions) -> str | None:
    if not conditions.on_battery:
        return None
    return "this computer runs on battery, which holds its clock down: timings are longer and wander. Plug it in"


def _load_line(used: Sequence[int], workers: Sequence[int], system: Path, wait: Callable[[], object]) -> str | None:
    # The other hyper-thread of a core slows it just as well, unless it is another worker's, of which more is said.
    near = {other for core in used for other in siblings(core, system)} - set(workers)
    busy = busy_pct(sorted({*used, *near}), system, wait)
    over = sorted((-share, core) for core, share in busy.items() if share >= _BUSY_PCT)
    if not over:
        return None
    share, core = over[0]
    what = f"core {core}" if core in used else f"core {core}, a hyper-thread of a core that is timed,"
    return (
        f"{what} is {-share:.0f} % busy with other work: timings are longer and wander, wall times most. End that "
        "work, or wait for its end"
    )
