"""From what stands after `device` to a device, and what people call it."""

from __future__ import annotations

from pathlib import Path

from amc_latency.console import Console
from amc_latency.device.base import Device
from amc_latency.device.kinds import PhoneOptions
from amc_latency.device.profiles import UnknownDeviceError, unknown_device
from amc_latency.device.registry import check_name, get_device, get_devices, has_several, is_phone, known_devices
from amc_latency.device.rounds.fleet import Fleet
from amc_latency.errors import OptionError, UserError
from amc_latency.lut.imports.block_predict import is_block_table
from amc_latency.lut.prediction.replay import ReplayDevice
from amc_latency.lut.table.table import LatencyTable

HOST = "host"
REPLAY = "replay"


def open_device(
    name: str,
    lut: Path | None = None,
    phone: PhoneOptions | None = None,
    console: Console | None = None,
    workers: int | None = 1,
) -> Device:
    """The device called `name`; `replay` answers from the table `lut`. Raises what the registry and the table raise.

    With several `workers`, or None for all that `name` means, it may be a `Fleet`: see
    `amc_latency.device.registry.get_devices`.
    """
    if workers is not None and workers < 1:
        raise OptionError("workers", f"is at least 1, not {workers}")
    if (workers or 1) > 1 and (name == REPLAY or not has_several(name)):
        raise OptionError("workers", f"is for phones and for cores of this computer, not for {name}")
    if name != REPLAY:
        options = phone or PhoneOptions()
        try:
            if options != PhoneOptions() and not is_phone(name):
                check_name(name)
                raise UserError(f"`force`, `transport`, `runner` and the like are for phones, not for {name}")
            found = {name: get_device(name, options)} if workers == 1 else get_devices(name, options, workers)
        except UnknownDeviceError as error:
            raise unknown_device(name.partition("@")[0], [*error.known, REPLAY]) from None
        one, *others = found.values()
        device = Fleet(found) if others else one
        if console is not None:
            device.say = console.warn
        return device
    if lut is None:
        raise UserError("the replay device answers from a latency table: name one with `table`")
    table = LatencyTable.open(lut)
    if is_block_table(table):
        raise UserError(
            f"{lut} holds estimates of blocks, which no device replays: only a prediction, by `table`, reads it"
        )
    return ReplayDevice(table)


def check_device(name: str, lut: Path | None = None) -> None:
    """Raise what `open_device` would for a name that means nothing, or a replay without its table; opens no device."""
    if name == REPLAY:
        open_device(name, lut)
        return
    try:
        check_name(name)
    except UnknownDeviceError as error:
        raise unknown_device(name.partition("@")[0], [*error.known, REPLAY]) from None


def device_names() -> dict[str, str]:
    """Every device's name, and what is there now in a few words."""
    return {**known_devices(), REPLAY: "no hardware: answers from a latency table"}
