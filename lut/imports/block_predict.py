"""A network's milliseconds from a table of whole blocks: its layers, cut into runs that the table knows.

A block with relu stands for one with relu6, and the other way round: to clamp at 6 as well costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from amc_latency.lut.imports.block_tables import BLOCK_RUNTIMES
from amc_latency.lut.prediction.predict import MissingShapeError
from amc_latency.lut.shapes.shape import LayerShape, NetworkShape, network_text, parse_network
from amc_latency.lut.table.headers import origin
from amc_latency.lut.table.table import LatencyTable


@dataclass(frozen=True)
class CoveredBlock:
    """Layers `start` to `stop` (exclusive) of a network, and what the table says of them together."""

    start: int
    stop: int
    us: float


def is_block_table(table: LatencyTable) -> bool:
    """Whether the table's rows are other people's blocks: it is read-only, and `cover` is how it answers."""
    return table.identity.estimated and table.identity.runtime in BLOCK_RUNTIMES.values()


def cover(table: LatencyTable, shapes: NetworkShape) -> list[CoveredBlock]:
    """The fewest known blocks that hold each layer of the network exactly once, in order.

    Raises `MissingShapeError` for a layer that is in no such block, and says how many there are.
    """
    blocks = _blocks(table)
    lengths = sorted({len(block) for block in blocks}, reverse=True)
    layers = [_clamped(shape) for shape in shapes]
    # By how many layers from here on are in no block, then by how many blocks; built from the last layer to the first.
    best = [(0, 0)] * (len(layers) + 1)
    taken = [0] * len(layers)
    for start in reversed(range(len(layers))):
        left_out, count = best[start + 1]
        best[start] = (left_out + 1, count)
        for length in lengths:
            # Near the end a slice is shorter than asked for.
            if start + length <= len(layers) and tuple(layers[start : start + length]) in blocks:
                left_out, count = best[start + length]
                if (left_out, count + 1) < best[start]:
                    best[start], taken[start] = (left_out, count + 1), length
    if best[0][0]:
        raise _missing(table, shapes, taken, best[0][0], lengths[0] if lengths else 1)
    covered, start = [], 0
    while start < len(layers):
        stop = start + taken[start]
        covered.append(CoveredBlock(start, stop, blocks[tuple(layers[start:stop])]))
        start = stop
    return covered


def _blocks(table: LatencyTable) -> dict[NetworkShape, float]:
    blocks = {}
    foreign = {timing.workload for timing in table.rows if origin(timing) is not None}
    for key in table.keys:
        # What merging with force brought in from another device is no block of this one's.
        if key in foreign:
            continue
        latency_us = table.latency_us(key)
        assert latency_us is not None
        blocks[tuple(map(_clamped, parse_network(key)))] = latency_us
    return blocks


def _clamped(shape: LayerShape) -> LayerShape:
    return replace(shape, activation="relu6") if shape.activation == "relu" else shape


def _missing(
    table: LatencyTable, shapes: Sequence[LayerShape], taken: Sequence[int], left_out: int, longest: int
) -> MissingShapeError:
    first = 0
    while taken[first]:
        first += taken[first]
    stop = first + 1
    while stop < min(len(shapes), first + longest) and not taken[stop]:
        stop += 1
    share_pct = 100 * (len(shapes) - left_out) / len(shapes)
    return MissingShapeError(
        shapes[first],
        f"no block of {table.path} holds '{network_text(shapes[first:stop])}', from layer {first + 1} on: "
        f"its blocks cover {len(shapes) - left_out} of the network's {len(shapes)} layers ({share_pct:.0f} %)",
    )
