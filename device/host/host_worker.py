"""The process in which LiteRT runs: reads models from standard input, times each, answers in JSON lines.

Run by file path, `host_worker.py CORES SENTINEL` (by `confined.py`), so it imports nothing of this package. CORES is
a comma list of the cores to run on, or empty; SENTINEL the `.tflite` that is timed in between. A job is a line
`{"bytes": N, "warmup": .., "warmup_ms": .., "runs": .., "min_time_ms": .., "max_runs": .., "threads": ..,
"touch_bytes": .., "cpu_s": .., "memory_bytes": ..}` and then the model's N bytes: more memory is not to be had, and
with more CPU time it is killed, also where its parent is no longer there to do so. The first answer is `{"ready":
true, "unlimited": ".."}`; then each job gets `{"cpu_ns": [..], "wall_ns": [..], "chunk": [..], "sentinel_cpu_ns":
[..], "sentinel_wall_ns": [..]}` or `{"error": ".."}`: each run's chunk is the number of the sentinel's run right
before it, in the same state. After other memory both run once more, back to back: `hot_cpu_ns`, `hot_wall_ns`,
`sentinel_hot_cpu_ns`, `sentinel_hot_wall_ns`.
With `touch_bytes` that much other memory is written before the sentinel runs, and then the model: both find their
inputs and outputs in the cache, and no weights. The end of standard input ends the process.
"""

from __future__ import annotations

import gc
import json
import math
import os
import resource
import signal
import sys
from collections.abc import Callable
from time import perf_counter_ns, thread_time_ns
from typing import Any, NamedTuple

import numpy as np

_SETTLE_BYTES = 3 << 20
"""Other memory between two runs of the sentinel that settle it: more than a core's own cache."""
_SETTLE_NS = 250_000
"""About what such a run takes, with that memory."""
_SETTLED_NS = 1_000_000
"""A model that takes no longer leaves the sentinel where it is."""
_MOST_SETTLING = 12
_CHUNK_NS = 2_000_000
"""How long a speed is taken to last: a neighbour comes and goes within tens of milliseconds."""
_CLOCKS_NS = 1300
"""What reading both clocks takes, which wall time holds and CPU time hardly."""


def main() -> None:
    """Answer jobs until standard input ends."""
    # Such a signal may reach the whole process group; the parent decides when this process ends.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # Whatever a library prints must not land between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    cores = [int(core) for core in sys.argv[1].split(",") if core]
    if cores:
        os.sched_setaffinity(0, cores)
    # After pinning, so that threads started on import stay on these cores too.
    from ai_edge_litert.interpreter import Interpreter

    gc.disable()
    answer: dict[str, Any] = {"ready": True, "unlimited": os.environ.get("AMC_LATENCY_UNLIMITED", "")}
    sentinel: Timed | None = None
    while True:
        print(json.dumps(answer), file=answers, flush=True)
        job = json.loads(sys.stdin.buffer.readline() or "null")
        if job is None:
            return
        limit_cpu(job["cpu_s"])
        limit_memory(job["memory_bytes"])
        try:
            content = sys.stdin.buffer.read(job["bytes"])
            if sentinel is None:
                sentinel = Timed(Interpreter(model_path=sys.argv[2], num_threads=job["threads"]))
            model = Timed(Interpreter(model_content=content, num_threads=job["threads"]))
            answer = timed(model, sentinel, job)
        except Exception as error:
            text = " ".join(str(error).split())[:300]
            answer = {"error": f"LiteRT failed: {text or type(error).__name__}"}


def limit_cpu(seconds: float) -> None:
    """End this process by SIGXCPU when it has used so much more CPU time."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = math.ceil(used.ru_utime + used.ru_stime + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def limit_memory(more_bytes: int) -> None:
    """Let this process have so many bytes more than it has, within its limit for good; nothing where Linux isn't."""
    try:
        with open("/proc/self/status") as status:
            [own_kb] = [int(line.split()[1]) for line in status if line.startswith("VmData:")]
    except (OSError, ValueError):
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    soft = 1024 * own_kb + more_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


class Timed:
    """A model that is loaded into fresh memory, with its inputs."""

    def __init__(self, interpreter: Any) -> None:
        interpreter.allocate_tensors()
        rng = np.random.default_rng(0)
        self._inputs = [
            (details["index"], input_values(rng, details["shape"], np.dtype(details["dtype"])))
            for details in interpreter.get_input_details()
        ]
        self._set_tensor = interpreter.set_tensor
        self._outputs = [interpreter.tensor(details["index"]) for details in interpreter.get_output_details()]
        self.invoke = interpreter.invoke
        self.set_inputs()

    def set_inputs(self) -> None:
        """Write the inputs: a run finds them in the cache, as an app has just put them there."""
        for index, values in self._inputs:
            self._set_tensor(index, values)

    def touch_outputs(self) -> None:
        """Have the outputs in the cache: a layer in a network writes to memory that others before it have used."""
        for output in self._outputs:
            # A single value is none to write into.
            if (values := output()).ndim:
                values[...] = 0

    def sample(self) -> Sample:
        """What one run takes."""
        invoke = self.invoke
        wall_start = perf_counter_ns()
        cpu_start = thread_time_ns()
        invoke()
        cpu_ns = thread_time_ns() - cpu_start
        return cpu_ns, perf_counter_ns() - wall_start


def timed(model: Timed, sentinel: Timed, job: dict[str, Any]) -> dict[str, Any]:
    """Samples of single runs in nanoseconds, on both clocks; raises whatever LiteRT raises."""
    warm = perf_counter_ns() + job["warmup_ms"] * 1e6
    runs = took_ns = 0
    while runs < job["warmup"] or perf_counter_ns() < warm:
        began = perf_counter_ns()
        model.invoke()
        took_ns = perf_counter_ns() - began
        runs += 1
    if job["touch_bytes"]:
        settling = min(max(0, took_ns - _SETTLED_NS) // _SETTLE_NS, _MOST_SETTLING)
        chunks = frames(model, sentinel, job["touch_bytes"], settling)
    else:
        chunks = hot_chunks(model, sentinel)
    samples: list[Sample] = []
    hot: list[Sample] = []
    chunk: list[int] = []
    sentinels: list[Sample] = []
    sentinels_hot: list[Sample] = []
    end = perf_counter_ns() + job["min_time_ms"] * 1e6
    while len(samples) < job["runs"] or (perf_counter_ns() < end and len(samples) < job["max_runs"]):
        most = (job["runs"] if len(samples) < job["runs"] else job["max_runs"]) - len(samples)
        found = chunks(most)
        chunk += [len(sentinels)] * len(found.samples)
        samples += found.samples
        hot += found.hot
        sentinels.append(found.sentinel)
        sentinels_hot += found.sentinel_hot
    true = well_read(*map(list, zip(*samples, strict=True)))
    answer: dict[str, Any] = {"chunk": [chunk[i] for i in true]}
    for place, clock in enumerate(("cpu_ns", "wall_ns")):
        answer[clock] = [samples[i][place] for i in true]
        answer[f"sentinel_{clock}"] = [sample[place] for sample in sentinels]
        if hot:
            answer[f"hot_{clock}"] = [hot[i][place] for i in true]
            answer[f"sentinel_hot_{clock}"] = [sample[place] for sample in sentinels_hot]
    return answer


Sample = tuple[int, int]
"""Nanoseconds of this thread's CPU and of the wall clock."""


class Chunk(NamedTuple):
    """Some runs of the model after one of the sentinel; after other memory, one more of each, back to back."""

    samples: list[Sample]
    sentinel: Sample
    hot: list[Sample]
    sentinel_hot: list[Sample]


Chunks = Callable[[int], Chunk]
"""From the most runs that are wanted to some."""


def frames(model: Timed, sentinel: Timed, touch_bytes: int, settling: int) -> Chunks:
    """One run of each, both as an app that infers once a frame sees it: after other memory, and with a fresh input.

    The model runs right after the sentinel, which is other memory too, and by which the code of the runtime and of
    Python's way into it is there: in a network most layers find it so, and an app's way in is another. A second run of
    each shows how much of the first was arithmetic, and how much memory.

    A large model leaves nothing of the sentinel in any cache, so that it takes 2.2 times as long beside MobileNetV1-224
    (17 MB) as beside a small network (Intel Xeon). `settling` runs of it, with a little other memory in between, bring
    it back to where it lies beside a small one: it must tell the machine's speed, not the model's size.
    """
    other, little = np.zeros(touch_bytes // 8), np.zeros(_SETTLE_BYTES // 8)

    def frame(of: Timed) -> tuple[Sample, Sample]:
        of.touch_outputs()
        of.set_inputs()
        return of.sample(), of.sample()

    def chunk(most: int) -> Chunk:
        for _ in range(settling):
            sentinel.invoke()
            np.add(little, 1.0, out=little)
        np.add(other, 1.0, out=other)
        beside, beside_hot = frame(sentinel)
        first, second = frame(model)
        return Chunk([first], beside, [second], [beside_hot])

    return chunk


def hot_chunks(model: Timed, sentinel: Timed) -> Chunks:
    """Runs back to back for two milliseconds, after the sentinel's; the first of either finds the other's memory."""

    def chunk(most: int) -> Chunk:
        sentinel.invoke()
        beside = sentinel.sample()
        model.invoke()
        found: list[Sample] = []
        end = perf_counter_ns() + _CHUNK_NS
        while not found or (len(found) < most and perf_counter_ns() < end):
            found.append(model.sample())
        return Chunk(found, beside, [], [])

    return chunk


def well_read(cpu_ns: list[int], wall_ns: list[int]) -> list[int]:
    """Which samples to believe: all but those whose CPU time is far below both the others' and the least wall time.

    On a busy virtual machine the thread's clock is sometimes read a few microseconds short, and such a sample would be
    the smallest: 4.7 us of CPU time have been seen of a layer that never took less than 7.9 us of wall time.
    """
    least_wall_ns, usual_ns = min(wall_ns), sorted(cpu_ns)[len(cpu_ns) // 2]
    floor_ns = min(0.85 * least_wall_ns - _CLOCKS_NS, 0.85 * usual_ns)
    return [i for i, sample in enumerate(cpu_ns) if sample >= floor_ns]


def input_values(rng: np.random.Generator, shape: Any, dtype: np.dtype) -> np.ndarray:
    """Random values for one input: floats in [-1, 1), 8-bit integers of all values, zeros for the rest.

    Wider integers are mostly indices, and zero is one that always exists.
    """
    if dtype.kind == "f":
        return (rng.random(shape, dtype=np.float32) * 2 - 1).astype(dtype)
    if dtype.kind in "iu" and dtype.itemsize == 1:
        return rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    return np.zeros(shape, dtype)


if __name__ == "__main__":
    main()
