"""This computer's CPU, timed with LiteRT and XNNPACK in fresh worker processes."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from device.base import Device, DeviceError, DeviceIdentity, Protocol, Summary, Timing, Workload
from device.host_cores import timing_order
from device.host_state import host_state
from device.process import WorkerDied, WorkerProcess

_WORKER = Path(__file__).with_name("host_worker.py")
_RUNTIME = "ai-edge-litert"
_HINT = f"Is {_RUNTIME} installed for {sys.executable}?"


class HostDevice(Device):
    """Times on `cpu`, one core of this computer (the last of the fastest that this process may use, if none is named).

    With several threads the worker gets as many cores, that one among them; with more threads than cores, or
    where the system has no affinity, it is not pinned. Raises `DeviceError` when LiteRT is missing or the
    core is not to be had. A core that was named stands in each timing's conditions. `workers` are the cores of all such
    devices that time side by side. What of this computer makes timings longer or unsteady is said before the first.
    """

    def __init__(self, cpu: int | None = None, workers: Sequence[int] = ()) -> None:
        allowed = allowed_cores()
        if cpu is not None and cpu not in allowed:
            raise DeviceError(f"core {cpu} is not one that this process may use: {allowed or 'this system cannot pin'}")
        self._cores = timing_order(allowed, named=cpu)
        self._workers = workers
        self._looked = False
        self._conditions = "" if cpu is None else json.dumps({"core": cpu})
        try:
            version = importlib.metadata.version(_RUNTIME)
        except importlib.metadata.PackageNotFoundError as error:
            raise DeviceError(f"the host device needs {_RUNTIME}: pip install {_RUNTIME}") from error
        self.identity = DeviceIdentity("host", cpu_model(), f"{_RUNTIME} {version} xnnpack")

    def worker_cores(self, threads: int) -> list[int]:
        """The cores a worker of `threads` threads is pinned to; none means not pinned."""
        return sorted(self._cores[-threads:]) if threads <= len(self._cores) else []

    def time_round(self, workloads: Sequence[Workload], protocol: Protocol, round_index: int) -> Iterator[Timing]:
        """One fresh worker for the round, and another after each workload that kills it or takes too long.

        Nothing is built while the worker measures: a neighbouring core's work slows it by up to 30 % where the two
        share hardware (a depthwise layer on two hyperthreads, 51 to 67 us), and a model takes about a millisecond.
        """
        job = {
            "warmup": protocol.warmup,
            "warmup_ms": protocol.warmup_ms,
            "runs": protocol.runs,
            "min_time_ms": protocol.min_time_ms,
            "max_runs": protocol.max_runs,
            "threads": protocol.threads,
            "touch_bytes": protocol.frame_mb << 20 if protocol.state == "frame" else 0,
        }
        self._look(protocol.threads)
        worker: WorkerProcess | None = None
        try:
            for workload in workloads:
                model = built(workload)
                if isinstance(model, str):
                    yield Timing(workload.name, round_index, error=model)
                    continue
                if worker is None or not worker.alive:
                    worker = self._start_worker(protocol.threads)
                worker.send(job, model, protocol.timeout_s)
                yield replace(_timing(workload, worker, round_index), conditions=self._conditions)
        finally:
            if worker is not None:
                worker.stop()

    def _look(self, threads: int) -> None:
        """Say what of this computer the user should know, once."""
        if not self._looked:
            self._looked = True
            for line in host_state(self._cores, threads, self._workers).lines:
                self.say(line)

    def _start_worker(self, threads: int) -> WorkerProcess:
        cores = ",".join(map(str, self.worker_cores(threads)))
        # -P: the folder of this file must not shadow other packages' modules.
        command = [sys.executable, "-P", str(_WORKER), cores]
        # NumPy's own threads are of no use to the worker.
        return WorkerProcess(command, {**os.environ, "OPENBLAS_NUM_THREADS": "1"}, _HINT)


def built(workload: Workload) -> bytes | str:
    """The workload's model, or the text of the error that came in its place."""
    try:
        return workload.build()
    except Exception as error:
        return one_line(f"not built: {type(error).__name__}: {error}")


def _timing(workload: Workload, worker: WorkerProcess, round_index: int) -> Timing:
    try:
        answer = worker.answer()
    except WorkerDied as error:
        return Timing(workload.name, round_index, error=str(error))
    if "error" in answer:
        return Timing(workload.name, round_index, error=answer["error"])
    cpu_ns, wall_ns = answer["cpu_ns"], answer["wall_ns"]
    return Timing(workload.name, round_index, len(cpu_ns), summary_of(cpu_ns), summary_of(wall_ns))


def summary_of(samples_ns: Sequence[int]) -> Summary:
    """Samples in nanoseconds as a summary in microseconds; the standard deviation is the population's."""
    samples_us = sorted(sample / 1e3 for sample in samples_ns)
    mean_us = statistics.fmean(samples_us)
    # The nearest rank: with fewer than a hundred samples p99 is the largest.
    p10_us, p90_us, p99_us = (samples_us[math.ceil(share * len(samples_us) / 100) - 1] for share in (10, 90, 99))
    return Summary(
        min_us=samples_us[0],
        median_us=statistics.median(samples_us),
        mean_us=mean_us,
        std_us=statistics.pstdev(samples_us, mean_us),
        p10_us=p10_us,
        p90_us=p90_us,
        p99_us=p99_us,
    )


def one_line(text: str) -> str:
    """`text` without line breaks, at most 300 characters."""
    return " ".join(text.split())[:300]


def allowed_cores() -> list[int]:
    """Cores that this process may run on; empty where the system has no affinity."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def separate_cores(n: int, system: Path = Path("/")) -> list[int]:
    """`n` cores to work side by side, of the fastest that this process may use: hyperthreads of one only if need be.

    The last is the one that is timed on alone. Raises `DeviceError` where there are fewer.
    """
    cores = allowed_cores()
    if n > len(cores):
        raise DeviceError(
            f"{n} workers need a core each: this process may use {len(cores)}"
            if cores
            else "this system cannot pin a process to a core, which several workers need"
        )
    *others, best = timing_order(cores, system)[-n:]
    return [*sorted(others), best]


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """What the CPU calls itself, and its generation's numbers: `AMD EPYC (cpu family 25, model 17)`."""
    fields: dict[str, str] = {}
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    name = fields.get("model name") or fields.get("Model") or platform.processor() or platform.machine()
    numbers = ("cpu family", "model", "CPU implementer", "CPU part")
    known = ", ".join(f"{number} {fields[number]}" for number in numbers if number in fields)
    return f"{name} ({known})" if known else name
