"""What `nvidia-smi` says of a GPU: clocks, temperature, what slows it, who else computes on it."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from amc_latency.device.base import DeviceError
from amc_latency.device.conditions import conditions_text

_FIELDS = (
    "uuid",
    "driver_version",
    "clocks.sm",
    "clocks.mem",
    "temperature.gpu",
    "utilization.gpu",
    "mig.mode.current",
    "clocks_event_reasons.active",
)
_OLDER_REASONS = "clocks_throttle_reasons.active"
"""What the last field is called before driver 535."""
_REASONS = {
    0x1: "idle",
    0x2: "clocks set by the user",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
    0x100: "display clocks",
}
"""Of nvml.h, nvmlClocksEventReason*."""
_IDLE, _SET, _DISPLAY = "idle", "clocks set by the user", "display clocks"
_ANSWER_S = 20.0
BUSY_PCT = 5
LOOK_AGAIN_S = 1.5
"""After this the driver's figure, of the last second, is not of what was done before."""
"""From this utilization on, a process that holds the GPU also computes on it."""


@dataclass(frozen=True)
class GpuState:
    """A GPU at one moment; None is what it does not say."""

    uuid: str
    driver: str
    sm_mhz: int | None
    memory_mhz: int | None
    temperature_c: int | None
    utilization_pct: int | None
    mig: bool
    """whether it is divided into several small ones"""
    reasons: tuple[str, ...]
    """why its clocks are not higher"""

    @property
    def slowed_by(self) -> tuple[str, ...]:
        """What holds its clocks down that is neither a setting nor idleness."""
        return tuple(reason for reason in self.reasons if reason not in (_IDLE, _SET, _DISPLAY))


@dataclass(frozen=True)
class GpuProcess:
    """A process that has memory of the GPU to compute with."""

    pid: int
    name: str


@dataclass(frozen=True)
class GpuConditions:
    """What one row was measured under: kept with it, see `amc_latency.device.conditions`."""

    serial: str | None
    """the GPU's UUID"""
    driver: str | None
    flags: str
    """how runs were launched"""
    sm_mhz: tuple[int | None, ...]
    """before and after, as the next three"""
    memory_mhz: tuple[int | None, ...]
    temperature_c: tuple[int | None, ...]
    clocks_set: bool | None
    """whether the user holds the clocks at a value of their own"""
    suspect: tuple[str, ...]
    """why the row cannot be trusted"""
    time_s: int | None = None
    sentinel_us: float | None = None
    """the sentinel network as it was timed last, in the same round"""

    @property
    def text(self) -> str:
        """One line of JSON without what is unknown or empty."""
        return conditions_text(self)


def conditions_of(
    states: Sequence[GpuState],
    how: str,
    graph: bool,
    others: Sequence[GpuProcess],
    serial: str | None,
    sentinel_us: float | None = None,
    doubts: Sequence[str] = (),
) -> GpuConditions:
    """The conditions of a row from the states before, during and after it."""
    slowed = dict.fromkeys(reason for state in states for reason in state.slowed_by)
    suspect = [*doubts, *(f"slowed by {reason}" for reason in slowed)]
    suspect += [f"shared with {other.name} ({other.pid})" for other in others]
    if not graph:
        suspect.append("launched without a CUDA graph")
    ends = (states[0], states[-1]) if states else ()
    return GpuConditions(
        serial=serial,
        driver=states[-1].driver if states else None,
        flags=how,
        sm_mhz=tuple(state.sm_mhz for state in ends),
        memory_mhz=tuple(state.memory_mhz for state in ends),
        temperature_c=tuple(state.temperature_c for state in ends),
        clocks_set=any(_SET in state.reasons for state in states) if states else None,
        suspect=tuple(suspect),
        time_s=int(time.time()),
        sentinel_us=None if sentinel_us is None else round(sentinel_us, 2),
    )


def parse_state(line: str) -> GpuState:
    """A line of `--query-gpu=... --format=csv,noheader,nounits`. Raises `ValueError`."""
    uuid, driver, sm, memory, celsius, busy, mig, reasons = map(str.strip, line.split(","))
    active = int(reasons, 16) if reasons.startswith("0x") else 0
    named = tuple(name for bit, name in _REASONS.items() if active & bit)
    return GpuState(
        uuid, driver, _number(sm), _number(memory), _number(celsius), _number(busy), mig == "Enabled", named
    )


def _number(cell: str) -> int | None:
    """None for `[N/A]`, `[Not Supported]`, `[Unknown Error]` and the like."""
    return int(cell) if cell.isdecimal() else None


def parse_processes(text: str) -> list[GpuProcess]:
    """The lines of `--query-compute-apps=pid,process_name --format=csv,noheader`; a name may hold commas."""
    found = []
    for line in text.splitlines():
        pid, _, name = line.partition(",")
        if pid.strip().isdecimal():
            found.append(GpuProcess(int(pid), name.strip()))
    return found


class NvidiaSmi:
    """Asks `nvidia-smi` about the GPU with this UUID."""

    def __init__(self, uuid: str) -> None:
        self._uuid = uuid
        self._fields = _FIELDS

    def state(self) -> GpuState:
        """The GPU now. Raises `DeviceError` where there is no answer, or one that makes no sense."""
        try:
            text = self._ask(f"--query-gpu={','.join(self._fields)}", "--format=csv,noheader,nounits")
        except DeviceError:
            if self._fields[-1] == _OLDER_REASONS:
                raise
            self._fields = (*_FIELDS[:-1], _OLDER_REASONS)
            return self.state()
        try:
            return parse_state(text.strip())
        except ValueError as error:
            raise DeviceError(f"nvidia-smi says what is no state of a GPU: {text.strip()[:200]!r}") from error

    def processes(self) -> list[GpuProcess]:
        """Who holds memory to compute with; in a container often nobody is shown. Raises `DeviceError`."""
        return parse_processes(self._ask("--query-compute-apps=pid,process_name", "--format=csv,noheader"))

    def _ask(self, *arguments: str) -> str:
        try:
            done = subprocess.run(
                ["nvidia-smi", f"--id={self._uuid}", *arguments], capture_output=True, text=True, timeout=_ANSWER_S
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DeviceError(f"nvidia-smi does not answer: {error}") from error
        if done.returncode:
            said = " ".join((done.stdout + done.stderr).split())[:200]
            raise DeviceError(f"nvidia-smi failed with {done.returncode}: {said}")
        return done.stdout


class GpuWatch:
    """Looks at the GPU every second while workloads are timed; where it does not answer, nothing is known."""

    def __init__(self, smi: NvidiaSmi | None, every_s: float = 1.0) -> None:
        self._smi = smi
        self._every_s = every_s
        self._seen: list[tuple[float, GpuState]] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)

    def __enter__(self) -> Self:
        if self._look():
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        if self._thread.is_alive():
            self._thread.join()

    def since(self, began_s: float) -> list[GpuState]:
        """The states from the last before `began_s` (of `time.monotonic`) until now."""
        seen = list(self._seen)
        before = [each for each in seen if each[0] <= began_s][-1:]
        after = [each for each in seen if each[0] > began_s]
        return [state for _, state in (*before, *after)]

    def _look_on(self) -> None:
        while not self._done.wait(self._every_s):
            self._look()
            # A round may take an hour, a workload a minute or two.
            del self._seen[:-300]

    def _look(self) -> bool:
        if self._smi is None:
            return False
        try:
            self._seen.append((time.monotonic(), self._smi.state()))
        except DeviceError:
            return False
        return True
