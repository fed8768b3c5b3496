"""A device whose latencies are arithmetic, and a small network for it. Run as a script it builds a table."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from amc_latency.device.base import Device, DeviceIdentity, Protocol, Summary, Timing, Workload
from amc_latency.lut.building.build import BuildReport, NetworkWorkload, Plan, build_table
from amc_latency.lut.building.plan import uniform_counts
from amc_latency.lut.shapes.architecture import Architecture, Layer, channel_choices
from amc_latency.lut.shapes.shape import LayerShape, NetworkShape, network_text, parse_network
from amc_latency.lut.table.table import LatencyTable

IDENTITY = DeviceIdentity("scripted", "a model of arithmetic", "runtime 1")
PROTOCOL = Protocol(runs=5, rounds=3)
NOOP_US = 1.0
SCALE, OFFSET_US = 1.05, 20.0


def net_us(shape: LayerShape) -> float:
    """A staircase of 16 in output channels, linear in input channels; depthwise off 16 is slower, and so in int8."""
    if shape.precision == "int8" and "quantize" not in shape.kind:
        return {"conv": 0.25, "linear": 0.5}.get(shape.kind, 2.0) * net_us(replace(shape, precision="float32"))
    match shape.kind:
        case "conv" | "linear":
            steps = -(-shape.c_out // 16)
            return steps * (3 + 0.25 * shape.c_in) * shape.kernel**2 * shape.h * shape.w / 64
        case "depthwise":
            return 0.5 * shape.c_in + (5 if shape.c_in % 16 else 0)
        case "noop":
            return 0.0
    return 0.25 * shape.c_in


def latency_us(key: str) -> float:
    shapes = parse_network(key)
    if len(shapes) == 1:
        return NOOP_US + net_us(shapes[0])
    return SCALE * sum(map(net_us, shapes)) + OFFSET_US


class ScriptedDevice(Device):
    """`fails(name, attempt)` makes a timing an error; each answer takes `seconds`. Builds nothing."""

    def __init__(self, seconds: float = 0.0, fails: Callable[[str, int], bool] = lambda name, attempt: False):
        self.identity = IDENTITY
        self.seconds = seconds
        self.fails = fails
        self.asked: list[tuple[str, int]] = []

    def time_round(self, workloads: Sequence[Workload], protocol: Protocol, round_index: int) -> Iterator[Timing]:
        for workload in workloads:
            time.sleep(self.seconds)
            attempt = self.asked.count((workload.name, round_index))
            self.asked.append((workload.name, round_index))
            if self.fails(workload.name, attempt):
                yield Timing(workload.name, round_index, error="scripted\tfailure\nof this")
                continue
            # Rounds differ; the smallest is round 1.
            us = latency_us(workload.name) * (1.0, 1.02, 1.05)[(round_index + 2) % 3]
            cpu = Summary(us, us * 1.5, us * 1.5, us * 0.25)
            yield Timing(workload.name, round_index, protocol.runs, cpu, Summary(us * 2, us * 3, us * 3, us))


def small_architecture(groups: tuple[int, int, int] = (32, 64, 128)) -> Architecture:
    """Stem, depthwise and pointwise twice, pool and classifier."""
    a, b, c = groups
    conv, act = "conv", "relu6"
    return Architecture(
        (
            Layer(LayerShape(conv, 1, a, 32, 32, 3, 2, 1, act), None, 0),
            Layer(LayerShape("depthwise", a, a, 16, 16, 3, 1, 1, act), 0, 0),
            Layer(LayerShape(conv, a, b, 16, 16, activation=act), 0, 1),
            Layer(LayerShape("depthwise", b, b, 16, 16, 3, 2, 1, act), 1, 1),
            Layer(LayerShape(conv, b, c, 8, 8, activation=act), 1, 2),
            Layer(LayerShape("global_pool", c, c, 8, 8), 2, 2),
            Layer(LayerShape("linear", c, 10), 2, None),
        ),
        groups,
    )


def mobilenet_v1() -> Architecture:
    """MobileNetV1-224 with 1000 classes (Howard et al., table 1), written out."""
    counts = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
    strides = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
    layers = [Layer(LayerShape("conv", 3, 32, 224, 224, 3, 2, 1, "relu6"), None, 0)]
    size = 112
    for i, stride in enumerate(strides):
        c_in, c_out = counts[i], counts[i + 1]
        depthwise = LayerShape("depthwise", c_in, c_in, size, size, 3, stride, 1, "relu6")
        size //= stride
        pointwise = LayerShape("conv", c_in, c_out, size, size, activation="relu6")
        layers += [Layer(depthwise, i, i), Layer(pointwise, i, i + 1)]
    layers += [
        Layer(LayerShape("global_pool", 1024, 1024, 7, 7), 13, 13),
        Layer(LayerShape("linear", 1024, 1000), 13, None),
    ]
    return Architecture(tuple(layers), counts)


def all_choices(architecture: Architecture) -> tuple[tuple[int, ...], ...]:
    return tuple(map(channel_choices, architecture.group_channels))


def uniform_networks(architecture: Architecture) -> list[NetworkShape]:
    choices = all_choices(architecture)
    return [architecture.shapes(uniform_counts(architecture, choices, width)) for width in (1, 0.75, 0.5, 0.25)]


def built(path: Path, device: Device | None = None) -> tuple[LatencyTable, BuildReport]:
    """The small network's table, new or continued."""
    architecture = small_architecture()
    table = LatencyTable.open_or_create(path, IDENTITY, PROTOCOL)
    networks = [NetworkWorkload(shapes, bytes) for shapes in uniform_networks(architecture)]
    device, plan = device or ScriptedDevice(), Plan("grid")
    report = build_table(device, table, architecture, all_choices(architecture), networks, plan=plan)
    return table, report


def key_of(kind: str, c_in: int, c_out: int, size: int = 8, **rest: int | str) -> str:
    return network_text([LayerShape(kind, c_in, c_out, size, size, **rest)])  # type: ignore[arg-type]


if __name__ == "__main__":
    built(Path(sys.argv[1]), ScriptedDevice(seconds=float(sys.argv[2])))
