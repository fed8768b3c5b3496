"""The process in which LiteRT runs: reads models from standard input, times each, answers in JSON lines.

Run by file path, `python -P host_worker.py CORES`, so it imports nothing of this package. CORES is a comma
list of the cores to run on, or empty. A job is a line `{"bytes": N, "warmup": .., "warmup_ms": .., "runs": ..,
"min_time_ms": .., "max_runs": .., "threads": .., "touch_bytes": ..}` and then the model's N bytes. The first answer is
`{"ready": true}`; then each job gets `{"cpu_ns": [..], "wall_ns": [..]}` or `{"error": ".."}`. With `touch_bytes` that
much other memory is written before each run, and the inputs after it. The end of standard input ends the process.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from time import perf_counter_ns, thread_time_ns
from typing import Any

import numpy as np

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
    answer: dict[str, Any] = {"ready": True}
    while True:
        print(json.dumps(answer), file=answers, flush=True)
        job = json.loads(sys.stdin.buffer.readline() or "null")
        if job is None:
            return
        try:
            model = sys.stdin.buffer.read(job["bytes"])
            answer = timed(Interpreter(model_content=model, num_threads=job["threads"]), job)
        except Exception as error:
            text = " ".join(str(error).split())[:300]
            answer = {"error": f"LiteRT failed: {text or type(error).__name__}"}


def timed(interpreter: Any, job: dict[str, Any]) -> dict[str, Any]:
    """Samples of single runs in nanoseconds, on both clocks; raises whatever LiteRT raises."""
    interpreter.allocate_tensors()
    rng = np.random.default_rng(0)
    inputs = [
        (details["index"], input_values(rng, details["shape"], np.dtype(details["dtype"])))
        for details in interpreter.get_input_details()
    ]
    set_tensor, invoke = interpreter.set_tensor, interpreter.invoke
    other = np.zeros(job["touch_bytes"] // 8)

    def prepare() -> None:
        """What an app does between two frames: its own work, and then the next input."""
        np.add(other, 1.0, out=other)
        for index, values in inputs:
            set_tensor(index, values)

    for index, values in inputs:
        set_tensor(index, values)
    warm = perf_counter_ns() + job["warmup_ms"] * 1e6
    runs = 0
    while runs < job["warmup"] or perf_counter_ns() < warm:
        invoke()
        runs += 1
    cpu_ns: list[int] = []
    wall_ns: list[int] = []
    end = perf_counter_ns() + job["min_time_ms"] * 1e6
    while len(cpu_ns) < job["runs"] or (perf_counter_ns() < end and len(cpu_ns) < job["max_runs"]):
        if len(other):
            prepare()
        wall_start = perf_counter_ns()
        cpu_start = thread_time_ns()
        invoke()
        cpu_ns.append(thread_time_ns() - cpu_start)
        wall_ns.append(perf_counter_ns() - wall_start)
    true = well_read(cpu_ns, wall_ns)
    return {"cpu_ns": [cpu_ns[i] for i in true], "wall_ns": [wall_ns[i] for i in true]}


def well_read(cpu_ns: list[int], wall_ns: list[int]) -> list[int]:
    """Which samples to believe: all but those whose CPU time is far below both the others' and the least wall time.

    On a busy virtual machine the thread's clock is sometimes read a few microseconds short, and the smallest sample is
    what counts: 4.7 us of CPU time have been seen of a layer that never took less than 7.9 us of wall time.
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
