"""Devices by name: what stands after `device`."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from amc_latency.device.base import Device, DeviceError
from amc_latency.device.kinds import KINDS, Openers, PhoneOptions
from amc_latency.device.phone.attached import check_serial, open_serial
from amc_latency.device.profiles import check_profile, profiles, unknown_device


def known_devices() -> dict[str, str]:
    """Every profile's name, and what it is for in a few words."""
    return {name: KINDS[profile.kind].title(profile) for name, profile in profiles().items()}


def get_device(name: str, options: PhoneOptions = PhoneOptions()) -> Device:
    """The device that `name` means: a profile, a phone's serial number or `host:port`, or `PROFILE@SERIAL`.

    Raises `UnknownDeviceError`, or `DeviceError` when it cannot be used: what is wrong and what to do.
    """
    if "," in name:
        raise DeviceError(f"`device` {name} is several phones, which only `amc-latency profile` takes")
    wanted, _, which = name.partition("@")
    check_profile(wanted)
    profile = profiles().get(wanted)
    if profile is None:
        if which:
            raise unknown_device(wanted, list(profiles()))
        return open_serial(name, options)
    return KINDS[profile.kind].open(profile, which, options)


def check_name(name: str) -> None:
    """Raise `UnknownDeviceError` where `name` means no device, and what `check_profile` raises; nothing is opened."""
    for part in name.split(","):
        wanted, _, which = part.partition("@")
        check_profile(wanted)
        if wanted in profiles():
            continue
        if which:
            raise unknown_device(wanted, list(profiles()))
        check_serial(part)


def is_phone(name: str) -> bool:
    """Whether `name` means a phone, or several: by its profile, or because no profile is called so."""
    named = [profiles().get(part.partition("@")[0]) for part in name.split(",")]
    return all(profile is None or KINDS[profile.kind].is_phone for profile in named)


def has_several(name: str) -> bool:
    """Whether `name` may mean several devices, which can be timed on at once."""
    profile = profiles().get(name)
    return profile is None or KINDS[profile.kind].several is not None


def get_devices(name: str, options: PhoneOptions = PhoneOptions(), workers: int | None = None) -> dict[str, Device]:
    """All devices that `name` means, by what tells them apart.

    Every phone that could be a profile's, or those of a list, `A,B`, by serial number; cores of this computer, one
    unless set, by number. With `workers`, so many of them. Raises as `get_device`, and `DeviceError` for too few.
    """
    parts = name.split(",")
    openers: Openers = {part.partition("@")[2] or part: partial(get_device, part, options) for part in parts}
    profile = profiles().get(name)
    if profile is not None:
        openers = KINDS[profile.kind].openers(profile, options, workers) or openers
    if len(openers) < len(parts):
        raise DeviceError(f"`device` {name} names a phone twice")
    if workers is not None and workers > len(openers):
        raise DeviceError(f"{workers} workers, and `device` {name} means {len(openers)}: {', '.join(openers)}")
    if len(parts) > 1 and not is_phone(name):
        raise DeviceError(f"`device` {name}: only phones are listed, as PROFILE@SERIAL,PROFILE@SERIAL")
    with ExitStack() as stack:
        devices = {}
        for label, opened in list(openers.items())[:workers]:
            devices[label] = opened()
            stack.callback(devices[label].close)
        stack.pop_all()
    return devices
