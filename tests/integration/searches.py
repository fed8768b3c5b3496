"""What tests of whole searches share: a quiet search, a device that is slower than its table, what was logged."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from amc_latency.device.base import Protocol, Summary, Timing, Workload
from amc_latency.lut.prediction.replay import ReplayDevice
from amc_latency.lut.shapes.shape import network_text
from amc_latency.lut.table.table import LatencyTable

from amc_latency.console import Console
from amc_latency.models.load import load_network
from amc_latency.search import run as search_run
from amc_latency.search.config import SearchConfig
from amc_latency.search.judge.score import Tested
from amc_latency.search.results.result import SearchReport
from amc_latency.search.run import search
from amc_latency.training.outcome import Outcome

NINE_OF_TEN = Tested(90.0, 10, None, Outcome(torch.zeros(10, dtype=torch.int64), torch.arange(10) < 9, None, 0.0))


class SlowDevice(ReplayDevice):
    """Whole networks take `factor` times what the table says; each measurement multiplies it by `growth`."""

    factor = 1.0
    growth = 1.0

    def time_round(self, workloads: Sequence[Workload], protocol: Protocol, round_index: int):
        for timing in super().time_round(workloads, protocol, round_index):
            assert timing.cpu is not None
            us = timing.cpu.min_us * self.factor
            yield Timing(timing.workload, round_index, timing.n, Summary(us, us, us, 0), Summary(us, us, us, 0))
        self.factor *= self.growth


def slow_device(monkeypatch: pytest.MonkeyPatch, config: SearchConfig, factor: float, growth: float = 1.0) -> None:
    """Searches by this config's table meet such a device."""
    device = SlowDevice(LatencyTable.open(Path(config.lut or "")))
    device.factor, device.growth = factor, growth
    monkeypatch.setattr(search_run, "open_device", lambda *_: device)


def run(tmp_path: Path, config: SearchConfig, name: str = "run") -> SearchReport:
    """The search in the folder of that name."""
    return search(config, tmp_path / name, Console(quiet=True))


def half_of_uncut_ms(config: SearchConfig) -> float:
    """What `speedup=2` asks for, in milliseconds."""
    key = network_text(load_network(config.network).graph.architecture.shapes())
    us = LatencyTable.open(Path(config.lut or "")).latency_us(key)
    assert us is not None
    return us / 2000


def events(folder: Path) -> list[dict[str, Any]]:
    """The episodes of a run, but for the time that they took."""
    rows = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def phases(folder: Path) -> list[str]:
    """What a run timed whole networks for."""
    return [json.loads(line)["phase"] for line in (folder / "measurements.jsonl").read_text().splitlines()]
