"""Devices by name."""

from __future__ import annotations

import difflib

from device.base import Device
from device.host import HostDevice, cpu_model


class UnknownDeviceError(ValueError):
    """A device name that no device has: which exist, and the nearest one."""


def known_devices() -> dict[str, str]:
    """Every device's name, and what is there now in a few words."""
    return {"host": f"this computer's CPU: {cpu_model()}"}


def get_device(name: str) -> Device:
    """The device called `name`. Raises `UnknownDeviceError`, or `DeviceError` when it cannot be used."""
    if name == "host":
        return HostDevice()
    raise unknown_device(name, list(known_devices()))


def unknown_device(name: str, names: list[str]) -> UnknownDeviceError:
    """The error for a name that is none of `names`."""
    nearest = difflib.get_close_matches(name.lower(), names, n=1)
    guess = f" Did you mean '{nearest[0]}'?" if nearest else ""
    return UnknownDeviceError(f"there is no device '{name}'; known are: {', '.join(names)}.{guess}")
