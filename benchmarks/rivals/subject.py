"""A trained network of a task, ready to be cut by anyone: what judges it, what it costs, and what times it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from amc_latency.device.base import Device
from amc_latency.lut.prediction.predict import Predictor
from amc_latency.lut.table.table import LatencyTable
from torch import nn

import amc_latency as amc
from amc_latency.export.export import export
from amc_latency.measuring.profiling import Grid
from amc_latency.models.load import Network, NetworkOptions, load_network
from amc_latency.search.costs.costs import LatencyCosts, predicted_costs
from amc_latency.search.delivery.timing import PolicyTimer
from amc_latency.search.judge.config import JudgeConfig
from amc_latency.search.judge.judge import Judge
from amc_latency.training.finetune import finetune_config
from amc_latency.training.loop import accuracy, fit
from amc_latency.training.recipe import BATCH
from benchmarks.rivals.tasks import Sizes

Share = tuple[float, float, float]
"""Of the uncut network's milliseconds in the same rounds, and the two ends of the 95 % interval."""


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """What is started within runs on `core`, so that timings need not share the one that trains."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass(frozen=True)
class Timer:
    """Times networks beside the uncut one, on the device."""

    device: Device
    network: Network
    table: LatencyTable
    rounds: int | None
    """of timing, as the table's unless set"""
    core: int | None

    def share(self, model: nn.Module) -> Share:
        """What `model` takes of the uncut network's milliseconds, as the exported files are timed."""
        rounds = self.rounds or self.table.protocol.network_rounds
        timer = PolicyTimer(self.device, replace(self.table.protocol, rounds=rounds), "original", None)
        with tempfile.TemporaryDirectory() as folder, on_core(self.core):
            files = {name: Path(folder) / f"{name}.tflite" for name in ("original", "cut")}
            export(self.network.model, self.network.spec.input, files["original"])
            export(model, self.network.spec.input, files["cut"])
            found = timer.time(files, "cut")["cut"].share_95
        share, low, high = found
        return share, low, high


@dataclass(frozen=True)
class Subject:
    """What every rival is given."""

    task: str
    name: str
    judge: Judge
    costs: LatencyCosts
    timer: Timer
    sizes: Sizes
    folder: Path
    """where a rival may keep what it must not do again"""

    @property
    def network(self) -> Network:
        """The uncut network."""
        return self.judge.base

    def held_back_pct(self, model: nn.Module) -> float:
        """Percent of all held-back images that `model` gets right."""
        return accuracy(model, self.judge.data.held_back, self.judge.image_size)

    def finetune(self, model: nn.Module, seed: int, rate: float) -> None:
        """Fine-tune `model` in place to the last epoch, as a search does, but at `rate`; the uncut network teaches."""
        train = self.judge.data.train
        few = train.take(self.sizes.train_images or len(train))
        config = finetune_config(self.sizes.epochs, self.judge.image_size, seed)
        config = replace(config, learning_rate=rate * min(1.0, config.batch(len(few)) / BATCH))
        fit(model, few, config, teacher=self.network.model)


@contextmanager
def opened(
    task: str, name: str, checkpoint: str, source: str, sizes: Sizes, out: Path, rounds: int | None, core: int | None
) -> Iterator[Subject]:
    """The network of `checkpoint` with its images of `source`; its table is built in `out` if it is not there."""
    from amc_latency.data import data_for

    network = load_network(NetworkOptions(checkpoint))
    data = data_for(network, source)
    # Scores are of one network's weights; layers take what they take whatever these are.
    folder = out / Path(checkpoint).stem
    folder.mkdir(parents=True, exist_ok=True)
    with amc.device("host") as device:
        with on_core(core):
            table = amc.profile(network, device, table=out / f"{name}-{sizes.image_size}.tsv", goal=sizes.goal)
        costs = predicted_costs(network.graph.architecture, Grid().choices(network), Predictor(table))
        judge = Judge(
            network,
            data,
            JudgeConfig(sizes.judge_images, recalibration_images=sizes.recalibration_images),
            folder / "scores.jsonl",
        )
        yield Subject(task, name, judge, costs, Timer(device, network, table, rounds, core), sizes, folder)
