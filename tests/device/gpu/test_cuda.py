"""A GPU as a device. Without one: the real worker process on the CPU."""

from __future__ import annotations

import json
import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from amc_latency.device.base import DeviceError, Protocol, Timing, Workload
from amc_latency.device.conditions import measured_by, suspicions
from amc_latency.device.gpu import cuda, cuda_worker
from amc_latency.device.gpu.cuda import CudaDevice
from amc_latency.device.gpu.cuda_worker import about
from amc_latency.device.gpu.tflite_torch import load_module
from amc_latency.device.kinds import GPU_PROTOCOL, DeviceProfile, Trust
from amc_latency.device.profiles import ProfileError, get_profile, load_profile
from amc_latency.device.registry import get_device, known_devices
from amc_latency.device.workers.process import WorkerProcess
from amc_latency.lut.building.layer_model import layer_model
from amc_latency.lut.shapes.shape import NOOP, LayerShape
from amc_latency.lut.table.table import LatencyTable
from typer.testing import CliRunner

POINTWISE = LayerShape("conv", 8, 16, 7, 7, activation="relu6")
QUICK = replace(GPU_PROTOCOL, warmup=1, warmup_ms=0.0, runs=3, min_time_ms=0.0, rounds=1, timeout_s=60.0)
UUID = "GPU-0a1b2c3d-1111-2222-3333-444455556666"


class OnCpu(CudaDevice):
    """The same with the worker on the CPU, whose speed is anybody's."""

    target = "cpu"
    trust = Trust(drift_pct=1e9)


class Drifting(OnCpu):
    """Its sentinel takes a fifth longer when it is timed for the third time."""

    trust = Trust(sentinel_every=1)

    def _sentinel_us(self, *_: object) -> float | None:
        self.looks = getattr(self, "looks", 0) + 1
        return {3: 120.0, 5: None}.get(self.looks, 100.0)


class OnTitan(OnCpu):
    """A GPU by what it says of itself."""

    def _about(self) -> dict[str, Any]:
        return {"name": "NVIDIA TITAN Xp", "uuid": UUID, "torch": "2", "cuda": "12.6", "cudnn": 9}


class Kept(WorkerProcess):
    """Goes on when it is to stop, unless it has failed: a fresh one takes two seconds to import PyTorch."""

    def stop(self) -> None:
        if not self.alive:
            super().stop()


@pytest.fixture(scope="module")
def kept_worker() -> Iterator[Callable[..., Kept]]:
    """Starts a worker, or has the one that a test before has started by the same command."""
    workers: dict[str, Kept] = {}

    def start(command: Sequence[str], environment: Mapping[str, str], hint: str) -> Kept:
        worker = workers.get(command[-1])
        if worker is None or not worker.alive:
            worker = workers[command[-1]] = Kept(command, environment, hint)
        return worker

    yield start
    for worker in workers.values():
        WorkerProcess.stop(worker)


@pytest.fixture(autouse=True)
def quick_workers(kept_worker: Callable[..., Kept], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(cuda, "WorkerProcess", kept_worker)


@pytest.fixture
def device() -> CudaDevice:
    """Has asked its worker; a round has its own protocol."""
    return OnCpu(profile())


def test_what_is_timed_while_the_sentinel_drifts_is_suspect() -> None:
    device = Drifting(profile())
    found = list(device.time_round([work(str(number)) for number in range(5)], QUICK, 0))
    assert [suspicions(timing.conditions) for timing in found] == [
        [],
        [],
        ["sentinel drift 20.0 %"],
        [],
        ["the sentinel layer was not timed"],
    ]
    assert [json.loads(timing.conditions).get("sentinel_us") for timing in found] == [100, 100, 120, 100, None]


def test_each_state_has_a_sentinel_time_of_its_own() -> None:
    class Cold(OnCpu):
        """Its sentinel takes half as long again where it finds nothing in the caches."""

        trust = Trust()

        def _sentinel_us(self, worker: object, job: dict[str, Any], protocol: Protocol) -> float | None:
            return 150.0 if protocol.state == "frame" else 100.0

    device = Cold(profile())
    for state in device.states:
        (timing,) = device.time_round([work("noop")], replace(QUICK, state=state), 0)
        assert suspicions(timing.conditions) == []


def profile(protocol: Protocol = QUICK) -> DeviceProfile:
    return replace(get_profile("cuda"), protocol=protocol)


def work(name: str, shape: LayerShape = NOOP, before: Callable[[], object] = lambda: None) -> Workload:
    def build() -> bytes:
        before()
        return layer_model(shape)

    return Workload(name, build)


def timed(device: CudaDevice, workloads: list[Workload], protocol: Protocol = QUICK) -> dict[str, Timing]:
    return {timing.workload: timing for timing in device.time_round(workloads, protocol, 0)}


def nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, busy: int, mig: str, processes: str) -> None:
    """An `nvidia-smi` that is a shell script."""
    path = folder / "nvidia-smi"
    state = f"{UUID}, 470.82.01, 1404, 5508, 60, {busy}, {mig}, 0x0000000000000000"
    path.write_text(f'#!/bin/sh\ncase "$2" in *compute-apps*) echo "{processes}";; *) echo "{state}";; esac\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_layers_are_timed_by_the_wall_clock(device: CudaDevice) -> None:
    found = timed(device, [work("noop"), work("pointwise", POINTWISE)], replace(QUICK, batch=2))
    for timing in found.values():
        assert timing.error is None
        assert (timing.n, timing.cpu) == (3, None)
        assert timing.wall is not None
        assert timing.latency_us(QUICK) == timing.wall.median_us > 0
        assert suspicions(timing.conditions) == []


def test_who_measured_and_how(device: CudaDevice) -> None:
    assert device.identity.name == "cuda"
    assert device.identity.runtime.startswith(f"torch {torch.__version__} cuda {torch.version.cuda} cudnn ")
    identity = OnTitan(profile(replace(QUICK, batch=50, precision="fp16"))).identity
    assert identity.runtime == "torch 2 cuda 12.6 cudnn 9, fp16, batch 50, channels_last, graphs"


def test_what_fails_gets_an_error_row_and_the_round_goes_on(device: CudaDevice) -> None:
    huge = LayerShape("conv", 1024, 8, 16384, 16384, 3, 1, 1)
    workloads = [
        Workload("garbage", lambda: b"garbage"),
        work("raises", before=lambda: {}["weights"]),
        work("noop"),
    ]
    found = timed(device, workloads)
    assert found["garbage"].error == "not for a GPU: it is no .tflite file"
    assert found["raises"].error == "not built: KeyError: 'weights'"
    assert found["noop"].error is None
    # 1024 * 16384 * 16384 * 4 bytes an image: 11.0 TB. The sentinel is timed at this batch too.
    found = timed(device, [work("huge", huge), work("noop")], replace(QUICK, batch=10))
    assert "out of memory at batch 10:" in (found["huge"].error or "")
    assert "choose a smaller batch in the profile's [timing]" in (found["huge"].error or "")
    assert found["noop"].error is None


def test_a_workload_that_kills_the_worker_gets_an_error_row(
    device: CudaDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = device._start_worker
    pids: list[int] = []

    def start() -> Any:
        worker = started()
        pids.append(worker.pid)
        return worker

    monkeypatch.setattr(device, "_start_worker", start)
    later = threading.Timer(0.3, lambda: os.kill(pids[0], signal.SIGKILL))
    # 7 runs of 29.6 billion MACs, as warm-up, and three times two copies.
    slow = work("slow", LayerShape("conv", 256, 256, 224, 224, 3, 1, 1), later.start)
    found = timed(device, [work("a"), slow, work("b")])
    assert found["slow"].error == "the process ended by SIGKILL"
    assert found["a"].error is found["b"].error is None
    assert len(pids) == 2


def test_a_gpu_that_is_gone_ends_the_round(device: CudaDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.setattr(device, "_target", "cuda:0")
    with pytest.raises(DeviceError, match="no NVIDIA driver"):
        timed(device, [work("a")])


def test_a_computer_without_a_gpu_says_so() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(DeviceError, match=r"no such GPU \(cuda:0\): Found no NVIDIA driver.*nvidia-smi") as caught:
        get_device("cuda")
    assert "\n" not in str(caught.value)
    with pytest.raises(DeviceError, match="goes by its number, as `device=h100@1`, not 'x'"):
        get_device("h100@x")
    assert known_devices()["h100"] == "NVIDIA H100"


def test_a_torch_without_cuda_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "is built without CUDA" in (about("cuda:0").problem or "")


def test_a_gpu_that_torch_no_longer_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    class Titan:
        name, major, minor = "NVIDIA TITAN Xp", 6, 1

    def ones(*_: object, **__: object) -> torch.Tensor:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nCUDA kernel errors")

    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: Titan)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90"])
    monkeypatch.setattr(torch, "ones", ones)
    problem = about("cuda:0").problem or ""
    assert problem.startswith("NVIDIA TITAN Xp cannot be used: torch ")
    assert "compute capability 6.1, only for sm_75, sm_90: install a build for an older CUDA" in problem


def test_another_gpu_than_the_profiles_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match="this GPU is NVIDIA TITAN Xp, and not NVIDIA H100: say `device=titan-xp`"):
        OnTitan(get_profile("h100"))
    monkeypatch.setattr(OnTitan, "_about", lambda device: {"name": "Tesla T4"})
    with pytest.raises(DeviceError, match="is Tesla T4, and not NVIDIA H100: say `device=cuda`"):
        OnTitan(get_profile("h100"))


def test_a_divided_gpu_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(tmp_path, monkeypatch, 0, "Enabled", "")
    with pytest.raises(DeviceError, match="NVIDIA TITAN Xp is divided by MIG"):
        OnTitan(profile())


def test_a_gpu_that_others_compute_on_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(tmp_path, monkeypatch, 97, "[N/A]", "77, train.py")
    with pytest.raises(DeviceError, match=r"97 % busy with other processes: train.py \(77\)"):
        OnTitan(profile())


def test_a_search_that_computes_on_the_same_gpu_is_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(tmp_path, monkeypatch, 97, "[N/A]", f"{os.getpid()}, python")
    timing = timed(OnTitan(get_profile("titan-xp")), [work("noop")])["noop"]
    assert suspicions(timing.conditions) == []


def test_others_that_hold_memory_only_make_rows_suspect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(tmp_path, monkeypatch, 0, "[N/A]", "77, notebook")
    timing = timed(OnTitan(get_profile("titan-xp")), [work("noop")])["noop"]
    assert suspicions(timing.conditions) == ["shared with notebook (77)"]
    assert measured_by(timing.conditions) == UUID
    assert json.loads(timing.conditions)["sm_mhz"] == [1404, 1404]


def test_tf32_is_used_only_when_asked_for() -> None:
    before = (torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision)
    try:
        for precision, allowed in (("tf32", "tf32"), ("fp32", "ieee"), ("fp16", "ieee")):
            cuda_worker.compute_in(precision)
            assert torch.backends.cudnn.conv.fp32_precision == allowed
            assert torch.backends.cuda.matmul.fp32_precision == allowed
    finally:
        torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision = before


def test_profiles() -> None:
    titan, h100, any_gpu = (get_profile(name) for name in ("titan-xp", "h100", "cuda"))
    assert (titan.protocol.batch, titan.protocol.precision) == (50, "fp32")
    assert h100.match.matches_gpu("NVIDIA H100 80GB HBM3")
    assert titan.match.matches_gpu("NVIDIA TITAN Xp")
    assert not titan.match.matches_gpu("NVIDIA TITAN X (Pascal)")
    assert any_gpu.match.matches_gpu("Tesla T4")
    assert any_gpu.protocol == GPU_PROTOCOL


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [
        ("host", "[timing]\nbatch = 8", "batch is for a GPU only"),
        ("android", '[timing]\nprecision = "fp16"\nbatch = 2', "batch, precision is for a GPU only"),
        ("android", '[timing]\nstate = "frame"', "state of a phone is hot"),
        ("cuda", '[timing]\nl2 = "flushed"', "l2 is called state: hot for warm, frame for flushed"),
        ("cuda", '[timing]\nclock = "cpu"', "clock of a GPU is wall"),
        ("cuda", '[timing]\nprecision = "int8"', "precision fp32, tf32 or fp16"),
        ("cuda", '[match]\nsocs = ["GH100"]', "[match] of a GPU has models only"),
        ("cuda", "[trust]\ntries = 2", "no [trust]; known are: match, timing"),
    ],
)
def test_a_mistaken_profile_is_told_in_one_line(tmp_path: Path, kind: str, text: str, says: str) -> None:
    (tmp_path / "mine.toml").write_text(f'kind = "{kind}"\ntitle = "x"\n{text}')
    with pytest.raises(ProfileError) as caught:
        load_profile(tmp_path / "mine.toml")
    assert says in str(caught.value)


@pytest.mark.slow
def test_profile_predict_and_bench_run_unchanged(
    device: CudaDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from amc_latency.cli.main import app

    for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr(cuda, "CudaDevice", OnCpu)
    lut, file = tmp_path / "t.tsv", tmp_path / "conv.tflite"
    LatencyTable.create(lut, device.identity, QUICK)

    def run(*arguments: object) -> dict[str, Any]:
        result = CliRunner().invoke(app, [*map(str, arguments), "--json"], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout.splitlines()[-1])

    network = ("--model", "mobilenet_v1", "--width", 0.25, "--input", "1x32x32", "--classes", 10)
    made = run("profile", "--device", "cuda", *network, "--lut", lut, "--min-keep", 0.9, "--step", 64)
    assert made["rows"] == made["timed"] > 10
    assert (made["incomplete"], made["suspect"]) == (0, 0)
    predicted = run("predict", "--device", "cuda", *network, "--lut", lut)
    assert predicted["raw_ms"] > 0
    assert predicted["table"] == str(lut)
    file.write_bytes(layer_model(POINTWISE))
    # Each round's worker is its own here.
    monkeypatch.setattr(cuda, "WorkerProcess", WorkerProcess)
    measured = run("bench", file, "--device", "cuda", "--rounds", 2, "--runs", 4)
    assert measured["latency_ms"] > 0
    assert measured["statistic"] == "median over 2 rounds of the median wall time"
    assert [row["flags"] for row in measured["conditions"]] == ["2 calls on the CPU"] * 2


@pytest.mark.gpu
@pytest.mark.parametrize("state", ["hot", "frame"])
def test_a_real_gpu(state: Any) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU that PyTorch can use")
    big = LayerShape("conv", 256, 256, 28, 28, 3, 1, 1, "relu6")
    device = get_device("cuda")
    protocol = replace(device.protocol, batch=8, state=state, rounds=1)
    found = {timing.workload: timing for timing in device.time([work("noop"), work("big", big)], protocol)}
    assert all("CUDA graph of" in json.loads(timing.conditions)["flags"] for timing in found.values())
    assert found["noop"].latency_us(protocol) < found["big"].latency_us(protocol)
    huge = list(device.time([work("huge", big), work("noop")], replace(protocol, batch=1_000_000)))
    assert {timing.workload: bool(timing.error) for timing in huge} == {"huge": True, "noop": False}


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("tf32", 2e-3), ("fp16", 2e-3)])
def test_a_real_gpu_computes_what_the_cpu_computes(precision: str, tolerance: float) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU that PyTorch can use")
    cuda_worker.compute_in(precision)
    module = load_module(layer_model(LayerShape("conv", 64, 64, 28, 28, 3, 2, 1)))
    (x,) = module.random_inputs(4, torch.float32, "cpu")
    with torch.inference_mode():
        (expected,) = module(x)
        dtype = torch.float16 if precision == "fp16" else torch.float32
        (found,) = module.to("cuda", dtype).to(memory_format=torch.channels_last)(x.to("cuda", dtype))
    error = np.abs(found.float().cpu().numpy() - expected.numpy()).max() / np.abs(expected.numpy()).max()
    assert error < tolerance
