"""What a search is worth: whole searches of the bundled network over seeds, beside uniform width fine-tuned alike.

    python -m benchmarks.quality [--seeds 5] [--speedup 2] [--data bundled] [--lut TABLE] [--out FOLDER] [--json]

Both networks of a seed get the same refit, the same fine-tuning with that seed, and are timed in the same rounds.
Accuracy is on the 10,000 test images, which nothing was chosen by. There is one trained network: the spread is that of
search and fine-tuning, not of training. Run nothing else meanwhile; with --out a stopped run goes on.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from amc_latency.console import Console
from amc_latency.search.config import SearchConfig
from amc_latency.search.results.result import SearchReport
from amc_latency.search.run import search
from benchmarks.common import machine, parser_of, versions


def spread(values: list[float]) -> dict[str, float]:
    """Mean and standard deviation over seeds."""
    return {"mean": statistics.fmean(values), "sd": statistics.stdev(values) if len(values) > 1 else 0.0}


def row_of(seed: int, report: SearchReport) -> dict[str, Any]:
    """What the table shows of one seed."""
    original, uniform, ours = report.rows
    return {
        "seed": seed,
        "target_ms": report.target_ms,
        "measured_ms": ours.measured_ms,
        "uniform_ms": uniform.measured_ms,
        "met": not report.is_missed,
        "attempts": report.attempts,
        "held_back": ours.held_back,
        "uniform_held_back": uniform.held_back,
        "random_held_back": next((row.held_back for row in report.baselines if row.name == "random"), None),
        "accuracy": ours.accuracy,
        "accuracy_uniform": uniform.accuracy,
        "accuracy_original": original.accuracy,
        "macs": ours.macs,
        "seconds": report.seconds,
    }


def main() -> None:
    parser = parser_of(__doc__, json=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--speedup", type=float, default=2.0)
    parser.add_argument("--data", default="bundled")
    parser.add_argument("--lut")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as temporary:
        out = arguments.out or Path(temporary)
        rows = []
        for seed in range(arguments.seeds):
            config = SearchConfig(
                speedup=arguments.speedup, data=arguments.data, lut=arguments.lut, seed=seed, device="host"
            )
            # One that misses its target still counts, and its row says so.
            rows.append(row_of(seed, search(config, out / f"seed{seed}", Console())))
    names = ("accuracy", "accuracy_uniform", "held_back", "uniform_held_back", "random_held_back")
    summary = {
        "machine": machine(),
        "versions": versions("torch", "ai-edge-litert"),
        "met": sum(row["met"] for row in rows),
        "gain": spread([row["accuracy"] - row["accuracy_uniform"] for row in rows]),
        **{name: spread([row[name] for row in rows if row[name] is not None]) for name in names},
        "rows": rows,
    }
    if arguments.json:
        print(json.dumps(summary))
        return
    print(f"{summary['machine']}; {summary['versions']}")
    print("seed  target ms  ours ms  uniform ms  tries  held back: ours uniform random   test: ours uniform    s")
    for row in rows:
        print(
            f"{row['seed']:4}  {row['target_ms']:9.4f}  {row['measured_ms']:7.4f}  {row['uniform_ms']:10.4f}  "
            f"{row['attempts']:5}  {row['held_back']:15.1f} {row['uniform_held_back']:7.1f} "
            f"{row['random_held_back']:6.1f}  {row['accuracy']:11.2f} {row['accuracy_uniform']:7.2f} "
            f"{row['seconds']:4.0f}"
        )
    print(f"measured at or under the target: {summary['met']} of {len(rows)}")
    print(f"accuracy_original {rows[0]['accuracy_original']:6.2f}")
    for name in ("accuracy", "accuracy_uniform", "gain"):
        print(f"{name:17} {summary[name]['mean']:6.2f} sd {summary[name]['sd']:.2f}")


if __name__ == "__main__":
    main()
