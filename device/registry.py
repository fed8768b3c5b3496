"""Devices by name: what stands after `device`, and what is there now."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from amc_latency.android_bench.state import PhoneInfo, PhoneState
from amc_latency.device.adb.transport import Transport, UnauthorizedError
from amc_latency.device.base import Device, DeviceError
from amc_latency.device.host.host import HostDevice, cpu_model, separate_cores
from amc_latency.device.phone.phone import PhoneOptions, read_info, read_state
from amc_latency.device.profiles import (
    ANY_PHONE,
    DeviceProfile,
    UnknownDeviceError,
    check_profile,
    profile_for,
    profiles,
    unknown_device,
)

if TYPE_CHECKING:
    from amc_latency.device.adb.adb import Attached

__all__ = [
    "AttachedPhone",
    "PhoneOptions",
    "UnknownDeviceError",
    "attached_phones",
    "check_name",
    "get_device",
    "get_devices",
    "known_devices",
    "unknown_device",
]

_ADDRESS = re.compile(r"\S+:[0-9]{1,5}")
_STATES = {
    "unauthorized": "unlock it and tap Allow, then run this again",
    "offline": "unplug it and plug it in again (in the network: `adb connect` again), or restart it",
    "no permissions": "this computer's user may not use it: see https://developer.android.com/studio/run/device",
}
"""What to do about a phone that is attached and does not answer, by what adb calls its state."""
_GLANCE_S = 5.0
"""A phone that takes longer to say what it is goes into the list without."""


def known_devices() -> dict[str, str]:
    """Every profile's name, and what it is for in a few words."""
    return {name: _words(profile) for name, profile in profiles().items()}


def get_device(name: str, options: PhoneOptions = PhoneOptions()) -> Device:
    """The device that `name` means: a profile, a phone's serial number or `host:port`, or `PROFILE@SERIAL`.

    Raises `UnknownDeviceError`, or `DeviceError` when it cannot be used: what is wrong and what to do.
    """
    if "," in name:
        raise DeviceError(f"`device` {name} is several phones, which only `amc-latency profile` takes")
    wanted, _, serial = name.partition("@")
    check_profile(wanted)
    profile = profiles().get(wanted)
    if profile is None:
        if serial:
            raise unknown_device(wanted, list(profiles()))
        return _open_serial(name, options)
    if profile.kind == "cuda":
        return _open_gpu(profile, serial)
    if profile.kind == "host":
        if serial:
            raise DeviceError(f"{wanted} is this computer and has no serial number: say `device={wanted}`")
        device = HostDevice()
        device.protocol = profile.protocol
        return device
    serial = serial or os.environ.get("ANDROID_SERIAL", "")
    return _open(_transport(serial or _the_phone(profile, options), options), profile, options)


def check_name(name: str) -> None:
    """Raise `UnknownDeviceError` where `name` means no device, and what `check_profile` raises; nothing is opened."""
    for part in name.split(","):
        wanted, _, serial = part.partition("@")
        check_profile(wanted)
        if wanted in profiles():
            continue
        if serial:
            raise unknown_device(wanted, list(profiles()))
        _check_serial(part)


def get_devices(name: str, options: PhoneOptions = PhoneOptions(), workers: int | None = None) -> dict[str, Device]:
    """All devices that `name` means, by what tells them apart.

    Every phone that could be a profile's, or those of a list, `A,B`, by serial number; cores of this computer, one
    unless set, by number. With `workers`, so many of them. Raises as `get_device`, and `DeviceError` for too few.
    """
    names = {part.partition("@")[2] or part: part for part in name.split(",")}
    profile = profiles().get(name)
    if profile is not None and profile.kind == "host" and workers not in (None, 1):
        cores = separate_cores(workers or 1)
        devices: dict[str, Device] = {f"core {core}": HostDevice(core, cores) for core in cores}
        for device in devices.values():
            device.protocol = profile.protocol
        return devices
    if profile is not None and profile.kind == "android" and not os.environ.get("ANDROID_SERIAL"):
        names = {serial: f"{name}@{serial}" for serial in _phones(profile, options)}
    if len(names) < name.count(",") + 1:
        raise DeviceError(f"`device` {name} names a phone twice")
    if workers is not None and workers > len(names):
        raise DeviceError(f"{workers} workers, and `device` {name} means {len(names)}: {', '.join(names)}")
    kinds = {found.kind for part in names.values() if (found := profiles().get(part.partition("@")[0])) is not None}
    if len(names) > 1 and not kinds <= {"android"}:
        raise DeviceError(f"`device` {name}: only phones are listed, as PROFILE@SERIAL,PROFILE@SERIAL")
    with ExitStack() as stack:
        devices = {}
        for label, each in list(names.items())[:workers]:
            devices[label] = get_device(each, options)
            stack.callback(devices[label].close)
        stack.pop_all()
    return devices


@dataclass(frozen=True)
class AttachedPhone:
    """A phone that is attached, and what it says of itself; None is what it does not say."""

    serial: str
    state: str
    """`device`, or what stands in the way: `unauthorized`, `offline`, ..."""
    via: str
    profile: str | None = None
    """the profile that recognises it"""
    info: PhoneInfo | None = None
    now: PhoneState | None = None
    problem: str | None = None
    """why it says nothing"""


def attached_phones(addresses: Iterable[str] = ()) -> list[AttachedPhone]:
    """What is attached now and at `addresses` (`host:port`), each asked in turn what it is; never raises `DeviceError`.

    A phone's own trouble is its `problem`; where this computer cannot look for phones, that is a line of its own.
    """
    from amc_latency.device.adb.adb import attached

    failed = []
    try:
        found: list[tuple[str, str, str]] = [(phone.serial, phone.state, phone.via) for phone in attached()]
    except DeviceError as error:
        found, failed = [], [AttachedPhone("-", "not known", "-", problem=" ".join(str(error).split()))]
    seen = {serial for serial, *_ in found}
    found += [(address, "device", "address") for address in dict.fromkeys(addresses) if address not in seen]
    return [*failed, *(_asked(*each) for each in found)]


def _asked(serial: str, state: str, via: str) -> AttachedPhone:
    if state != "device":
        return AttachedPhone(serial, state, via, problem=_STATES.get(state, "it does not answer"))
    from amc_latency.device.adb.adb import open_transport

    try:
        transport = open_transport(serial, answer_s=_GLANCE_S)
        try:
            info = read_info(transport, _GLANCE_S)
            return AttachedPhone(serial, state, via, profile_for(info).name, info, read_state(transport, _GLANCE_S))
        finally:
            transport.close()
    except DeviceError as error:
        state = "unauthorized" if isinstance(error, UnauthorizedError) else "no answer"
        return AttachedPhone(serial, state, via, problem=" ".join(str(error).split()))


def _words(profile: DeviceProfile) -> str:
    if profile.kind == "host":
        return f"{profile.title}: {cpu_model()}"
    return profile.title


def _open_gpu(profile: DeviceProfile, index: str) -> Device:
    """CUDA's GPU of this number, the first if there is none."""
    from amc_latency.device.gpu.cuda import CudaDevice

    if index and not index.isdecimal():
        raise DeviceError(f"a GPU goes by its number, as `device={profile.name}@1`, not '{index}'")
    return CudaDevice(profile, int(index or 0))


def _check_serial(name: str) -> None:
    from amc_latency.device.adb.adb import attached

    if not _ADDRESS.fullmatch(name):
        try:
            serials = [phone.serial for phone in attached()]
        except DeviceError:
            serials = []
        if name not in serials:
            raise unknown_device(name, [*profiles(), *serials])


def _open_serial(name: str, options: PhoneOptions) -> Device:
    """A phone by its serial number or address, with the profile that recognises it."""
    _check_serial(name)
    transport = _transport(name, options)
    return _open(transport, None, options)


def _the_phone(profile: DeviceProfile, options: PhoneOptions) -> str:
    """The one phone attached that the profile means."""
    serials = _phones(profile, options)
    if len(serials) > 1:
        raise DeviceError(
            f"several phones could be {profile.name}: {', '.join(serials)}. Say which, as "
            f"`device={profile.name}@{serials[0]}` or in ANDROID_SERIAL"
        )
    return serials[0]


def _phones(profile: DeviceProfile, options: PhoneOptions) -> list[str]:
    """The phones attached that the profile may mean, at least one."""
    from amc_latency.device.adb.adb import attached
    from amc_latency.device.adb.adb_server import server_phones

    phones = attached()
    if options.transport == "server":
        server_phones()  # says so if there is none
    ready = [phone for phone in phones if phone.state == "device"]
    if not ready:
        raise _none_ready(phones)
    if len(ready) > 1 and profile.match.strictness:
        matching = [phone for phone in ready if profile.match.matches(_info_of(phone.serial, options))]
        if not matching and not options.force:
            serials = ", ".join(phone.serial for phone in ready)
            raise DeviceError(
                f"none of the attached phones ({serials}) is {profile.title}: see `amc-latency devices`, or insist "
                f"with `device={profile.name}@{ready[0].serial}` and `force`"
            )
        ready = matching or ready
    return [phone.serial for phone in ready]


def _none_ready(phones: Iterable[Attached]) -> DeviceError:
    for phone in phones:
        what = f"{phone.serial} is {phone.state}: {_STATES.get(phone.state, 'see `amc-latency devices`')}"
        return UnauthorizedError(what) if phone.state == "unauthorized" else DeviceError(what)
    return DeviceError(
        "no phone is attached: plug one in with USB debugging on (Settings, Developer options), or name its address, "
        "`device=HOST:PORT`"
    )


def _info_of(serial: str, options: PhoneOptions) -> PhoneInfo:
    transport = _transport(serial, options)
    try:
        return read_info(transport)
    finally:
        transport.close()


def _transport(serial: str, options: PhoneOptions) -> Transport:
    from amc_latency.device.adb.adb import open_transport

    return open_transport(serial, options.transport)


def _open(transport: Transport, profile: DeviceProfile | None, options: PhoneOptions) -> Device:
    """The device at the other end, with the profile that recognises it unless one is given, which it must match."""
    from amc_latency.device.phone.android import AndroidDevice

    try:
        info = read_info(transport)
        recognised = profile_for(info)
        profile = profile or recognised
        if not profile.match.matches(info) and not options.force:
            better = "" if recognised.name == ANY_PHONE else f", which is {recognised.name}"
            raise DeviceError(
                f"{transport.serial} is {info.title}{better}, and not {profile.title}: say "
                f"`device={recognised.name}`, or insist with `force`"
            )
        return AndroidDevice.open(transport, profile, options)
    except BaseException:
        transport.close()
        raise
