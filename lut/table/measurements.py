"""What a table says of each key over all its rounds."""

from __future__ import annotations

from amc_latency.device.base import Timing
from amc_latency.device.rounds.measure import Measurement, summarise
from amc_latency.lut.shapes.shape import parse_network
from amc_latency.lut.table.table import LatencyTable

NETWORK = "network"
_LONGEST = 72


def timed_rows(table: LatencyTable) -> dict[str, list[Timing]]:
    """The rows that count of each key, by round."""
    return {key: [row.timing for row in rows] for key, rows in table.timed().items()}


def measurements(table: LatencyTable) -> dict[str, Measurement]:
    """Each timed key's figure, and how far its rounds lie apart."""
    return {key: summarise(rows, table.protocol) for key, rows in timed_rows(table).items()}


def kind_of(key: str) -> str:
    """A layer's kind, or `network`; of a table's key, which was checked when it was read."""
    return NETWORK if " + " in key else key.partition(" ")[0]


def label(key: str) -> str:
    """A key that fits a line: a network's names how many layers it has and how wide they are."""
    shapes = parse_network(key)
    if len(shapes) == 1:
        return key
    widths = "-".join(str(shape.c_out) for shape in shapes if shape.two_figures)
    text = f"network of {len(shapes)} layers, widths {widths}"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
