"""`bench` of a file that leaves its input's sizes open, on every kind of device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from amc_latency.device.base import Device, DeviceIdentity, Protocol, Summary, Timing, Workload
from amc_latency.device.gpu.cuda import CudaDevice
from amc_latency.device.gpu.cuda_worker import CpuClock, answered
from amc_latency.device.tflite.tflite_inputs import tflite_inputs
from amc_latency.lut.tflite.writer import TfliteGraph

from amc_latency.cli.bench_text import bench_text
from amc_latency.console import Console
from amc_latency.errors import UserError
from amc_latency.measuring.bench import BenchConfig, bench

# `amc_latency.measuring.bench` is the function of that name.
bench_module = import_module("amc_latency.measuring.bench")

JOB = {"batch": 1, "precision": "fp32", "state": "hot", "warmup": 1, "warmup_ms": 0, "runs": 3, "min_time_ms": 0}


class OpenGraph(TfliteGraph):
    def open(self) -> None:
        self._subgraph.tensors[0].shapeSignature = np.array([-1, -1, -1, 3], np.int32)


class Recorder(Device):
    """Keeps what it is given to time; every run takes a microsecond."""

    identity = DeviceIdentity("recorder", "a test", "nothing")
    protocol = Protocol(rounds=1)

    def __init__(self) -> None:
        self.models: list[bytes] = []

    def time_round(self, workloads: Sequence[Workload], protocol: Protocol, round_index: int) -> Iterator[Timing]:
        for workload in workloads:
            self.models.append(workload.build())
            one = Summary(1.0, 1.0, 1.0, 0.0)
            yield Timing(workload.name, round_index, 1, one, one)


@pytest.fixture
def open_file(tmp_path: Path) -> Path:
    graph = OpenGraph()
    image = graph.input(1, 1, 3)
    graph.open()
    weight = np.ones((64, 3, 3, 3), np.float32)
    path = tmp_path / "open.tflite"
    path.write_bytes(graph.finish([graph.conv(image, weight, np.zeros(64, np.float32), padding=1)]))
    return path


def test_the_host_times_the_image_and_not_one_pixel(open_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"open\.tflite: the file leaves sizes of its input open.*`input_shapes` 1x224"):
        bench(BenchConfig(open_file, rounds=1, runs=1), Console(quiet=True))
    latency_ms = {}
    for size in (8, 128):
        report = bench(BenchConfig(open_file, rounds=1, runs=3, input_shapes=(f"1x{size}x{size}x3",)), Console())
        assert report.inputs == [f"x 1x{size}x{size}x3"]
        latency_ms[size] = report.latency_ms
    # 256 times as many pixels: a few times as long at least, on any computer.
    assert latency_ms[128] > 5 * latency_ms[8]
    bench_text(report)
    assert "input x 1x128x128x3" in capsys.readouterr().out


def test_every_device_is_given_a_file_of_that_size(open_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Recorder()
    monkeypatch.setattr(bench_module, "open_device", lambda *_: device)
    bench(BenchConfig(open_file, input_shapes=("2x8x8x3",)), Console(quiet=True))
    shapes = [tuple(schema.Model.GetRootAs(model, 0).Subgraphs(0).Tensors(0).ShapeAsNumpy()) for model in device.models]
    assert set(shapes) == {(2, 8, 8, 3)}
    assert not any(any(each.open) for model in device.models for each in tflite_inputs(model))
    # The GPU's worker, on a CPU: the profile's batch is in place of the file's.
    assert len(answered(CpuClock(), device.models[0], JOB | {"max_runs": 3})["ns"]) == 3


def test_a_gpu_has_the_batch_of_its_profile(open_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gpu(Recorder, CudaDevice):
        protocol = Protocol(rounds=1, batch=8)

    monkeypatch.setattr(bench_module, "open_device", lambda *_: Gpu())
    with pytest.raises(UserError, match=r"times 8 at once.*first size of 1"):
        bench(BenchConfig(open_file, input_shapes=("2x8x8x3",)), Console(quiet=True))
    for first in (1, 8):
        bench(BenchConfig(open_file, input_shapes=(f"{first}x8x8x3",)), Console(quiet=True))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "damaged.tflite"
    path.write_bytes(b"\0\0\0\0TFL3" + b"\xff" * 40)
    with pytest.raises(UserError, match=r"damaged\.tflite"):
        bench(BenchConfig(path), Console(quiet=True))


def test_a_gpu_has_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = object.__new__(CudaDevice)
    gpu.identity = DeviceIdentity("h200", "none", "none")
    monkeypatch.setattr(bench_module, "open_device", lambda *_: gpu)
    monkeypatch.setattr(bench_module, "read_model", lambda _: b"")
    monkeypatch.setattr(bench_module, "tflite_inputs", lambda _: [])
    monkeypatch.setattr(bench_module, "sized", lambda content, _: content)
    monkeypatch.setattr(CudaDevice, "close", lambda _: None)
    with pytest.raises(UserError, match="`threads` is of a processor's cores, and h200 is a GPU"):
        bench(BenchConfig(Path("net.tflite"), "cuda", threads=4), Console(quiet=True))
