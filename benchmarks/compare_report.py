"""What `compare.py` has found so far, as tables and a plot."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from benchmarks.common import read_rows

Row = dict[str, str]


def report(out: Path, ours: str) -> None:
    """Print every table, and draw `compare.png`."""
    rows = read_rows(out / "compare.csv")
    if not rows:
        print(f"{out / 'compare.csv'} holds no run yet")
        return
    measured = {row["file"]: float(row["measured_ms"]) for row in read_rows(out / "measured.csv")}
    for row in rows:
        row["measured_ms"] = str(measured.get(row["file"], float("nan")))
    for network in unique(rows, "network"):
        own = [row for row in rows if row["network"] == network]
        for share in sorted({float(row["share"]) for row in own}, reverse=True):
            show_methods(network, share, [row for row in own if float(row["share"]) == share], ours)
        show_equal_accuracy(network, own)
    draw(rows, out / "compare.png")
    print(f"\ndrawn in {out / 'compare.png'}")


def unique(rows: Sequence[Row], column: str) -> list[str]:
    """A column's values in the order of the rows."""
    return list(dict.fromkeys(row[column] for row in rows))


def show_methods(network: str, share: float, rows: Sequence[Row], ours: str) -> None:
    """A line a method, and how far it is from `ours`: outside the seeds' spread where the ranges don't meet."""
    print(f"\n{network}, {share:g} of its milliseconds; mean (sd) over seeds")
    print(
        f"{'':12}{'n':>3}{'policies':>9}{'predicted':>11}{'measured':>10}  {'before, %':>14}  {'after, %':>14}"
        f"  {'search min':>10}{'all min':>9}  {'after, range':>14}  {ours} less this"
    )
    by_method = grouped(rows, "method")
    best = values(by_method.get(ours, []), "after")
    order = sorted(by_method, key=lambda name: -mean(by_method[name], "after"))
    for name in order:
        own = by_method[name]
        after = values(own, "after")
        extent = f"{min(after):.2f}..{max(after):.2f}"
        print(
            f"{name:12}{len(own):3}{mean(own, 'evaluations'):9.0f}{mean(own, 'predicted_ms'):11.4f}"
            f"{mean(own, 'measured_ms'):10.4f}  {spread(own, 'before'):>14}  {spread(own, 'after'):>14}"
            f"  {mean(own, 'search_minutes'):10.2f}{mean(own, 'minutes'):9.2f}  {extent:>14}  {difference(best, after)}"
        )
    from scipy.stats import spearmanr

    if len(rows) > 3:
        seen = [("accuracy on the episodes' images", "reward", 1), ("their loss", "loss", -1)]
        seen += [("accuracy on all held-back images", "held_back", 1)]
        for what, column, sign in seen:
            rank = spearmanr([sign * value for value in values(rows, column)], values(rows, "after")).statistic
            print(f"rank correlation of {what} with fine-tuned accuracy, {len(rows)} runs: {rank:.2f}")


def difference(ours: Sequence[float], others: Sequence[float]) -> str:
    """The means' difference, and whether the seeds' ranges meet."""
    if not ours or ours == others:
        return ""
    disjoint = min(ours) > max(others) or max(ours) < min(others)
    # One seed or two have no spread to speak of.
    apart = disjoint and min(len(ours), len(others)) > 2
    return f"{statistics.fmean(ours) - statistics.fmean(others):+.2f}" + (" outside the spread" if apart else "")


def show_equal_accuracy(network: str, rows: Sequence[Row]) -> None:
    """Milliseconds at equal accuracy: each method's against those of the uniform width and of the MACs budget.

    Where a method's mean accuracy lies between two of the other's, the other's milliseconds are read off the line
    between them; beyond its ends nothing is said.
    """
    column = "measured_ms" if all(row["measured_ms"] != "nan" for row in rows) else "predicted_ms"
    others = [name for name in ("uniform", "macs") if name in unique(rows, "method")]
    if not others:
        return
    print(f"\n{network}: {column.replace('_', ' ')} that uniform and macs take for the same fine-tuned accuracy")
    for name, own in grouped(rows, "method").items():
        cells = []
        for other in others:
            curve = points([row for row in rows if row["method"] == other], column)
            for ms, accuracy in points(own, column):
                there = read_off(curve, accuracy)
                if name != other and there is not None:
                    more_pct = 100 * (there / ms - 1)
                    cells.append(f"{other} at {accuracy:.2f} %: {there:.4f} for {ms:.4f} ({more_pct:+.1f} %)")
        if cells:
            print(f"{name:12}" + "; ".join(cells))


def points(rows: Sequence[Row], column: str) -> list[tuple[float, float]]:
    """Mean milliseconds and accuracy at each share, the fastest first."""
    return sorted((mean(own, column), mean(own, "after")) for own in grouped(rows, "share").values())


def read_off(curve: Sequence[tuple[float, float]], accuracy: float) -> float | None:
    """The milliseconds at which a curve reaches an accuracy."""
    for (ms, low), (next_ms, high) in pairwise(curve):
        if low <= accuracy <= high and high > low:
            return ms + (next_ms - ms) * (accuracy - low) / (high - low)
    return None


def grouped(rows: Sequence[Row], column: str) -> dict[str, list[Row]]:
    """Rows by a column."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row[column]].append(row)
    return dict(groups)


def values(rows: Sequence[Row], column: str) -> list[float]:
    """A column as numbers."""
    return [float(row[column]) for row in rows]


def mean(rows: Sequence[Row], column: str) -> float:
    """A column's mean."""
    return statistics.fmean(values(rows, column))


def spread(rows: Sequence[Row], column: str) -> str:
    """Mean and standard deviation over seeds."""
    numbers = values(rows, column)
    deviation = f" ({statistics.stdev(numbers):.2f})" if len(numbers) > 1 else ""
    return f"{statistics.fmean(numbers):.2f}{deviation}"


def draw(rows: Sequence[Row], path: Path) -> None:
    """Fine-tuned accuracy over milliseconds, a panel a network, a bar of one standard deviation."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    column = "measured_ms" if all(row["measured_ms"] != "nan" for row in rows) else "predicted_ms"
    networks = unique(rows, "network")
    figure = Figure(figsize=(7 * len(networks), 5))
    FigureCanvasAgg(figure)
    deviation: Callable[[Sequence[float]], float] = lambda own: statistics.stdev(own) if len(own) > 1 else 0.0  # noqa: E731
    for i, network in enumerate(networks):
        axes = figure.add_subplot(1, len(networks), i + 1)
        for name, own in grouped([row for row in rows if row["network"] == network], "method").items():
            shares = sorted(grouped(own, "share").values(), key=lambda at: mean(at, column))
            axes.errorbar(
                [mean(at, column) for at in shares],
                [mean(at, "after") for at in shares],
                [deviation(values(at, "after")) for at in shares],
                marker="o",
                markersize=3,
                linewidth=0.8,
                capsize=2,
                label=name,
            )
        axes.set_title(network)
        axes.set_xlabel(column.replace("_", " "))
        axes.set_ylabel("test accuracy after fine-tuning, %")
        axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
