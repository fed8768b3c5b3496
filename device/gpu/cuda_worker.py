"""The process in which PyTorch runs on a GPU: reads `.tflite` files, times each, answers in JSON lines.

Run as the module `amc_latency.device.gpu.cuda_worker TARGET` (by `confined.py`); TARGET is `cuda:0`, or `cpu`, which
does the same without a GPU, for tests. A job is a line `{"bytes": N, "batch": .., "precision": .., "state": ..,
"warmup": .., "warmup_ms": .., "runs": .., "min_time_ms": .., "max_runs": .., "cpu_s": ..}` and then the file's N
bytes; a line `{"bytes": 0}` asks what there is to run on. The first answer is `{"ready": true}`; then a job gets
`{"ns": [..], "how": "..", "graph": true, "fatal": false}` or `{"error": "..", "fatal": false}`, fatal where this
process is of no more use; the question gets `About`'s fields. The end of standard input ends the process.
"""

from __future__ import annotations

import gc
import itertools
import json
import math
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from time import perf_counter_ns
from typing import Any

import torch
from amc_latency.device.gpu.tflite_torch import UnsupportedModelError, load_module
from amc_latency.device.host.host_worker import limit_cpu

Run = Callable[[], object]

_GRAPH_MS = 1.0
"""How long a CUDA graph takes, at least: a hundred times what it takes to launch one."""
_MOST_COPIES = 200
_AT_ONCE = 20
"""Launches that are queued before anything is waited for."""
_NO_MEMORY = ("out of memory", "ALLOC_FAILED", "can't allocate memory")


@dataclass(frozen=True)
class About:
    """What there is to run on, or the problem that stands in the way."""

    torch: str
    cuda: str | None
    cudnn: int | None
    name: str = ""
    uuid: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Launch:
    """What is timed: so many runs of a workload at once."""

    start: Run
    copies: int
    how: str
    graph: bool


class CudaClock:
    """Times by the GPU's own clock: events around CUDA graphs, on one stream."""

    def __init__(self, target: str) -> None:
        self.device = torch.device(target)
        torch.cuda.set_device(self.device)
        torch.backends.cudnn.benchmark = True
        # One stream for warm-up and capture: libraries keep a handle for each.
        self._stream = torch.cuda.Stream()
        self._l2_bytes = int(getattr(torch.cuda.get_device_properties(self.device), "L2_cache_size", 0))
        self._flush: torch.Tensor | None = None

    def prepare(self, run: Run, job: dict[str, Any]) -> Launch:
        """Warm up, and capture as many copies of `run` as make up a graph of a millisecond.

        With a flushed cache there is one: the cache is emptied before each. Where the capture fails, plain launches
        are timed, and `how` says why.
        """
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            # Twice at least: the first run chooses cuDNN's algorithms.
            _warm_up(run, max(2, job["warmup"]), job["warmup_ms"], self._stream.synchronize)
            one = Launch(run, 1, "plain launches", graph=False)
            self._flush = self._new_flush() if job["state"] == "frame" else None
            run_ms = min(self.samples_ns(one, 3)) / 1e6
            copies = 1 if self._flush is not None else min(_MOST_COPIES, math.ceil(_GRAPH_MS / max(run_ms, 1e-3)))
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=self._stream):
                _repeated(run, copies)()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            torch.cuda.synchronize()
            # A capture that fails leaves its stream behind as the current one.
            torch.cuda.set_stream(torch.cuda.default_stream(self.device))
            why = " ".join(str(error).split())[:150]
            return Launch(_repeated(run, copies), copies, f"{copies} plain launches (no CUDA graph: {why})", False)
        return Launch(graph.replay, copies, f"CUDA graph of {copies}", graph=True)

    def samples_ns(self, launch: Launch, n: int) -> list[float]:
        """What `n` launches take, each between two events of its own; what empties the cache is not counted."""
        with torch.cuda.stream(self._stream):
            events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(n)]
            # The GPU is busy while the counted ones are queued behind: it never waits for a launch between two events.
            launch.start()
            for begin, end in events:
                if self._flush is not None:
                    self._flush.zero_()
                begin.record()
                launch.start()
                end.record()
            self._stream.synchronize()
        return [1e6 * begin.elapsed_time(end) for begin, end in events]

    def no_memory(self, batch: int) -> str:
        """What to tell of a workload that did not fit."""
        free, total = torch.cuda.mem_get_info(self.device)
        return _no_memory_text(batch, f"the GPU has {total / 2**30:.1f} GiB, {free / 2**30:.1f} of them free")

    def tidy(self) -> None:
        """Give back what a workload that failed still held."""
        gc.collect()
        torch.cuda.empty_cache()

    def _new_flush(self) -> torch.Tensor:
        # Twice the cache: an old line may survive one pass.
        return torch.empty(max(2 * self._l2_bytes, 1 << 26), dtype=torch.uint8, device=self.device)


class CpuClock:
    """The same on the CPU by the wall clock, for tests without a GPU."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")

    def prepare(self, run: Run, job: dict[str, Any]) -> Launch:
        """Two copies at once."""
        _warm_up(run, job["warmup"], job["warmup_ms"], lambda: None)
        return Launch(_repeated(run, 2), 2, "2 calls on the CPU", graph=True)

    def samples_ns(self, launch: Launch, n: int) -> list[float]:
        """What `n` launches take."""
        times = [perf_counter_ns()]
        for _ in range(n):
            launch.start()
            times.append(perf_counter_ns())
        return [float(after - before) for before, after in itertools.pairwise(times)]

    def no_memory(self, batch: int) -> str:
        """What to tell of a workload that did not fit."""
        return _no_memory_text(batch, "the CPU has no more memory")

    def tidy(self) -> None:
        """Nothing is kept."""


def main() -> None:
    """Answer jobs until standard input ends."""
    # Such a signal may reach the whole process group; the parent decides when this process ends.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # Whatever a library prints must not land between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    target = sys.argv[1]
    found = about(target)
    clock: CudaClock | CpuClock | None = None
    answer: dict[str, Any] = {"ready": True}
    while True:
        print(json.dumps(answer), file=answers, flush=True)
        job = json.loads(sys.stdin.buffer.readline() or "null")
        if job is None:
            return
        model = sys.stdin.buffer.read(job["bytes"])
        if not model or found.problem:
            answer = {**asdict(found), "error": found.problem}
            continue
        limit_cpu(job["cpu_s"])
        clock = clock or (CpuClock() if target == "cpu" else CudaClock(target))
        answer = answered(clock, model, job)


def answered(clock: CudaClock | CpuClock, model: bytes, job: dict[str, Any]) -> dict[str, Any]:
    """The timing of one file, or what went wrong."""
    try:
        return timed(clock, model, job)
    except UnsupportedModelError as error:
        return {"error": f"not for a GPU: {error}", "fatal": False}
    except Exception as error:
        text = " ".join(str(error).split())[:300] or type(error).__name__
    # Out of the handler: the traceback holds the tensors.
    if any(words in text for words in _NO_MEMORY):
        clock.tidy()
        return {"error": clock.no_memory(job["batch"]), "fatal": False}
    # After an error of CUDA itself nothing works any more.
    return {"error": f"PyTorch failed: {text}", "fatal": "CUDA error" in text}


@torch.inference_mode()
def timed(clock: CudaClock | CpuClock, model: bytes, job: dict[str, Any]) -> dict[str, Any]:
    """Samples of single runs in nanoseconds; raises whatever PyTorch raises."""
    compute_in(job["precision"])
    dtype = torch.float16 if job["precision"] == "fp16" else torch.float32
    module = load_module(model).to(clock.device, dtype).to(memory_format=torch.channels_last)
    inputs = module.random_inputs(job["batch"], dtype, clock.device)
    launch = clock.prepare(lambda: module(*inputs), job)
    samples_ns: list[float] = []
    end = perf_counter_ns() + job["min_time_ms"] * 1e6
    while len(samples_ns) < job["runs"] or (perf_counter_ns() < end and len(samples_ns) < job["max_runs"]):
        wanted = (job["runs"] if len(samples_ns) < job["runs"] else job["max_runs"]) - len(samples_ns)
        samples_ns += clock.samples_ns(launch, min(_AT_ONCE, wanted))
    ns = [round(sample / launch.copies) for sample in samples_ns]
    # What a failed capture leaves in the allocator is not for the next workload.
    return {"ns": ns, "how": launch.how, "graph": launch.graph, "fatal": not launch.graph}


def compute_in(precision: str) -> None:
    """Let products of float32 use tf32, or forbid it: for convolutions PyTorch allows it unless set."""
    allowed = "tf32" if precision == "tf32" else "ieee"
    torch.backends.cudnn.conv.fp32_precision = allowed  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = allowed


def about(target: str) -> About:
    """What there is to run on. A GPU is tried with one small kernel."""
    has = About(torch.__version__, torch.version.cuda, torch.backends.cudnn.version() if torch.version.cuda else None)
    if target == "cpu":
        return About(has.torch, has.cuda, has.cudnn, name="a CPU in a GPU's place")
    if has.cuda is None:
        return _stopped(has, f"torch {has.torch} is built without CUDA: install a build that has it, see pytorch.org")
    try:
        torch.cuda.init()
        properties = torch.cuda.get_device_properties(torch.device(target))
    except (RuntimeError, AssertionError) as error:
        text = " ".join(str(error).split()).partition(". ")[0].rstrip(".")
        return _stopped(has, f"PyTorch finds no such GPU ({target}): {text}. Does `nvidia-smi` list one?")
    try:
        torch.ones(1, device=target).add_(1).item()
    except RuntimeError as error:
        text = " ".join(str(error).split()).partition(". ")[0]
        if "no kernel image" in text:
            text = (
                f"torch {has.torch} has no code for its compute capability {properties.major}.{properties.minor}, only "
                f"for {', '.join(torch.cuda.get_arch_list())}: install a build for an older CUDA"
            )
        return _stopped(has, f"{properties.name} cannot be used: {text}")
    uuid = f"GPU-{properties.uuid}" if hasattr(properties, "uuid") else None
    return About(has.torch, has.cuda, has.cudnn, properties.name, uuid)


def _stopped(has: About, problem: str) -> About:
    return About(has.torch, has.cuda, has.cudnn, problem=problem)


def _warm_up(run: Run, runs: int, least_ms: float, wait: Run) -> None:
    end = perf_counter_ns() + least_ms * 1e6
    done = 0
    while done < runs or perf_counter_ns() < end:
        run()
        wait()
        done += 1


def _repeated(run: Run, copies: int) -> Run:
    def start() -> None:
        for _ in range(copies):
            run()

    return start


def _no_memory_text(batch: int, have: str) -> str:
    return f"out of memory at batch {batch}: {have}; choose a smaller batch in the profile's [timing]"


if __name__ == "__main__":
    main()
