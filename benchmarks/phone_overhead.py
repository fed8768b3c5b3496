"""What timing on a phone costs beside the timing itself: milliseconds a layer over loopback, and memory here.

A fake phone, a process of its own on this computer, times `--layers` distinct layers in one round with the project's
own program, in its usual blocks. The same commands are then run here without a phone. The difference is the overhead:
building the models, pushing and verifying them, scripts, state, polling, collecting and parsing.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from importlib.metadata import version
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from amc_latency.device.base import Protocol, Workload
from amc_latency.device.host.host import cpu_model
from amc_latency.device.kinds import PhoneOptions
from amc_latency.device.phone.android import AndroidDevice
from amc_latency.device.registry import get_device
from amc_latency.lut.building.build import layer_workloads
from amc_latency.lut.shapes.shape import LayerShape


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=1500)
    parser.add_argument("--runner", default="amc_bench", choices=["amc_bench", "benchmark_model"])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    workloads = layer_workloads(shapes(options.layers))
    with tempfile.TemporaryDirectory() as folder, FakePhone(Path(folder)) as address:
        device = get_device(f"pixel1@{address}", PhoneOptions(runner=options.runner))
        assert isinstance(device, AndroidDevice)
        with device:
            protocol = replace(device.protocol, warmup=1, warmup_ms=0.0, runs=3, min_time_ms=0.0, max_runs=3)
            rows = [measured(device, workloads, protocol, repeat) for repeat in range(options.repeats)]
    print(f"{cpu_model()}, {os.cpu_count()} cores; Python {sys.version.split()[0]}, adb-shell {version('adb-shell')}")
    print(f"{options.layers} layers a round, {device.identity.runtime}")
    print("round  whole s  phone's own s  overhead ms a layer")
    for number, (whole_s, own_s) in enumerate(rows, start=1):
        print(f"{number:5}  {whole_s:7.2f}  {own_s:13.2f}  {1000 * (whole_s - own_s) / options.layers:19.1f}")
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of this process: {peak_mb:.0f} MB")


def shapes(number: int) -> list[LayerShape]:
    """Small layers, all different."""
    widths = product(range(8, 1024, 8), range(8, 1024, 8))
    return [LayerShape("conv", c_in, c_out, 4, 4) for c_in, c_out in sorted(widths, key=sum)[:number]]


def measured(
    device: AndroidDevice, workloads: list[Workload], protocol: Protocol, round_index: int
) -> tuple[float, float]:
    """Seconds of one round on the phone, and of its commands alone."""
    began = time.perf_counter()
    timings = list(device.time_round(workloads, protocol, round_index))
    whole_s = time.perf_counter() - began
    failed = [timing for timing in timings if timing.error]
    if failed or len(timings) != len(workloads):
        sys.exit(f"{len(timings)} timings of {len(workloads)} layers, {len(failed)} failed: {failed[:1]}")
    return whole_s, commands_s(device, workloads, protocol)


def commands_s(device: AndroidDevice, workloads: list[Workload], protocol: Protocol) -> float:
    """The runner's commands for the same blocks, sentinels too, without a phone."""
    files = device.phone.transport.run(f"ls {device.folder}/models").output.split()
    models = [f"{device.folder}/models/{name}" for name in files]
    step = device.phone.profile.trust.sentinel_every
    job = device.job(protocol)
    total_s = 0.0
    for start in range(0, len(workloads), step):
        block = [models[0], *models[start : start + step], models[0]]
        size = device.runner.models_per_process or len(block)
        for first in range(0, len(block), size):
            command = device.runner.command(block[first : first + size], job)
            began = time.perf_counter()
            subprocess.run(["sh", "-c", command], cwd=device.program_folder, check=True, capture_output=True)
            total_s += time.perf_counter() - began
    return total_s


class FakePhone:
    """The tests' phone in a process of its own, so that its memory is not counted here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> str:
        from fake_phone.programs import make_phone

        make_phone(self.folder)
        command = [sys.executable, "-m", "fake_phone.adbd", "--root", str(self.folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT / "tests")
        assert self.process.stdout is not None
        return self.process.stdout.readline().split()[-1]

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()


if __name__ == "__main__":
    main()
