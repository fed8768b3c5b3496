"""Profiling: what a search needs, where tables lie, and an honest error beside them."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
from ai_edge_litert import schema_py_generated as schema
from amc_latency.device.base import Device, DeviceIdentity, Protocol, Summary, Timing, Workload
from amc_latency.device.host.host import HostDevice
from amc_latency.device.host.host_speed import Speed
from amc_latency.device.host.reference import ReferenceSpeeds
from amc_latency.device.rounds.fleet import Fleet
from amc_latency.lut.prediction.predict import Predictor
from amc_latency.lut.shapes.shape import NOOP, parse_network
from amc_latency.lut.table.table import LatencyTable

from amc_latency.console import Console
from amc_latency.errors import JobError, UserError
from amc_latency.measuring.profiling import Grid, complete_table, open_device, open_table, prediction_table, table_path
from amc_latency.models.load import NetworkOptions, load_network
from amc_latency.search.costs.costs import predicted_costs
from tests.amc_latency.search.targets.test_bounds import small_network

TABLE = Path(__file__).parents[3] / "lut" / "tables" / "host-epyc-zen4.tsv"
IDENTITY = DeviceIdentity("stand-in", "none", "none")


class FailingDevice(Device):
    """Answers, and times nothing."""

    identity = IDENTITY

    def time_round(self, workloads, protocol: Protocol, round_index: int):
        for workload in workloads:
            assert isinstance(workload, Workload)
            yield Timing(workload.name, round_index, error="the device caught fire")


def test_the_shipped_table_holds_all_that_a_search_of_the_bundled_network_needs() -> None:
    device = open_device("replay", TABLE)
    table = open_table(device, None, TABLE, create=False)
    assert table is not None
    report = complete_table(load_network(NetworkOptions()), device, table, Grid(), Console(quiet=True))
    assert report.timed == 0
    assert report.incomplete == 0
    assert report.calibrated
    # Whole networks that the calibration on uniform widths has not seen, measured when the table was.
    assert report.held_out_max_pct is not None
    assert report.held_out_max_pct < 5


class CountingDevice(Device):
    """Builds every workload and takes a nanosecond for each weight that it finds in the file."""

    identity = IDENTITY

    def __init__(self) -> None:
        self.weights: dict[str, int] = {}
        self.built = 0

    def time_round(self, workloads, protocol: Protocol, round_index: int):
        for workload in workloads:
            self.weights[workload.name] = weights_in(workload.build())
            self.built += 1
            us = 1 + self.weights[workload.name] / 1000
            summary = Summary(us, us, us, 0.0)
            yield Timing(workload.name, round_index, 1, summary, summary)


def weights_in(model: bytes) -> int:
    """Constant floats in a `.tflite`."""
    root = schema.Model.GetRootAs(model, 0)
    graph = root.Subgraphs(0)
    tensors = [graph.Tensors(i) for i in range(graph.TensorsLength())]
    floats = [tensor for tensor in tensors if tensor.Type() == schema.TensorType.FLOAT32]
    return sum(root.Buffers(tensor.Buffer()).DataLength() // 4 for tensor in floats)


@pytest.mark.parametrize("min_keep", [0.5, 0.9])
def test_every_timed_file_is_the_layer_or_network_that_its_key_says(tmp_path: Path, min_keep: float) -> None:
    table = LatencyTable.create(tmp_path / "t.tsv", IDENTITY, Protocol(rounds=1))
    network = load_network(NetworkOptions("mobilenet_v1", 0.25, "3x32x32", 10))
    device = CountingDevice()
    report = complete_table(network, device, table, Grid(min_keep), Console(quiet=True))
    assert report.timed == device.built == report.rows
    for key, weights in device.weights.items():
        assert weights == sum(shape.params for shape in parse_network(key)), key
    networks = [key for key in table.keys if " + " in key]
    assert len(networks) >= 4 + 4
    assert report.calibrated
    # The device is the sum of its layers, so networks that no calibration saw are predicted to the table's digits.
    assert report.held_out_max_pct is not None
    assert report.held_out_max_pct < 0.1
    params = sum(shape.params for shape in network.graph.architecture.shapes())
    assert report.original_ms == pytest.approx((1 + params / 1000) / 1000, rel=1e-4)


def test_a_table_within_bounds_answers_for_all_within_them_and_for_the_uncut_network(tmp_path: Path) -> None:
    table = LatencyTable.create(tmp_path / "t.tsv", IDENTITY, Protocol(rounds=1))
    network, grid = small_network(), Grid({"conv": 0.3, "linear": 0.1}, 4, 0.7)
    report = complete_table(network, CountingDevice(), table, grid, Console(quiet=True))
    architecture = network.graph.architecture
    params = sum(shape.params for shape in architecture.shapes())
    # To the table's digits, 0.01 us a row.
    assert report.original_ms == pytest.approx((1 + params / 1000) / 1000, abs=1e-5)
    choices = grid.choices(network)
    assert choices == ((4, 8), (8, 12), (4, 8, 12, 16, 20))
    costs = predicted_costs(architecture, choices, Predictor(table))
    for counts in itertools.product(*choices):
        params = sum(shape.params for shape in architecture.shapes(counts))
        assert costs.ms(counts) == pytest.approx((1 + params / 1000) / 1000, abs=5e-5)


def test_a_replayed_prediction_is_not_taken_for_a_timing(tmp_path: Path) -> None:
    device = open_device("replay", TABLE)
    table = open_table(device, None, TABLE, create=False)
    assert table is not None
    # On this grid the table was never asked for networks, but the uncut one.
    report = complete_table(load_network(NetworkOptions()), device, table, Grid(0.85), Console(quiet=True))
    assert report.held_out_mape_pct is None
    assert report.device.startswith("replay of host")


def test_a_device_that_times_nothing_is_a_failed_job(tmp_path: Path) -> None:
    table = LatencyTable.create(tmp_path / "t.tsv", IDENTITY, Protocol(rounds=1))
    network = load_network(NetworkOptions("mobilenet_v1", 0.25, "3x32x32", 10))
    with pytest.raises(JobError, match="the device caught fire"):
        complete_table(network, FailingDevice(), table, Grid(min_keep=1.0), Console(quiet=True))


@pytest.mark.parametrize("own_us", [None, 200.0, 240.0])
@pytest.mark.parametrize("cores", [1, 2])
@pytest.mark.parametrize("hot_us", [None, 125.0])
def test_a_table_that_exists_is_gone_on_with_at_its_own_speed(
    tmp_path: Path, own_us: float | None, cores: int, hot_us: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[Protocol] = []
    # What the sentinel takes now.
    monkeypatch.setattr(HostDevice, "_time_sentinel", lambda _, asked: timed.append(asked) or Speed(300.0, 180.0))
    references = ReferenceSpeeds(tmp_path / "speeds.json")
    members = {f"core {core}": HostDevice(references=references) for core in range(cores)}
    device = Fleet(members) if cores > 1 else members["core 0"]
    protocol = device.protocol
    if own_us is not None:
        # What the user's own file would say, from before there were second runs.
        key = members["core 0"]._reference_key(protocol)
        references.keep(key, own_us)
    before = (tmp_path / "speeds.json").read_bytes() if own_us else None
    said: list[str] = []
    device.say = said.append
    made = open_table(device, None, tmp_path / "t.tsv", create=True)
    assert made is not None
    summary = Summary(50.0, 50.0, 50.0, 0.0)
    second = {} if hot_us is None else {"sentinel_hot_us": 150.0, "reference_hot_us": hot_us}
    conditions = json.dumps({"sentinel_us": 250.0, "reference_us": 200.0, **second})
    made.append(Timing(NOOP.text, 0, 20, summary, summary, conditions=conditions))
    made.close()
    assert said == []
    table = open_table(device, None, tmp_path / "t.tsv", create=False)
    assert table is not None
    assert table.protocol == protocol
    assert [member.reference_us(table.protocol) for member in members.values()] == [200.0] * cores
    expected = (200.0, 180.0 * 200 / 300 if hot_us is None else hot_us)
    assert [member.speed(table.protocol) for member in members.values()] == [pytest.approx(expected)] * cores
    assert timed == ([protocol] * cores if hot_us is None else [])
    assert len(said) == (own_us == 240.0)
    assert ((tmp_path / "speeds.json").read_bytes() if own_us else None) == before


def test_tables_of_different_devices_never_share_a_file() -> None:
    identities = (IDENTITY, replace(IDENTITY, runtime="other"), replace(IDENTITY, model="other"))
    assert len(set(map(table_path, identities))) == 3


def test_bad_grids_and_devices_are_refused() -> None:
    with pytest.raises(UserError, match="min_keep"):
        Grid(min_keep=1.5)
    with pytest.raises(UserError, match="`table`"):
        open_device("replay")


def test_a_profile_of_a_longer_name_is_another_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    protocol = Protocol(clock="wall", statistic="median")
    for name in ("h100", "h100-fp16"):
        identity = DeviceIdentity(name, "NVIDIA H100", "torch")
        LatencyTable.create(table_path(identity), identity, protocol).close()
    table = prediction_table("h100", None)
    assert table is not None
    assert table.identity.name == "h100"


def test_counts_of_a_grouped_convolutions_groups_keep_the_channels_on_the_grid() -> None:
    network = load_network(NetworkOptions("torchvision:resnext50_32x4d", input="3x32x32"))
    by_name = dict(
        zip((group.name for group in network.graph.groups), Grid(min_keep=0.5).choices(network), strict=True)
    )
    # 32 groups of 4 channels, so 8 channels are two of them; in the next stage a group is 8 wide.
    assert by_name["layer1.0.conv1"] == (*range(16, 32, 2), 32)
    assert by_name["layer2.0.conv1"] == (*range(16, 32), 32)
    assert by_name["conv1"] == (*range(32, 64, 8), 64)


def test_a_users_folder_beside_the_table_is_left_alone(tmp_path: Path) -> None:
    table = LatencyTable.create(tmp_path / "t.tsv", IDENTITY, Protocol(rounds=1))
    own = tmp_path / "t.tsv.networks"
    own.mkdir()
    (own / "mine.txt").write_text("mine")
    complete_table(load_network(NetworkOptions()), CountingDevice(), table, Grid(min_keep=1.0), Console(quiet=True))
    assert (own / "mine.txt").read_text() == "mine"
    assert {entry.name for entry in tmp_path.iterdir()} == {"t.tsv", "t.tsv.networks"}
