"""At which speed of a device a table's rows are given, and that rows to come are given at it too."""

from __future__ import annotations

from collections import Counter

from device.base import Device
from device.conditions import reference_us
from lut.headers import origin
from lut.table import LatencyTable


def references(table: LatencyTable) -> Counter[float | None]:
    """How many of the table's own rows are given at each reference, in microseconds; None is as the clock showed it."""
    rows = (timing for timing in table.rows if timing.error is None and origin(timing) is None)
    return Counter(reference_us(timing.conditions) for timing in rows)


def go_on_at_reference(device: Device, table: LatencyTable) -> None:
    """Have the device give its timings at the speed of most of the table's rows, so that they can be compared.

    Where that can't be, as no row is at any, it is said.
    """
    if not device.gives_reference:
        return
    found = references(table)
    said = None
    if known := [us for us, _ in found.most_common() if us is not None]:
        said = device.use_reference(table.protocol, known[0])
    elif found:
        said = (
            f"the rows of {table.path} are as the clock showed them, and what is timed now is given at this computer's "
            "reference speed, which may be another: pass another --lut to time all anew"
        )
    if said:
        device.say(said)
