"""This computer by its profile: one device, or a core for each of several workers."""

from __future__ import annotations

from functools import partial

from amc_latency.device.base import Device, DeviceError
from amc_latency.device.host.host import HostDevice, cpu_model, separate_cores
from amc_latency.device.kinds import DeviceProfile, Openers, PhoneOptions


def open_host(profile: DeviceProfile, which: str, options: PhoneOptions) -> Device:
    """This computer's CPU. Raises `DeviceError` where `which` says one of several."""
    if which:
        raise DeviceError(f"{profile.name} is this computer and has no serial number: say `device={profile.name}`")
    return _on(profile)


def cores(profile: DeviceProfile, options: PhoneOptions, wanted: int | None) -> Openers | None:
    """A core of this computer for each of several workers, None for one. Raises `DeviceError` for too few cores."""
    if wanted in (None, 1):
        return None
    found = separate_cores(wanted or 1)
    return {f"core {core}": partial(_on, profile, core, found) for core in found}


def title(profile: DeviceProfile) -> str:
    """With the CPU's name."""
    return f"{profile.title}: {cpu_model()}"


def _on(profile: DeviceProfile, core: int | None = None, others: list[int] | None = None) -> Device:
    device = HostDevice(core, others or ())
    device.protocol = profile.protocol
    return device
