"""At which speed of a device a table's rows are given, and that rows to come are given at it too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from amc_latency.device.base import Device
from amc_latency.device.conditions import reference_hot_us, reference_us
from amc_latency.lut.table.headers import origin
from amc_latency.lut.table.table import LatencyTable


def references(table: LatencyTable) -> Counter[float | None]:
    """How many of the table's own rows are given at each reference, in microseconds; None is as the clock showed it."""
    return Counter(reference_us(conditions) for conditions in _own_conditions(table))


def go_on_at_reference(device: Device, table: LatencyTable) -> None:
    """Have the device give its timings at the speed of most of the table's rows, so that they can be compared.

    Where that can't be, as no row is at any, it is said.
    """
    if not device.gives_reference:
        return
    found = references(table)
    said = None
    if known := [us for us, _ in found.most_common() if us is not None]:
        hot = Counter(reference_hot_us(each) for each in _own_conditions(table) if reference_us(each) == known[0])
        # Rows from before there were second runs don't have it.
        del hot[None]
        said = device.use_reference(table.protocol, known[0], next((us for us, _ in hot.most_common(1)), None))
    elif found:
        said = (
            f"the rows of {table.path} are as the clock showed them, and what is timed now is given at this computer's "
            "reference speed, which may be another: pass another `table` to time all anew"
        )
    if said:
        device.say(said)


def _own_conditions(table: LatencyTable) -> Iterator[str]:
    for row in table.lines():
        # Most rows have nothing to say, and then need not be read.
        if (row.counted_us is not None or row.timing.error is None) and (
            not row.conditions or origin(row.timing) is None
        ):
            yield row.conditions
