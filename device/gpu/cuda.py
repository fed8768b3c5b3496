"""A GPU of this computer, timed with PyTorch in fresh worker processes."""

from __future__ import annotations

import os
import re
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from amc_latency.device.base import Device, DeviceError, DeviceIdentity, Protocol, Timing, Workload
from amc_latency.device.gpu.gpu_state import BUSY_PCT, LOOK_AGAIN_S, GpuProcess, GpuWatch, NvidiaSmi, conditions_of
from amc_latency.device.host.host import built
from amc_latency.device.host.host_speed import summary_of
from amc_latency.device.kinds import DeviceProfile, PhoneOptions, Trust
from amc_latency.device.phone.trust import Reference, sentinel_doubts
from amc_latency.device.profiles import profiles
from amc_latency.device.workers.process import WorkerDied, WorkerProcess, confined
from amc_latency.device.workers.worker_answer import believed_gpu

_SENTINEL = Path(__file__).parents[1] / "workers" / "sentinel.tflite"
_CUDA_FILE_BYTES = 2_000_000_000
"""Kernels that were compiled are kept in files."""
_HINT = f"Is torch installed for {sys.executable}?"


def open_gpu(profile: DeviceProfile, which: str, options: PhoneOptions) -> Device:
    """CUDA's GPU of the number `which`, the first if there is none."""
    if which and not which.isdecimal():
        raise DeviceError(f"a GPU goes by its number, as `device={profile.name}@1`, not '{which}'")
    return CudaDevice(profile, int(which or 0))


class CudaDevice(Device):
    """Times on CUDA's GPU number `index`: `.tflite` files as PyTorch modules, in channels_last, from CUDA graphs.

    Raises `DeviceError` where there is no such GPU, it is not the profile's, it is divided by MIG, or other processes
    compute on it. A process that only holds memory makes the timings suspect.
    """

    target = "cuda:{index}"
    """What the worker is told to run on."""
    states = ("frame", "hot")
    has_threads = False
    precisions = ("float32",)
    times_batches = True
    trust = Trust()
    """How often the sentinel network is timed, and by how much it may drift."""

    def __init__(self, profile: DeviceProfile, index: int = 0) -> None:
        self._target = self.target.format(index=index)
        # A search may hold memory of the same GPU, and computes on it by turns with what is timed.
        self._own = {os.getpid()}
        self._references: dict[str, Reference] = {state: Reference() for state in self.states}
        self.protocol = profile.protocol
        about = self._about()
        model = about["name"]
        _check_match(profile, model)
        self._uuid: str | None = about["uuid"]
        self._smi = self._answering_smi(model)
        self._others()
        protocol = profile.protocol
        self.identity = DeviceIdentity(
            profile.name,
            model,
            f"torch {about['torch']} cuda {about['cuda']} cudnn {about['cudnn']}, {protocol.precision}, "
            f"batch {protocol.batch}, channels_last, graphs",
        )

    def time_round(self, workloads: Sequence[Workload], protocol: Protocol, round_index: int) -> Iterator[Timing]:
        """One fresh worker for the round, and another after each workload that kills it or takes too long.

        A sentinel network is timed at the start and after each so many workloads: what is timed while it takes another
        time than usual is suspect. Raises `DeviceError` where the GPU is gone, or others compute on it.
        """
        if not workloads:
            return
        others = self._others()
        job = {
            "batch": protocol.batch,
            "precision": protocol.precision,
            "state": protocol.state,
            "warmup": protocol.warmup,
            "warmup_ms": protocol.warmup_ms,
            "runs": protocol.runs,
            "min_time_ms": protocol.min_time_ms,
            "max_runs": protocol.max_runs,
            "cpu_s": 60.0 + protocol.timeout_s * (os.cpu_count() or 1),
        }
        worker: WorkerProcess | None = None
        # The sentinel too takes longer where it finds nothing in the caches.
        reference = self._references[protocol.state]
        since_sentinel, sentinel_us, doubts = 0, None, list[str]()
        try:
            with GpuWatch(self._smi) as watch:
                for workload in workloads:
                    model = built(workload)
                    if isinstance(model, str):
                        yield Timing(workload.name, round_index, error=model)
                        continue
                    if worker is None or not worker.alive:
                        worker = self._start_worker()
                        since_sentinel = self.trust.sentinel_every
                    if since_sentinel >= self.trust.sentinel_every:
                        since_sentinel, sentinel_us = 0, self._sentinel_us(worker, job, protocol)
                        doubts = sentinel_doubts(self.trust, [sentinel_us], reference.us)
                        if not doubts:
                            reference.learn([sentinel_us])
                        if worker is None or not worker.alive:
                            worker = self._start_worker()
                    since_sentinel += 1
                    began_s = time.monotonic()
                    worker.send(job, model, protocol.timeout_s)
                    answer = _answer(worker)
                    if "error" in answer:
                        yield Timing(workload.name, round_index, error=answer["error"])
                        continue
                    states = watch.since(began_s)
                    how, graph = answer["how"], answer["graph"]
                    conditions = conditions_of(states, how, graph, others, self._uuid, sentinel_us, doubts)
                    ns = answer["ns"]
                    yield Timing(workload.name, round_index, len(ns), wall=summary_of(ns), conditions=conditions.text)
        finally:
            if worker is not None:
                worker.stop()

    def _sentinel_us(self, worker: WorkerProcess, job: dict[str, Any], protocol: Protocol) -> float | None:
        """The sentinel's median; None where it cannot be timed, which makes what follows suspect."""
        worker.send(job, _SENTINEL.read_bytes(), protocol.timeout_s)
        answer = _answer(worker)
        return None if "error" in answer else statistics.median(answer["ns"]) / 1e3

    def _start_worker(self) -> WorkerProcess:
        environment = dict(os.environ)
        if "CUDA_CACHE_PATH" not in environment:
            # Kernels that the driver has compiled outlive a worker's own home.
            environment["CUDA_CACHE_PATH"] = str(Path.home() / ".nv" / "ComputeCache")
        # No limit on memory: the driver reserves more addresses than any computer has bytes.
        command = confined(["-m", "amc_latency.device.gpu.cuda_worker", self._target], None, _CUDA_FILE_BYTES)
        worker = WorkerProcess(command, environment, _HINT)
        self._own.add(worker.pid)
        return worker

    def _about(self) -> dict[str, Any]:
        worker = self._start_worker()
        try:
            worker.send({}, b"", self.protocol.timeout_s)
            answer = worker.answer()
        except WorkerDied as error:
            raise DeviceError(f"PyTorch cannot use the GPU: {error}") from error
        finally:
            worker.stop()
        if answer["problem"]:
            raise DeviceError(answer["problem"])
        return answer

    def _answering_smi(self, model: str) -> NvidiaSmi | None:
        """None where nothing is to be learnt from `nvidia-smi`, e.g. in a container without it."""
        divided = re.search(r"\bMIG\b", model) is not None
        smi = None
        if self._uuid is not None and not divided:
            smi = NvidiaSmi(self._uuid)
            try:
                divided = smi.state().mig
            except DeviceError:
                smi = None
        if divided:
            raise DeviceError(
                f"{model} is divided by MIG, and its parts slow each other: time on a whole GPU "
                "(its administrator undoes the division with `nvidia-smi -mig 0`)"
            )
        return smi

    def _others(self) -> list[GpuProcess]:
        """Other processes that hold memory of the GPU. Raises `DeviceError` if they seem to compute."""
        if self._smi is None:
            return []
        try:
            others = [process for process in self._smi.processes() if process.pid not in self._own]
            busy = self._smi.state().utilization_pct or 0
            if others and busy >= BUSY_PCT:
                # What the driver says is of the last second, and may be our own work.
                time.sleep(LOOK_AGAIN_S)
                busy = self._smi.state().utilization_pct or 0
        except DeviceError:
            return []
        if others and busy >= BUSY_PCT:
            named = ", ".join(f"{other.name} ({other.pid})" for other in others)
            raise DeviceError(f"the GPU is {busy} % busy with other processes: {named}. End them, or wait for them")
        return others


def _answer(worker: WorkerProcess) -> dict[str, Any]:
    """The worker's answer; its death is an error of the workload, and its GPU's a `DeviceError`."""
    try:
        answer = worker.answer()
    except WorkerDied as error:
        return {"error": str(error)}
    if answer.get("problem"):
        raise DeviceError(str(answer["problem"]))
    answer = believed_gpu(answer)
    if answer.get("fatal"):
        worker.stop()
    return answer


def _check_match(profile: DeviceProfile, model: str) -> None:
    if profile.match.matches_gpu(model):
        return
    named = [each for each in profiles().values() if each.kind == profile.kind and each.match.matches_gpu(model)]
    best = max(named, key=lambda each: each.match.strictness).name
    raise DeviceError(f"this GPU is {model}, and not {profile.title}: say `device={best}`")
