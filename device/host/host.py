"""This computer's CPU, timed with LiteRT and XNNPACK in fresh worker processes."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from amc_latency.android_bench.safe.limits import ACTIVATION_BYTES, WEIGHT_COPIES
from amc_latency.android_bench.safe.text import shown_line
from amc_latency.device.base import Device, DeviceError, DeviceIdentity, Protocol, Timing, Workload
from amc_latency.device.conditions import BUSY
from amc_latency.device.host.host_cores import timing_order
from amc_latency.device.host.host_speed import (
    Speed,
    at_reference,
    calm_runs,
    only,
    sentinel_speed,
    summary_of,
    wandering,
)
from amc_latency.device.host.host_state import host_state
from amc_latency.device.host.reference import ReferenceSpeeds, reference_path
from amc_latency.device.kinds import HOST_PROTOCOL
from amc_latency.device.workers.process import WorkerDied, WorkerProcess, confined, memory_for_workers
from amc_latency.device.workers.worker_answer import believed

_WORKER = Path(__file__).resolve().with_name("host_worker.py")
_SENTINEL = Path(__file__).resolve().parents[1] / "workers" / "sentinel.tflite"
"""The bundled MobileNetV1 at half its channels, all weights alike: its arithmetic and its 0.9 MB are a network's."""
_REFERENCE_SHARE = 0.1
_REFERENCE_RUNS = 3000
"""Seconds, in which a neighbour is quiet for a while: the fastest tenth is the reference, as what it does to a network
is told better from there on than back from a slow moment."""
_CALM_RUNS = 5
_CALM_SHARE = 0.1
"""So many runs, and such a share of all, are enough for a timing by calm ones alone."""
_TRIES = 4
_HOPELESS = 5
"""Timings in a row without calm runs, after which none is made again for want of them: it is busy for long."""
_RESTLESS = 0.3
"""A timing during which the speed wandered by more than this (its middle 80 %) is made again, and then suspect."""
_NOTABLE = 0.15
"""A speed that is off the reference by more is told."""
_SAME_REFERENCE = 0.01
"""A table's reference that is off this computer's own by more is told."""
_RUNTIME = "ai-edge-litert"
_HINT = f"Is {_RUNTIME} installed for {sys.executable}?"


class HostDevice(Device):
    """Times on `cpu`, one core of this computer (the last of the fastest that this process may use, if none is named).

    With several threads the worker gets as many cores, that one among them; with more threads than cores, or
    where the system has no affinity, it is not pinned. Raises `DeviceError` when LiteRT is missing or the
    core is not to be had. A core that was named stands in each timing's conditions. `workers` are the cores of all such
    devices that time side by side. What of this computer makes timings longer or unsteady is said before the first.

    Each run stands beside one of a sentinel network, and is given at the speed at which the sentinel takes what it took
    when it was first timed on this computer (`references`): neighbours on its hardware come and go. A row's conditions
    have both figures. What slows arithmetic does not slow memory as much, and networks have more of the one or of the
    other: so in state `frame` both are known apart, of the sentinel and of each run, by a second run back to back.
    """

    protocol = HOST_PROTOCOL
    states = ("frame", "hot")
    gives_reference = True
    is_this_computer = True

    def __init__(
        self, cpu: int | None = None, workers: Sequence[int] = (), references: ReferenceSpeeds | None = None
    ) -> None:
        allowed = allowed_cores()
        if cpu is not None and cpu not in allowed:
            raise DeviceError(f"core {cpu} is not one that this process may use: {allowed or 'this system cannot pin'}")
        self._cores = timing_order(allowed, named=cpu)
        self._workers = workers
        self._looked = False
        self._named = {} if cpu is None else {"core": cpu}
        self._references = references or ReferenceSpeeds(reference_path())
        self._tables: dict[str, tuple[float, float | None]] = {}
        self._told: set[str] = set()
        self._uncalm = 0
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
        job = _job(protocol)
        self._look(protocol.threads)
        if workloads:
            self.speed(protocol)
        worker: WorkerProcess | None = None
        try:
            for workload in workloads:
                model = built(workload)
                if isinstance(model, str):
                    yield Timing(workload.name, round_index, error=model)
                    continue
                if worker is None or not worker.alive:
                    worker = self._start_worker(protocol.threads)
                yield self._timing(worker, job, workload.name, model, protocol, round_index)
        finally:
            if worker is not None:
                worker.stop()

    def reference_us(self, protocol: Protocol) -> float:
        """What the sentinel takes at reference speed, timed now if it never was. Raises `DeviceError`."""
        return self.speed(protocol).us

    def speed(self, protocol: Protocol) -> Speed:
        """What the sentinel takes at reference speed, in the protocol's state and back to back; timed now if it never
        was. Raises `DeviceError`.
        """
        key = self._reference_key(protocol)
        hot_key = key if protocol.state == "hot" else f"{key}, then hot"
        of_table = self._tables.get(key)
        us, hot_us = of_table or (self._references.get(key), self._references.get(hot_key))
        if us is None or hot_us is None:
            now = self._time_sentinel(protocol)
            us = us or self._references.keep(key, now.us)
            # Both figures are of one speed, which need not be the one of now.
            hot_us = now.hot_us * (us / now.us)
            if of_table:
                self._tables[key] = us, hot_us
            else:
                hot_us = self._references.keep(hot_key, hot_us)
        self._tell(self._references.problem)
        return Speed(us, hot_us)

    def _time_sentinel(self, protocol: Protocol) -> Speed:
        worker = self._start_worker(protocol.threads)
        try:
            job = _job(replace(protocol, runs=_REFERENCE_RUNS, max_runs=_REFERENCE_RUNS))
            worker.send(job, _SENTINEL.read_bytes(), protocol.timeout_s)
            answer = believed(worker.answer())
        except WorkerDied as error:
            answer = {"error": str(error)}
        finally:
            worker.stop()
        if "error" in answer:
            raise DeviceError(f"the sentinel network cannot be timed: {answer['error']}")
        return sentinel_speed(answer, protocol.clock, share=_REFERENCE_SHARE)

    def use_reference(self, protocol: Protocol, reference_us: float, hot_us: float | None = None) -> str | None:
        """Give timings at the speed of a table that was begun elsewhere, or before this computer's own was lost.

        For this device only: the user's own reference stays as it is. `hot_us` is the sentinel's second run at it; if
        that is not known, it is timed once and set to the same speed.
        """
        key = self._reference_key(protocol)
        self._tables[key] = reference_us, reference_us if protocol.state == "hot" else hot_us
        own_us = self._references.get(key)
        if own_us is None or abs(reference_us / own_us - 1) <= _SAME_REFERENCE:
            return None
        return (
            f"timings go on at the speed of the table's rows, where the sentinel network takes {reference_us:.1f} us: "
            f"this computer's own reference is {own_us:.1f} us"
        )

    def _reference_key(self, protocol: Protocol) -> str:
        state = f"{protocol.state} {protocol.frame_mb} MB" if protocol.state == "frame" else protocol.state
        return f"{self.identity.model}, {self.identity.runtime}, {state}, {protocol.threads} threads, {protocol.clock}"

    def _timing(
        self,
        worker: WorkerProcess,
        job: dict[str, Any],
        name: str,
        model: bytes,
        protocol: Protocol,
        round_index: int,
    ) -> Timing:
        """The first of some tries that has enough calm runs, by those alone; else the one that wandered least."""
        reference = self.speed(protocol)
        best: tuple[float, dict[str, Any]] | None = None
        tries, is_calm = 0, False
        while tries < _TRIES and not is_calm:
            if best is not None and best[0] <= _RESTLESS and self._uncalm >= _HOPELESS:
                break
            tries += 1
            memory_bytes = ACTIVATION_BYTES + WEIGHT_COPIES * len(model)
            worker.send({**job, "memory_bytes": memory_bytes}, model, protocol.timeout_s)
            try:
                answer = believed(worker.answer())
            except WorkerDied as error:
                answer = {"error": str(error)}
            if "error" in answer:
                if best is None:
                    return Timing(name, round_index, error=answer["error"])
                break
            calm = calm_runs(answer, protocol.clock, reference)
            runs = len(answer["chunk"])
            is_calm = len(calm) >= min(runs, max(_CALM_RUNS, _CALM_SHARE * runs))
            wandered = 0.0 if is_calm else wandering(answer[f"sentinel_{protocol.clock}_ns"])
            if best is None or is_calm or wandered < best[0]:
                best = wandered, only(answer, calm) if is_calm else answer
        assert best is not None
        self._uncalm = 0 if is_calm else self._uncalm + 1
        wandered, answer = best
        now = sentinel_speed(answer, protocol.clock)
        speed = reference.us / now.us
        if abs(speed - 1) > _NOTABLE:
            self._tell(
                f"this computer runs at {100 * speed:.0f} % of its reference speed now: timings are given at that "
                "speed, and wander more"
            )
        conditions: dict[str, Any] = {
            **self._named,
            "sentinel_us": round(now.us, 2),
            "reference_us": round(reference.us, 2),
        }
        if protocol.state == "frame":
            conditions |= {"sentinel_hot_us": round(now.hot_us, 2), "reference_hot_us": round(reference.hot_us, 2)}
        if not is_calm:
            conditions[BUSY] = True
        if wandered > _RESTLESS:
            conditions |= {"tries": tries, "suspect": [f"speed wandered by {100 * wandered:.0f} %"]}
        cpu, wall = (summary_of(at_reference(answer, clock, protocol.clock, reference)) for clock in ("cpu", "wall"))
        return Timing(name, round_index, len(answer["cpu_ns"]), cpu, wall, conditions=json.dumps(conditions))

    def _tell(self, text: str | None) -> None:
        """Once each; figures in it don't make it another."""
        if text is not None and (kind := re.sub(r"[0-9.]+", "..", text)) not in self._told:
            self._told.add(kind)
            self.say(text)

    def _look(self, threads: int) -> None:
        """Say what of this computer the user should know, once."""
        if not self._looked:
            self._looked = True
            for line in host_state(self._cores, threads, self._workers).lines:
                self.say(line)

    def _start_worker(self, threads: int) -> WorkerProcess:
        cores = ",".join(map(str, self.worker_cores(threads)))
        command = confined([str(_WORKER), cores, str(_SENTINEL)], memory_for_workers())
        # NumPy's own threads are of no use to the worker.
        worker = WorkerProcess(command, {**os.environ, "OPENBLAS_NUM_THREADS": "1"}, _HINT)
        if unlimited := worker.ready.get("unlimited"):
            self._tell(f"the process that runs models is not fully confined on this system: {unlimited}")
        return worker


def built(workload: Workload) -> bytes | str:
    """The workload's model, or the text of the error that came in its place."""
    try:
        return workload.build()
    except Exception as error:
        return one_line(f"not built: {type(error).__name__}: {error}")


def _job(protocol: Protocol) -> dict[str, Any]:
    return {
        "warmup": protocol.warmup,
        "warmup_ms": protocol.warmup_ms,
        "runs": protocol.runs,
        "min_time_ms": protocol.min_time_ms,
        "max_runs": protocol.max_runs,
        "threads": protocol.threads,
        "touch_bytes": protocol.frame_mb << 20 if protocol.state == "frame" else 0,
        "cpu_s": _cpu_s(protocol),
        "memory_bytes": ACTIVATION_BYTES,
    }


def _cpu_s(protocol: Protocol) -> float:
    """CPU time that is more than a job can take before it is given up: all cores' at all times, for loading too."""
    return 60.0 + protocol.timeout_s * max(protocol.threads, os.cpu_count() or 1)


def one_line(text: str) -> str:
    """`text` without line breaks and control characters, at most 300 characters."""
    return shown_line(" ".join(text.split()), 300)


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
