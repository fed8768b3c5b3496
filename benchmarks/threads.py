"""Fine-tuning's images a second by threads, waiting policy and busy neighbours on the same cores.

    python -m benchmarks.threads [--threads 1,2] [--neighbours 0,2] [--waiting default,passive] [--seconds 6]
                                 [--repeats 2] [--out runs/threads.csv]

Each measurement is a process of its own, since OpenMP reads its variables once, when torch is loaded; those of a round
follow each other, so that whatever else the machine does meets all of them. A neighbour is a process that only counts.
`default` leaves OpenMP's own waiting policy, `passive` is what the command line sets, see `amc_latency/cli/threads.py`.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

from benchmarks.common import ROOT, csv_of, parser_of

BATCH = 128
WAITING: dict[str, dict[str, str]] = {
    "default": {},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "spin0": {"GOMP_SPINCOUNT": "0"},
    "spin1000": {"GOMP_SPINCOUNT": "1000"},
    "spin10000": {"GOMP_SPINCOUNT": "10000"},
}


def measured(seconds: float) -> None:
    """In a child: print images a second of forward and backward passes of the bundled network."""
    import torch
    from torch.nn import functional

    from amc_latency.models.load import NetworkOptions, load_network

    model = load_network(NetworkOptions()).model.train()
    images = torch.randn(BATCH, 1, 64, 64).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(BATCH) % 10
    optimizer = torch.optim.SGD(model.parameters(), 1e-4)

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    step()
    began, steps = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        step()
        steps += 1
    print(steps * BATCH / (time.monotonic() - began))


def run(options: argparse.Namespace) -> None:
    """Round by round, a row each."""
    rates: dict[tuple[int, str, int], list[float]] = defaultdict(list)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("a", newline="") as file:
        writer = csv.writer(file)
        for _ in range(options.repeats):
            for neighbours in options.neighbours:
                for waiting in options.waiting:
                    for threads in options.threads:
                        if threads == 1 and waiting != options.waiting[0]:
                            continue
                        load = os.getloadavg()[0]
                        rate = _rate(threads, waiting, neighbours, options.seconds)
                        rates[threads, waiting, neighbours].append(rate)
                        writer.writerow([threads, waiting, neighbours, f"{rate:.1f}", f"{load:.2f}"])
                        file.flush()
    for (threads, waiting, neighbours), values in rates.items():
        each = ", ".join(f"{value:.0f}" for value in values)
        print(f"{threads} threads, {waiting:10} {neighbours} neighbours: {statistics.median(values):5.0f} ({each})")


def _rate(threads: int, waiting: str, neighbours: int, seconds: float) -> float:
    command = [sys.executable, "-m", "benchmarks.threads", "--measure", "--seconds", str(seconds)]
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(neighbours)]
    unset = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    env = {**unset, "OMP_NUM_THREADS": str(threads), **WAITING[waiting]}
    try:
        return float(subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    finally:
        for other in others:
            other.kill()
            other.wait()


def main() -> None:
    """Read the options and run."""
    parser = parser_of(__doc__)
    parser.add_argument("--threads", type=csv_of(int), default=[1, 2])
    parser.add_argument("--neighbours", type=csv_of(int), default=[0, 2])
    parser.add_argument("--waiting", type=csv_of(str), default=["default", "passive"])
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/threads.csv"))
    parser.add_argument("--measure", action="store_true")
    options = parser.parse_args()
    if options.measure:
        measured(options.seconds)
    else:
        run(options)


if __name__ == "__main__":
    main()
