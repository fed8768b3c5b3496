"""Devices by name: what stands after `--device`, and what is there now."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from android_bench.state import PhoneInfo, PhoneState
from device.base import Device, DeviceError
from device.host import HostDevice, cpu_model
from device.phone import PhoneOptions, read_info, read_state
from device.profiles import ANY_PHONE, DeviceProfile, UnknownDeviceError, profile_for, profiles, unknown_device
from device.transport import Transport, UnauthorizedError

if TYPE_CHECKING:
    from device.adb import Attached

__all__ = [
    "AttachedPhone",
    "PhoneOptions",
    "UnknownDeviceError",
    "attached_phones",
    "get_device",
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
    wanted, _, serial = name.partition("@")
    profile = profiles().get(wanted)
    if profile is None:
        if serial:
            raise unknown_device(wanted, list(profiles()))
        return _open_serial(name, options)
    if profile.kind == "cuda":
        raise DeviceError(f"timing on a GPU is not there yet: {name} cannot be used")
    if profile.kind == "host":
        if serial:
            raise DeviceError(f"{wanted} is this computer and has no serial number: say --device {wanted}")
        device = HostDevice()
        device.protocol = profile.protocol
        return device
    serial = serial or os.environ.get("ANDROID_SERIAL", "")
    transport = _transport(serial, options) if serial else _the_phone(profile, options)
    return _open(transport, profile, options)


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
    from device.adb import attached

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
    from device.adb import open_transport

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
    if profile.kind == "cuda":
        return f"{profile.title} (timing on a GPU is not there yet)"
    return profile.title


def _open_serial(name: str, options: PhoneOptions) -> Device:
    """A phone by its serial number or address, with the profile that recognises it."""
    from device.adb import attached

    if not _ADDRESS.fullmatch(name):
        try:
            serials = [phone.serial for phone in attached()]
        except DeviceError:
            serials = []
        if name not in serials:
            raise unknown_device(name, [*profiles(), *serials])
    transport = _transport(name, options)
    return _open(transport, None, options)


def _the_phone(profile: DeviceProfile, options: PhoneOptions) -> Transport:
    """The one phone attached that the profile means."""
    from device.adb import attached
    from device.adb_server import server_phones

    phones = attached()
    if options.transport == "server":
        server_phones()  # says so if there is none
    ready = [phone for phone in phones if phone.state == "device"]
    if not ready:
        raise _none_ready(phones)
    if len(ready) == 1:
        return _transport(ready[0].serial, options)
    if profile.match.strictness:
        matching = [phone for phone in ready if profile.match.matches(_info_of(phone.serial, options))]
        if len(matching) == 1:
            return _transport(matching[0].serial, options)
        if not matching and not options.force:
            serials = ", ".join(phone.serial for phone in ready)
            raise DeviceError(
                f"none of the attached phones ({serials}) is {profile.title}: see `amc-latency devices`, or insist "
                f"with --device {profile.name}@{ready[0].serial} --force"
            )
        ready = matching or ready
    raise DeviceError(
        f"several phones could be {profile.name}: {', '.join(phone.serial for phone in ready)}. Say which, as "
        f"--device {profile.name}@{ready[0].serial} or in ANDROID_SERIAL"
    )


def _none_ready(phones: Iterable[Attached]) -> DeviceError:
    for phone in phones:
        what = f"{phone.serial} is {phone.state}: {_STATES.get(phone.state, 'see `amc-latency devices`')}"
        return UnauthorizedError(what) if phone.state == "unauthorized" else DeviceError(what)
    return DeviceError(
        "no phone is attached: plug one in with USB debugging on (Settings, Developer options), or name its address, "
        "--device HOST:PORT"
    )


def _info_of(serial: str, options: PhoneOptions) -> PhoneInfo:
    transport = _transport(serial, options)
    try:
        return read_info(transport)
    finally:
        transport.close()


def _transport(serial: str, options: PhoneOptions) -> Transport:
    from device.adb import open_transport

    return open_transport(serial, options.transport)


def _open(transport: Transport, profile: DeviceProfile | None, options: PhoneOptions) -> Device:
    """The device at the other end, with the profile that recognises it unless one is given, which it must match."""
    from device.android import AndroidDevice

    try:
        info = read_info(transport)
        recognised = profile_for(info)
        profile = profile or recognised
        if not profile.match.matches(info) and not options.force:
            better = "" if recognised.name == ANY_PHONE else f", which is {recognised.name}"
            raise DeviceError(
                f"{transport.serial} is {info.title}{better}, and not {profile.title}: say --device "
                f"{recognised.name}, or insist with --force"
            )
        return AndroidDevice.open(transport, profile, options)
    except BaseException:
        transport.close()
        raise
