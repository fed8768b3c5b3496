"""How many one-layer `.tflite` files a second `amc_latency.lut.tflite.writer` makes, weights included, in one process.

    python -m benchmarks.writer [--json]

The aim: at least 800 pointwise files a second, of mixed sizes up to 512 x 512 channels, in any precision.
"""

from __future__ import annotations

import json
import random
import resource
import statistics
import time

from amc_latency.lut.building.layer_model import layer_model
from amc_latency.lut.shapes.precisions import FLOAT32, PRECISIONS, can_be, in_precision
from amc_latency.lut.shapes.shape import NOOP, LayerShape

from benchmarks.common import machine, parser_of, versions

REPEATS = 7
FILES = 300
KINDS = ("pointwise", "conv3x3", "depthwise", "linear", "add", "avg_pool", "max_pool", "global_pool", "noop")


def random_shape(kind: str, draw: random.Random) -> LayerShape:
    """A shape of `kind` as MobileNets and ResNets have them, with channels in multiples of 8 up to 512."""
    c_in, c_out = draw.randrange(8, 513, 8), draw.randrange(8, 513, 8)
    size = draw.choice((7, 14, 28, 56))
    activation, stride = draw.choice(("none", "relu", "relu6")), draw.choice((1, 2))
    match kind:
        case "pointwise":
            return LayerShape("conv", c_in, c_out, size, size, activation=activation)
        case "conv3x3":
            return LayerShape("conv", c_in, c_out, size, size, 3, stride, 1, activation)
        case "depthwise":
            return LayerShape("depthwise", c_in, c_in, size, size, 3, stride, 1, activation)
        case "linear":
            return LayerShape("linear", c_in, c_out, activation=activation)
        case "avg_pool" | "max_pool":
            return LayerShape(kind, c_in, c_in, size, size, 3, 2, 1)
        case "add" | "global_pool":
            return LayerShape(kind, c_in, c_in, size, size)
    return NOOP


def measure(kind: str, precision: str) -> dict[str, float]:
    """Files a second over `REPEATS` sets of `FILES` shapes, and how large a file is."""
    draw = random.Random(kind)
    layer_model(in_precision(random_shape(kind, draw), precision))  # draws the block of weights, once a process
    rates, cpu_s, size = [], 0.0, 0
    for _ in range(REPEATS):
        shapes = [in_precision(random_shape(kind, draw), precision) for _ in range(FILES)]
        start, cpu_start = time.perf_counter(), time.process_time()
        size += sum(len(layer_model(shape)) for shape in shapes)
        rates.append(FILES / (time.perf_counter() - start))
        cpu_s += time.process_time() - cpu_start
    return {
        "files_per_s": round(statistics.median(rates)),
        "min": round(min(rates)),
        "max": round(max(rates)),
        "per_cpu_s": round(REPEATS * FILES / cpu_s),
        "mean_kb": round(size / REPEATS / FILES / 1000, 1),
    }


def main() -> None:
    parser = parser_of(__doc__, json=True)
    as_json = parser.parse_args().json
    results = {
        kind if precision == FLOAT32 else f"{kind} {precision}": measure(kind, precision)
        for precision in reversed(PRECISIONS)
        for kind in KINDS
        if can_be(random_shape(kind, random.Random(0)), precision)
    }
    record = {
        "machine": machine(),
        "versions": versions("ai-edge-litert", "flatbuffers", "numpy"),
        "repeats": REPEATS,
        "files_per_repeat": FILES,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "kinds": results,
    }
    if as_json:
        print(json.dumps(record))
        return
    print(f"{record['machine']}; {record['versions']}")
    print(f"median, minimum and maximum of {REPEATS} repeats of {FILES} files; peak {record['peak_mb']} MB resident")
    print(f"{'kind':<18} {'files/s':>8} {'min':>8} {'max':>8} {'per CPU s':>10} {'mean kB':>9}")
    for kind, row in results.items():
        cells = (row[key] for key in ("files_per_s", "min", "max"))
        print(f"{kind:<18}", *(f"{cell:>8}" for cell in cells), f"{row['per_cpu_s']:>10} {row['mean_kb']:>9}")


if __name__ == "__main__":
    main()
