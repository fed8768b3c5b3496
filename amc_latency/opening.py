"""From what stands after `--device` to a device, and what people call it."""

from __future__ import annotations

from pathlib import Path

from amc_latency.console import Console
from amc_latency.errors import UserError
from device.android import AndroidDevice
from device.base import Device, DeviceIdentity
from device.phone import PhoneOptions
from device.registry import UnknownDeviceError, get_device, known_devices, unknown_device
from lut.replay import ReplayDevice
from lut.table import LatencyTable

HOST = "host"
REPLAY = "replay"


def open_device(
    name: str, lut: Path | None = None, phone: PhoneOptions | None = None, console: Console | None = None
) -> Device:
    """The device called `name`; `replay` answers from the table `lut`. Raises what the registry and the table raise."""
    if name != REPLAY:
        try:
            device = get_device(name, phone or PhoneOptions())
        except UnknownDeviceError as error:
            raise unknown_device(name.partition("@")[0], [*error.known, REPLAY]) from None
        if phone not in (None, PhoneOptions()) and not isinstance(device, AndroidDevice):
            raise UserError(f"--force, --transport, --runner and the like are for phones, not for {name}")
        if console is not None:
            device.say = console.say
        return device
    if lut is None:
        raise UserError("the replay device answers from a latency table: name one with --lut")
    return ReplayDevice(LatencyTable.open(lut))


def device_names() -> dict[str, str]:
    """Every device's name, and what is there now in a few words."""
    return {**known_devices(), REPLAY: "no hardware: answers from the table named by --lut"}


def device_text(device: Device) -> str:
    """Who measured, or whose measurements are replayed."""
    who = identity_text(device.identity)
    return f"replay of {who}" if isinstance(device, ReplayDevice) else who


def identity_text(identity: DeviceIdentity) -> str:
    """Name, hardware and runtime in a line."""
    return ", ".join((identity.name, identity.model, identity.runtime))
