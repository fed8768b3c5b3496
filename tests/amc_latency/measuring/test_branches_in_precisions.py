"""A profile in two precisions of a network with branches: files are what their keys say, and a killed one goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from amc_latency.device.base import Device, DeviceIdentity, Protocol, Summary, Timing, Workload
from amc_latency.device.tflite.unpacked import unpacked
from amc_latency.lut.shapes.registry import KINDS
from amc_latency.lut.shapes.shape import LayerShape, parse_network
from amc_latency.lut.table.table import LatencyTable
from amc_latency.lut.tflite.run import tflite_ops
from torch import Tensor, nn

from amc_latency.console import Console
from amc_latency.graph.trace import trace
from amc_latency.measuring.profiling import Grid, complete_table, plan_of
from amc_latency.models.load import Network
from amc_latency.models.spec import ModelSpec

IDENTITY = DeviceIdentity("stand-in", "none", "none")
BOTH = Grid(precisions=("float32", "int8"), min_keep=0.5)


class Residual(nn.Module):
    """A tensor with two readers, a padded stride, and an activation that can't be int8."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide = nn.Conv2d(1, 16, 3, 2, 1), nn.Conv2d(16, 16, 1)
        self.deep, self.alone = nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.ELU()
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = x + self.deep(self.wide(x).relu())
        return self.head(self.alone(x).mean((2, 3)))


@pytest.fixture(scope="module")
def network() -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Residual().eval()
    return Network(model, ModelSpec("own", input=(1, 8, 8), classes=4), trace(model, (1, 8, 8)), trained=True)


class Reader(Device):
    """Keeps what it is given to time, which takes a microsecond each and as many more as a layer has values out."""

    identity = IDENTITY

    def __init__(self, last: int | None = None) -> None:
        self.files: dict[str, bytes] = {}
        self.timed: list[tuple[str, int]] = []
        self.last = last

    def time_round(self, workloads: Sequence[Workload], protocol: Protocol, round_index: int) -> Iterator[Timing]:
        for workload in workloads:
            if len(self.timed) == self.last:
                raise KeyboardInterrupt
            self.timed.append((workload.name, round_index))
            if workload.name not in self.files:
                self.files[workload.name] = workload.build()
            us = 1.0 + sum(each.c_out * each.h_out * each.w_out for each in parse_network(workload.name))
            summary = Summary(us, us, us, 0.0)
            yield Timing(workload.name, round_index, 1, summary, summary)


def profile(network: Network, device: Device, path: Path) -> list[str]:
    with LatencyTable.open_or_create(path, device.identity, Protocol(rounds=1)) as table:
        complete_table(network, device, table, BOTH, Console(quiet=True), plan_of("grid", "0.5%"))
        return sorted(table.keys)


def weights_in(content: bytes) -> Counter[str]:
    """Constants in the file, in bytes by their type."""
    model = unpacked(content)
    found: Counter[str] = Counter()
    for tensor in model.subgraphs[0].tensors:
        data = model.buffers[tensor.buffer].data
        found[{0: "float32", 9: "int8"}.get(tensor.type, "other")] += 0 if data is None else len(np.asarray(data))
    return found


def test_files_have_the_weights_and_boundaries_of_their_keys_and_a_killed_profile_goes_on(
    network: Network, tmp_path: Path
) -> None:
    device = Reader()
    keys = profile(network, device, tmp_path / "whole.tsv")
    mixed = 0
    for key, content in device.files.items():
        shapes = parse_network(key)
        ops, found = tflite_ops(content), weights_in(content)
        own = [shape for shape in shapes if KINDS[shape.kind].weights(shape)]
        whole, plain = ([shape for shape in own if shape.precision == precision] for precision in ("int8", "float32"))
        # By arithmetic: a bias for each channel out, which is int32 in int8.
        assert found["int8"] == sum(shape.params - shape.c_out for shape in whole), key
        assert found["float32"] == 4 * sum(shape.params for shape in plain), key
        for kind in ("quantize", "dequantize"):
            assert ops.get(kind.upper(), 0) == sum(shape.kind == kind for shape in shapes), key
        mixed += len(shapes) > 1 and {shape.precision for shape in own} == {"float32", "int8"}
    assert mixed >= 4
    layers = {shape for key in keys if " + " not in key for shape in parse_network(key)}
    twice = {(each.kind, each.c_in, each.c_out) for each in layers if each.precision == "int8" and each.kind == "conv"}
    assert twice == {(each.kind, each.c_in, each.c_out) for each in layers if each.text.startswith("conv")}
    assert not any(each.activation == "elu" and each.precision == "int8" for each in layers)
    # The network's input, and the tensor before what can't be int8.
    assert LayerShape("quantize", 1, 1, 8, 8, precision="int8") in layers
    assert LayerShape("dequantize", 16, 16, 4, 4, precision="int8") in layers

    killed = Reader(last=len(device.timed) // 2)
    with pytest.raises(KeyboardInterrupt):
        profile(network, killed, tmp_path / "killed.tsv")
    rest = Reader()
    assert profile(network, rest, tmp_path / "killed.tsv") == keys
    assert sorted([*killed.timed, *rest.timed]) == sorted(device.timed)
