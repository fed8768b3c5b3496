"""What is asked of a phone before and while it is timed, and the settings that are changed meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from amc_latency.android_bench.phone.settings import (
    FormerSettings,
    parse_prepared,
    parse_restored,
    prepare_command,
    restore_command,
)
from amc_latency.android_bench.phone.state import (
    INFO_COMMAND,
    STATE_COMMAND,
    TOPOLOGY_COMMAND,
    Core,
    PhoneInfo,
    PhoneState,
    Topology,
    parse_info,
    parse_state,
    parse_topology,
    parse_values,
    values_command,
)
from amc_latency.android_bench.runner import ParseError
from amc_latency.device.adb.transport import Transport
from amc_latency.device.base import DeviceError
from amc_latency.device.kinds import DeviceProfile
from amc_latency.device.phone.trust import wait_until_cool

T = TypeVar("T")
DEFAULT_FOLDER = "/data/local/tmp"
"""Where the shell's user may write and start programs."""
_ANSWER_S = 30.0


def read_info(transport: Transport, timeout_s: float = _ANSWER_S) -> PhoneInfo:
    """What the phone is. Raises `DeviceError`."""
    return _read(transport, INFO_COMMAND, parse_info, timeout_s)


def read_topology(transport: Transport, timeout_s: float = _ANSWER_S) -> Topology:
    """The phone's cores. Raises `DeviceError`."""
    return _read(transport, TOPOLOGY_COMMAND, parse_topology, timeout_s)


def read_state(transport: Transport, timeout_s: float = _ANSWER_S) -> PhoneState:
    """How the phone does just now. Raises `DeviceError`."""
    return _read(transport, STATE_COMMAND, parse_state, timeout_s)


def cores_of(
    profile: DeviceProfile, topology: Topology, threads: int | None = None, force: bool = False
) -> tuple[int, ...]:
    """The cores that timings are pinned to; none if the phone does not say which it has.

    Raises `DeviceError` if the profile names a core that is not there, or for more threads (the profile's unless set)
    than there are cores: they would wait for each other. Unless `force`, also if the profile names none and some core
    is offline: it may be one of the fastest.
    """
    threads = threads or profile.protocol.threads
    online = tuple(core.number for core in topology.cores)
    if not online:
        return ()
    if topology.offline and profile.cores in ("fastest", "all") and not force:
        one = len(topology.offline) == 1
        raise DeviceError(
            f"{'core' if one else 'cores'} {_numbers(topology.offline)} of the phone {'is' if one else 'are'} offline, "
            "and may be the fastest: wake the phone, switch battery saving off, or name `cores` in the profile; "
            f"`force` times on the others ({_numbers(online)})"
        )
    if profile.cores == "fastest":
        cores, which = topology.clusters[0].cores, "fastest cluster"
    elif profile.cores == "all":
        cores, which = online, "phone"
    else:
        cores, which = profile.cores, f"list of the profile {profile.name}"
        gone = [core for core in cores if core not in online]
        if gone:
            raise DeviceError(
                f"the profile {profile.name} times on core {gone[0]}, which is not online: the phone has "
                f"{_numbers(online)}. Switch battery saving off, or change `cores` in the profile"
            )
    if threads > len(cores):
        raise DeviceError(
            f"{threads} threads need {threads} cores, and the {which} has {len(cores)} ({_numbers(cores)}): use "
            f"`threads={len(cores)}`, or name more `cores` in the profile"
        )
    return cores


class Preparation:
    """A phone's settings while it is timed: at a speed that it can keep up, with a screen that, if it is on, stays on.

    A screen that is off is not switched on. Nothing needs root.
    """

    def __init__(self, transport: Transport, info: PhoneInfo) -> None:
        self._transport = transport
        self._sdk = info.sdk
        self._record = f"{info.temporary or DEFAULT_FOLDER}/amc-latency.settings"
        self._former: FormerSettings | None = None

    def apply(self) -> None:
        """Change the settings; harmless when done twice. Raises `DeviceError`."""
        # Again even if they are changed already: a restart of the phone ends the fixed performance mode.
        now = _read(self._transport, prepare_command(self._sdk, self._record), parse_prepared, _ANSWER_S)
        was = self._former or now
        self._former = FormerSettings(was.stay_on or now.stay_on, was.fixed_performance or now.fixed_performance)

    def restore(self) -> None:
        """Put them back as they were; harmless when done twice. Raises `DeviceError` if that failed."""
        if self._former is None:
            return
        command = restore_command(self._former, self._record)
        now = _read(self._transport, command, parse_restored, _ANSWER_S)
        if now != self._former.stay_on:
            raise DeviceError(
                f"{self._transport.serial} did not take its setting back: stay_on_while_plugged_in is {now}, and was "
                f"{self._former.stay_on}"
            )
        self._former = None


class Phone:
    """A phone that was recognised: what it is, where on it timings run, and how it does.

    Raises `DeviceError` if it lacks what its profile asks for, or, unless `force`, if it has cores offline.
    """

    def __init__(self, transport: Transport, profile: DeviceProfile, force: bool = False) -> None:
        self.transport = transport
        self.profile = profile
        self.info = read_info(transport)
        if self.info.missing:
            raise DeviceError(
                f"{transport.serial} ({self.info.title}) lacks {', '.join(self.info.missing)}, which timing needs: "
                "Android has them since version 8"
            )
        if self.info.temporary is None:
            raise DeviceError(f"{transport.serial} ({self.info.title}) has no folder {DEFAULT_FOLDER}")
        self.folder = self.info.temporary
        self.topology = read_topology(transport)
        self.cores = cores_of(profile, self.topology, force=force)
        self.state_command = STATE_COMMAND
        self._preparation = Preparation(transport, self.info)
        self._allowed_khz: dict[int, int] = {}
        """by core: the most that the phone allowed at any `prepare`"""

    @property
    def title(self) -> str:
        """What the phone calls itself."""
        return self.info.title

    @property
    def frequency_files(self) -> tuple[str, ...]:
        """Files that say the pinned cores' frequencies; as many as `highest_khz`."""
        return tuple(core.cur_path for core in self._watched if core.cur_path)

    @property
    def highest_khz(self) -> tuple[int | None, ...]:
        """What counts as full speed for each core that a file of `frequency_files` belongs to.

        That is what the hardware can, or less if a power mode allows less (the fixed performance mode, battery saving).
        """
        known = [(core.max_khz, self._allowed_khz.get(core.number)) for core in self._watched]
        return tuple(min((khz for khz in both if khz), default=None) for both in known)

    @property
    def _watched(self) -> list[Core]:
        return [core for core in self.topology.cores if core.number in self.cores and core.cur_path]

    def prepare(self) -> None:
        """Change the phone's settings for timing, until `settle`, and see what speed they allow.

        The screen is left as it is. Raises `DeviceError`.
        """
        self._preparation.apply()
        limits = {core.number: core.limit_path for core in self._watched if core.limit_path}
        parse = partial(parse_values, count=len(limits))
        values = _read(self.transport, values_command(limits.values()), parse, _ANSWER_S) if limits else []
        # The highest of all: throttling lowers the limit too, and must not pass for full speed later.
        for number, khz in zip(limits, values, strict=True):
            self._allowed_khz[number] = max(khz or 0, self._allowed_khz.get(number, 0))

    def settle(self) -> None:
        """Put the settings back, as far as the phone is there; the next session restores those of one that is gone."""
        with suppress(DeviceError):
            self._preparation.restore()

    def read_state(self) -> PhoneState:
        """How the phone does just now. Raises `DeviceError`."""
        return read_state(self.transport)

    def wait_until_cool(self, say: Callable[[str], object]) -> bool:
        """Wait until the phone may be timed; False if it is no cooler at the profile's time limit."""
        return wait_until_cool(self.read_state, self.profile.trust, self.profile.cool_down, say)

    def close(self) -> None:
        """Restore the settings and let go of the phone; harmless when done twice."""
        self.settle()
        self.transport.close()


def _read(transport: Transport, command: str, parse: Callable[[str], T], timeout_s: float) -> T:
    output = transport.run(command, timeout_s).output
    try:
        return parse(output)
    except ParseError as error:
        raise DeviceError(f"{transport.serial} cannot be understood: {error}") from error


def _numbers(cores: tuple[int, ...]) -> str:
    return ", ".join(map(str, cores))
