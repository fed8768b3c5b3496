"""Timing a file: what a device has no use for."""

from __future__ import annotations

from pathlib import Path

import pytest

from amc_latency import bench as bench_module
from amc_latency.bench import BenchConfig, bench
from amc_latency.console import Console
from amc_latency.errors import UserError
from device.base import DeviceIdentity
from device.cuda import CudaDevice


def test_a_gpu_has_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = object.__new__(CudaDevice)
    gpu.identity = DeviceIdentity("h200", "none", "none")
    monkeypatch.setattr(bench_module, "open_device", lambda *_: gpu)
    monkeypatch.setattr(bench_module, "read_model", lambda _: b"")
    monkeypatch.setattr(CudaDevice, "close", lambda _: None)
    with pytest.raises(UserError, match="--threads is of a processor's cores, and h200 is a GPU"):
        bench(BenchConfig(Path("net.tflite"), "cuda", threads=4), Console(quiet=True))
