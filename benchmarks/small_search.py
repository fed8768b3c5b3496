"""A search that takes a second: a LeNet-5 that was trained for a moment, and the table of a device of arithmetic.

For tests and attacks that look at how a search goes, and at no figure of the bundled network or of a real device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from amc_latency.device.base import Device, DeviceIdentity, Protocol, Summary, Timing, Workload
from amc_latency.lut.building.build import Plan
from amc_latency.lut.shapes.shape import NOOP, parse_network
from amc_latency.lut.table.table import LatencyTable

from amc_latency.console import Console
from amc_latency.measuring.profiling import Grid, complete_table
from amc_latency.models.load import NetworkOptions, load_network
from amc_latency.search.config import SearchConfig
from amc_latency.training.loop import TrainConfig
from amc_latency.training.train import TrainCommandConfig, train
from benchmarks.common import ROOT

FEW_IMAGES = f"{ROOT / 'tests/integration/few_images.py'}:few_images"


class Arithmetic(Device):
    """Half a microsecond a layer and one for each 10,000 multiply-accumulates, whenever it is asked."""

    def __init__(self) -> None:
        self.identity = DeviceIdentity("arithmetic", "exact", "arithmetic")

    def time_round(self, workloads: Sequence[Workload], protocol: Protocol, round_index: int) -> Iterator[Timing]:
        for workload in workloads:
            us = 1.0 + sum(0.5 + shape.macs / 10_000 for shape in parse_network(workload.name) if shape != NOOP)
            yield Timing(workload.name, round_index, protocol.runs, Summary(us, us, us, 0), Summary(us, us, us, 0))


def make_small_search(folder: Path) -> SearchConfig:
    """The config, of a checkpoint and a table that are made in the folder."""
    model, lut = folder / "small.safetensors", folder / "small.tsv"
    training = TrainConfig(epochs=3, image_size=(28, 28), low_resolution_epochs=0, batch_size=64, learning_rate=0.025)
    train(TrainCommandConfig(model, "lenet5", 2.0, FEW_IMAGES, training=training))
    network = load_network(NetworkOptions(str(model)))
    with LatencyTable.create(lut, Arithmetic().identity, Protocol(rounds=2)) as table:
        complete_table(network, Arithmetic(), table, Grid(), Console(quiet=True), Plan("grid"))
    return SearchConfig(
        speedup=2,
        device="replay",
        model=str(model),
        lut=str(lut),
        data=FEW_IMAGES,
        warmup=4,
        episodes=4,
        correction_episodes=2,
        agent="ddpg",
        warm_start=False,
        baselines="uniform,random",
        images=100,
        calibration_images=64,
        finetune_epochs=0,
        timing_rounds=1,
    )
