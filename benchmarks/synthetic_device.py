"""A device of arithmetic whose staircase is unlike any computer's: to show that a plan learns, and doesn't know.

Convolutions run in panels of 12 output channels and finish in tiles of 4, which are slower a channel; depthwise layers
run in tiles of 4, are slower where their input leaves the cache, and at 112x112 with 24 channels slower than with 32,
as on a Pixel 1 (2.53 against 2.31 ms). No two rounds are the same: disturbances add 0.3 % on average.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from amc_latency.device.base import Device, DeviceIdentity, Protocol, Summary, Timing, Workload
from amc_latency.lut.shapes.shape import LayerShape, parse_network

NOISE = 0.003
_CACHE_BYTES = 1 << 20
_SLOWER_AT_24 = 2.53 / 2.31
"""Of a depthwise layer at 112x112 with 24 channels, against that with 32."""


def layer_us(shape: LayerShape) -> float:
    """What a layer takes without any noise, in microseconds."""
    pixels = shape.h_out * shape.w_out
    match shape.kind:
        case "conv" | "linear":
            panels, rest = divmod(shape.c_out, 12)
            lanes = 12 * panels + 1.35 * 4 * -(-rest // 4)
            return 4 + pixels * lanes * (0.4 + shape.taps * shape.c_in / 64) / 256
        case "depthwise":
            if (shape.h, shape.c_out) == (112, 24):
                return _SLOWER_AT_24 * layer_us(replace(shape, c_in=32, c_out=32))
            tiles = 4 * -(-shape.c_out // 4)
            spilled = max(0.0, 4 * shape.h * shape.w * shape.c_in / _CACHE_BYTES - 1)
            return 3 + (1 + 0.15 * min(1.0, spilled)) * pixels * tiles / 512
        case "noop":
            return 1.0
    return 2 + shape.h * shape.w * shape.c_in / 4096


class SyntheticDevice(Device):
    """Times nothing: answers by `layer_us`, whole networks by their layers' sum, and noise that the seed decides."""

    def __init__(self, seed: int = 0) -> None:
        self.identity = DeviceIdentity("synthetic", "steps of 4 and 12", "arithmetic")
        self.seed = seed

    def time_round(self, workloads: Sequence[Workload], protocol: Protocol, round_index: int) -> Iterator[Timing]:
        """One timing a workload, the same for the same seed, workload and round."""
        for workload in workloads:
            noise = random.Random(f"{self.seed}/{workload.name}/{round_index}").expovariate(1 / NOISE)
            shapes = parse_network(workload.name)
            us = sum(map(layer_us, shapes)) - (len(shapes) - 1)
            us *= 1 + noise
            summary = Summary(us, us, us, 0.0)
            yield Timing(workload.name, round_index, protocol.runs, summary, summary)
