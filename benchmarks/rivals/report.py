"""The tables: each rival at its best rate, mean and standard deviation over seeds, and what ours is beside it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from amc_latency.training.intervals import interval_pct, with_interval
from benchmarks.common import read_rows
from benchmarks.compare_report import grouped, mean, spread, unique, values
from benchmarks.rivals.equal import EQUAL_PCT
from benchmarks.rivals.rows import ORIGINAL, OURS, Row, at_best_rate

LEAST_SEEDS = 3
"""Fewer have no spread to speak of."""


def report(out: Path) -> None:
    """Print a table for each task, network and share."""
    rows, cuts = read_rows(out / "finetuned.csv"), read_rows(out / "cuts.csv")
    if not rows:
        print(f"{out / 'finetuned.csv'} holds no run yet")
    for task in unique(rows, "task"):
        of_task = [row for row in rows if row["task"] == task]
        for network in unique(of_task, "network"):
            own = [row for row in of_task if row["network"] == network]
            original = [row for row in cuts if (row["task"], row["network"], row["rival"]) == (task, network, ORIGINAL)]
            for share in sorted(map(float, unique(own, "share")), reverse=True):
                at_share = [row for row in own if float(row["share"]) == share]
                for line in table(task, network, share, at_share, original):
                    print(line)


def table(task: str, network: str, share: float, rows: Sequence[Row], original: Sequence[Row]) -> list[str]:
    """The lines of one table."""
    images = int(rows[0]["test_images"])
    lines = ["", f"{task}, {network}, {share:g} of its measured ms; {epochs_text(rows)}; mean (sd) over seeds"]
    if original:
        accuracy = float(original[0]["before"])
        shown = with_interval(accuracy, interval_pct(accuracy, images))
        lines.append(f"original {shown} % of {images:,} test images")
    lines.append(
        f"{'':14}{'seeds':>6}{'rate':>8}{'measured share, 95 %':>25}{'before, %':>16}{'after, %':>16}{'s':>7}"
        f"  {OURS} less this"
    )
    best = {name: found for name, own in grouped(rows, "rival").items() if (found := at_best_rate(own))}
    ours = values(best.get(OURS, []), "after")
    for name in sorted(best, key=lambda name: -mean(best[name], "after")):
        own = best[name]
        measured = mean(own, "measured")
        interval = f"{measured:.3f} ({mean(own, 'measured_low'):.3f}-{mean(own, 'measured_high'):.3f})"
        equal = "" if abs(measured / share - 1) <= EQUAL_PCT / 100 else "  not at equal ms"
        lines.append(
            f"{name:14}{len(own):6}{float(own[0]['rate']):8g}{interval:>25}{spread(own, 'before'):>16}"
            f"{spread(own, 'after'):>16}{mean(own, 'seconds'):7.0f}  "
            f"{'' if name == OURS else verdict(ours, values(own, 'after'))}{equal}"
        )
    return lines


def epochs_text(rows: Sequence[Row]) -> str:
    """How they were fine-tuned."""
    return f"fine-tuned for {rows[0]['epochs']} epochs of {int(rows[0]['train_images']):,} images, last epoch"


def verdict(ours: Sequence[float], others: Sequence[float]) -> str:
    """The difference of the means, and whether the seeds' ranges meet: with few seeds that is not told."""
    if not ours or not others:
        return ""
    difference = f"{statistics.fmean(ours) - statistics.fmean(others):+.2f}"
    if min(len(ours), len(others)) < LEAST_SEEDS:
        return f"{difference} (too few seeds)"
    apart = min(ours) > max(others) or max(ours) < min(others)
    return f"{difference} {'outside' if apart else 'within'} the spread"
