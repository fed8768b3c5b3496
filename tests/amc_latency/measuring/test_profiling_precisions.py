"""Profiling in several precisions: each file is what its key says, and devices that lack one say so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from ai_edge_litert import schema_py_generated as schema
from amc_latency.device.base import Device, DeviceIdentity, Protocol, Summary, Timing, Workload
from amc_latency.lut.prediction.predict import Predictor
from amc_latency.lut.shapes.mixed import mixed_shapes
from amc_latency.lut.shapes.shape import parse_network
from amc_latency.lut.table.table import LatencyTable
from amc_latency.lut.tflite.run import tflite_ops

from amc_latency.console import Console
from amc_latency.errors import OptionError, UserError
from amc_latency.measuring.config import ProfileConfig
from amc_latency.measuring.estimating import estimate_device
from amc_latency.measuring.profiling import Grid, ProfileReport, complete_table, open_device
from amc_latency.measuring.whole_networks import Policy
from amc_latency.models.load import Network
from tests.amc_latency.search.targets.test_bounds import small_network

BOTH = ("float32", "int8")
TABLE = Path(__file__).parents[3] / "lut" / "tables" / "host-epyc-zen4.tsv"


def in_file(model: bytes) -> Counter[str]:
    """Constants by type, and boundaries, of a `.tflite`."""
    root = schema.Model.GetRootAs(model, 0)
    graph = root.Subgraphs(0)
    found = Counter({name: count for name, count in tflite_ops(model).items() if "QUANTIZE" in name})
    for tensor in map(graph.Tensors, range(graph.TensorsLength())):
        size = root.Buffers(tensor.Buffer()).DataLength()
        found["int8"] += size * (tensor.Type() == schema.TensorType.INT8)
        found["float32"] += size // 4 * (tensor.Type() == schema.TensorType.FLOAT32)
    return +found


def of_key(key: str) -> Counter[str]:
    """The same by arithmetic."""
    found: Counter[str] = Counter()
    for shape in parse_network(key):
        if "quantize" in shape.kind:
            found[shape.kind.upper()] += 1
        elif shape.precision == "int8":
            # A bias is int32.
            found["int8"] += shape.params - shape.c_out if shape.params else 0
        else:
            found["float32"] += shape.params
    return +found


class CountingDevice(Device):
    """Takes a microsecond, and more for what it finds in a file."""

    identity = DeviceIdentity("stand-in", "none", "none")

    def __init__(self) -> None:
        self.found: dict[str, Counter[str]] = {}
        self.built = 0

    def time_round(self, workloads: Sequence[Workload], protocol: Protocol, round_index: int) -> Iterator[Timing]:
        for workload in workloads:
            found = self.found[workload.name] = in_file(workload.build())
            self.built += 1
            us = 1 + found["float32"] / 1000 + found["int8"] / 4000 + (found["QUANTIZE"] + found["DEQUANTIZE"]) / 2
            summary = Summary(us, us, us, 0.0)
            yield Timing(workload.name, round_index, 1, summary, summary)


@pytest.fixture(scope="module")
def network() -> Network:
    return small_network()


@pytest.fixture(scope="module")
def profiled(
    network: Network, tmp_path_factory: pytest.TempPathFactory
) -> tuple[LatencyTable, CountingDevice, ProfileReport]:
    table = LatencyTable.create(tmp_path_factory.mktemp("p") / "t.tsv", CountingDevice.identity, Protocol(rounds=1))
    device = CountingDevice()
    return table, device, complete_table(network, device, table, Grid(0.5, 4, precisions=BOTH), Console(quiet=True))


def test_every_timed_file_is_in_the_precisions_that_its_key_says(
    profiled: tuple[LatencyTable, CountingDevice, ProfileReport],
) -> None:
    table, device, report = profiled
    assert report.timed == report.rows == device.built
    assert set(table.keys) == set(device.found)
    for key, found in device.found.items():
        assert found == of_key(key), key
    mixed = [key for key in device.found if " + " in key and "int8" in key and "float32" in key]
    assert len(mixed) > 5
    assert max(key.count("quantize") for key in mixed) > 3


def test_networks_of_several_precisions_are_held_out_and_predicted(
    network: Network, profiled: tuple[LatencyTable, CountingDevice, ProfileReport]
) -> None:
    table, _, report = profiled
    assert report.held_out_max_pct is not None
    # Each layer's digits are 0.01 us.
    assert report.held_out_max_pct < 1
    architecture = network.graph.architecture
    predictor = Predictor(table)
    for precisions in (["float32"] * len(architecture.layers), ["int8", "float32"] * 20):
        shapes = mixed_shapes(architecture, precisions[: len(architecture.layers)])
        assert predictor.missing(shapes) == []
        counts = of_key(" + ".join(shape.text for shape in shapes))
        us = 1 + counts["float32"] / 1000 + counts["int8"] / 4000 + (counts["QUANTIZE"] + counts["DEQUANTIZE"]) / 2
        assert 1000 * predictor.ms(shapes) == pytest.approx(us, rel=0.02)


def test_a_file_is_as_large_as_its_shapes_say(network: Network) -> None:
    architecture = network.graph.architecture
    counts, layers = architecture.group_channels, len(architecture.layers)
    plain = Policy(counts)
    overhead = len(plain.content(network)) - sum(shape.file_bytes for shape in plain.shapes(architecture))
    for precisions in (["int8"] * layers, ["float32", "int8"] * layers):
        policy = Policy(counts, tuple(precisions[:layers]))
        told = overhead + sum(shape.file_bytes for shape in policy.shapes(architecture))
        assert 0 <= told - len(policy.content(network)) <= 160 * len(policy.shapes(architecture))


def test_a_table_of_float32_is_gone_on_with(network: Network, tmp_path: Path) -> None:
    table = LatencyTable.create(tmp_path / "t.tsv", CountingDevice.identity, Protocol(rounds=1))
    complete_table(network, CountingDevice(), table, Grid(0.8, 4), Console(quiet=True))
    plain, device = set(table.keys), CountingDevice()
    table = LatencyTable.open(tmp_path / "t.tsv")
    report = complete_table(network, device, table, Grid(0.8, 4, precisions=BOTH), Console(quiet=True))
    assert not plain & device.found.keys()
    assert all("int8" in key for key in device.found)
    assert report.timed == device.built > 0
    again = complete_table(
        network, device, LatencyTable.open(tmp_path / "t.tsv"), Grid(0.8, 4, precisions=BOTH), Console()
    )
    assert again.timed == 0


def test_devices_that_lack_a_precision_say_so(network: Network, tmp_path: Path) -> None:
    estimate = estimate_device("pixel1", None)
    replay = open_device("replay", TABLE)
    for device, who in ((estimate, "pixel1"), (replay, "replay of host")):
        table = LatencyTable.create(tmp_path / f"{who}.tsv", device.identity, device.protocol)
        with pytest.raises(OptionError, match=f"{who}.* runs float32 and no int8: leave that out of `precision`"):
            complete_table(network, device, table, Grid(precisions=BOTH), Console(quiet=True))
        assert table.row_count == 0


def test_bad_precisions_are_refused() -> None:
    with pytest.raises(UserError, match="int9"):
        Grid(precisions=("float32", "int9"))
    with pytest.raises(OptionError, match="float32, for layers that can be nothing else"):
        Grid(precisions=("int8",))
    assert ProfileConfig(precision=BOTH).precision == BOTH
