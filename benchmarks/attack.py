"""Attacks the product and prints a row an attack: tried, failed, peak memory, seconds. Exit code 1 if anything failed.

    python -m benchmarks.attack [--quick] [--only NAME] [--seed N] [--out CSV] [--resume] [--keep FOLDER]

Mutated tables, logs, `.tflite` files and run folders; bombs and odd files; hostile phones and adb servers; kills, full
disks and several hands on one table. Failed are tracebacks, hangs, wrong numbers, lost rows, and memory over 1.5 GB.
A full run takes about an hour on one core, `--quick` under two minutes. A failing case is tried again by
`--only NAME --seed N --case NUMBER`; `--keep` has its input and what went wrong.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from pathlib import Path

from benchmarks.attacks.harness import PEAK_MB, Row, run
from benchmarks.attacks.registry import ATTACKS
from benchmarks.common import append_row, parser_of, read_rows

_COLUMNS = ("attack", "seed", "cases", "tried", "failed", "peak_mb", "seconds", "kinds", "skipped")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--quick", action="store_true", help="few cases of each attack")
    parser.add_argument("--only", action="append", help="attacks whose name has this in it; repeatable")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="this case alone of each attack")
    parser.add_argument("--scale", type=float, default=1.0, help="this share of the cases")
    parser.add_argument("--out", type=Path, help="CSV file to add each row to")
    parser.add_argument("--resume", action="store_true", help="leave out the rows that --out has already")
    parser.add_argument("--keep", type=Path, help="folder for failing inputs")
    options = parser.parse_args()
    done = _done(options.out) if options.resume and options.out else {}
    chosen = [attack for attack in ATTACKS if not options.only or any(part in attack.name for part in options.only)]
    if not chosen:
        parser.error(f"no attack is called {options.only}: {', '.join(attack.name for attack in ATTACKS)}")
    _preload()
    rows, began = [], time.monotonic()
    print(f"{'attack':<38} {'tried':>8} {'failed':>7} {'peak MB':>8} {'seconds':>8} {'CPU s':>7}", flush=True)
    for attack in chosen:
        wanted = attack.quick if options.quick else attack.full
        count = max(1, round(options.scale * wanted)) if wanted else 0
        cases = range(count) if options.case is None else range(options.case, options.case + 1)
        if not count:
            continue
        known = done.get((attack.name, str(options.seed), str(count)))
        row = known or run(attack, cases, options.seed, options.keep)
        rows.append(row)
        _print(row)
        if options.out and known is None:
            _write(options.out, row, count)
    failed = sum(row.failed for row in rows)
    peak_mb = max((row.peak_mb for row in rows), default=0)
    tried = sum(row.tried for row in rows)
    seconds = time.monotonic() - began
    print(f"{'all':<38} {tried:>8,} {failed:>7,} {peak_mb:>8,} {seconds:>8.0f}", flush=True)
    if peak_mb > PEAK_MB:
        print(f"more memory than {PEAK_MB:,} MB")
    sys.exit(1 if failed or peak_mb > PEAK_MB else 0)


def _preload() -> None:
    """What most attacks import: each runs in a fork, which need not import it again. Nothing is computed here."""
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in ("amc_latency.cli.main", "amc_latency.search.run", "amc_latency.training.train", "scipy.stats"):
        importlib.import_module(name)


def _print(row: Row) -> None:
    if row.skipped:
        print(f"{row.attack:<38} skipped: {row.skipped}", flush=True)
        return
    kinds = ", ".join(f"{count} {kind}" for kind, count in row.kinds.items())
    print(
        f"{row.attack:<38} {row.tried:>8,} {row.failed:>7,} {row.peak_mb:>8,} {row.seconds:>8.1f} {row.cpu_s:>7.1f}"
        + (f"  {kinds}" if kinds else ""),
        flush=True,
    )
    for failure in row.failures[:5]:
        lines = failure["text"].strip().splitlines() or [""]
        places = [line.strip() for line in lines if line.strip().startswith("File ") and "harness.py" not in line]
        where = places[-1] if places else ""
        print(
            f"    case {failure['case']}, {failure['kind']}: {lines[0][:100]} | {where} {lines[-1][:300]}", flush=True
        )


def _write(path: Path, row: Row, cases: int) -> None:
    kinds = " ".join(f"{kind}:{count}" for kind, count in row.kinds.items())
    values = (row.attack, row.seed, cases, row.tried, row.failed, row.peak_mb, f"{row.seconds:.1f}", kinds)
    append_row(path, dict(zip(_COLUMNS, (*values, row.skipped), strict=True)))


def _done(path: Path) -> dict[tuple[str, str, str], Row]:
    """Rows of a run that was stopped, by attack, seed and number of cases."""
    return {
        (line["attack"], line["seed"], line["cases"]): Row(
            line["attack"],
            int(line["seed"]),
            int(line["tried"]),
            int(line["failed"]),
            int(line["peak_mb"]),
            float(line["seconds"]),
            {kind: int(count) for kind, _, count in (each.rpartition(":") for each in line["kinds"].split())},
            skipped=line["skipped"],
        )
        for line in read_rows(path)
    }


if __name__ == "__main__":
    main()
