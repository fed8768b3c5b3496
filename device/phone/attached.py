"""Phones that are attached or have an address: which one a name means, what each says of itself, and opening one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from amc_latency.android_bench.phone.state import PhoneInfo, PhoneState
from amc_latency.device.adb.transport import Transport, UnauthorizedError
from amc_latency.device.base import Device, DeviceError
from amc_latency.device.kinds import DeviceProfile, Openers, PhoneOptions
from amc_latency.device.phone.phone import read_info, read_state
from amc_latency.device.profiles import ANY_PHONE, profile_for, profiles, unknown_device

if TYPE_CHECKING:
    from amc_latency.device.adb.adb import Attached

_ADDRESS = re.compile(r"\S+:[0-9]{1,5}")
_STATES = {
    "unauthorized": "unlock it and tap Allow, then run this again",
    "offline": "unplug it and plug it in again (in the network: `adb connect` again), or restart it",
    "no permissions": "this computer's user may not use it: see https://developer.android.com/studio/run/device",
}
"""What to do about a phone that is attached and does not answer, by what adb calls its state."""
_GLANCE_S = 5.0
"""A phone that takes longer to say what it is goes into the list without."""


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


def check_serial(name: str) -> None:
    """Raise `UnknownDeviceError` for a name that is no address and no serial number of a phone that is attached."""
    from amc_latency.device.adb.adb import attached

    if not _ADDRESS.fullmatch(name):
        try:
            serials = [phone.serial for phone in attached()]
        except DeviceError:
            serials = []
        if name not in serials:
            raise unknown_device(name, [*profiles(), *serials])


def open_serial(name: str, options: PhoneOptions) -> Device:
    """A phone by its serial number or address, with the profile that recognises it."""
    check_serial(name)
    transport = _transport(name, options)
    return _open(transport, None, options)


def open_phone(profile: DeviceProfile, which: str, options: PhoneOptions) -> Device:
    """The phone that `which`, a serial number or an address, or else ANDROID_SERIAL or the profile means."""
    serial = which or os.environ.get("ANDROID_SERIAL", "")
    return _open(_transport(serial or _the_phone(profile, options), options), profile, options)


def openers(profile: DeviceProfile, options: PhoneOptions, wanted: int | None) -> Openers | None:
    """Every phone that could be the profile's, by serial number; None where ANDROID_SERIAL says which."""
    if os.environ.get("ANDROID_SERIAL"):
        return None
    return {serial: partial(open_phone, profile, serial, options) for serial in _phones(profile, options)}


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
