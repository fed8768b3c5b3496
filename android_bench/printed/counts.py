"""The figures that `benchmark_model` prints of a series of runs, since 2018, and their summary. Pure functions of text.

    INFO: count=200 first=454 curr=468 min=448 max=1031 avg=465.745 std=61 p5=449 median=450 p95=508

What no program prints is turned down. A damaged mean is always seen, as the summary repeats it (2018's to a
microsecond). Damage to another figure is seen only if that makes it impossible beside the others, as `_possible` says:
to be sure of the rest, a text needs a checksum.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from amc_latency.android_bench.runner import ParseError

_INT = "(?:0|[1-9][0-9]{0,15})"
_NUM = "[0-9][0-9.e+]*"
_LIKE_FIGURES = re.compile(r"\b(?:count|first|curr|min|max|avg|median)=")
_NOT_A_RUN = ("Timings (microseconds): ", "Memory (bytes): ")
_RUN = re.compile(
    rf"Running benchmark for (?P<least>at least )?(?P<n>{_INT}) iterations"
    r"(?: and at least \S+ seconds but terminate if exceeding (?P<max_s>[0-9.e+]+) seconds\.)?"
)
_FIGURES = re.compile(
    rf"(?:native : \S+ )?count=(?P<n>{_INT})"
    rf"(?: first=(?P<first>{_INT}) curr=(?P<curr>{_INT}) min=(?P<min>{_INT}) max=(?P<max>{_INT})"
    rf" avg=(?P<avg>{_NUM}) std=(?P<std>{_NUM})"
    rf"| curr=(?P<only>{_INT})(?P<same>\(all same\))?)?"
    rf"(?: p5=(?P<p5>{_INT}) median=(?P<median>{_INT}) p95=(?P<p95>{_INT}))?"
)
_LIKE_SUMMARY = re.compile(r"timings in us|nference \((?:avg|min|max)\)")
# The classic program's since 2018, and the lines of LiteRT's.
_SUMMARY = re.compile(
    r"(?:INFO: |native : \S+ )?(?:Average i|I)nference timings in us: .*"
    rf"(?:Inference|Inference \(avg\)|(?P<whole>no stats)): (?P<us>{_NUM})"
    rf"|(?:INFO: )?(?:\[\S+\] )?Inference \((?P<what>avg|min|max)\): +(?P<ms>{_INT}\.[0-9]{{2}}) ms"
    rf"(?: \((?P<n>{_INT}) runs\))?"
)


@dataclass(frozen=True)
class Counts:
    """The figures of one series of runs."""

    n: int
    first_us: float
    min_us: float
    median_us: float | None
    """None where the program is too old to print it"""
    max_us: float
    mean_us: float
    std_us: float


def parse_run(output: str) -> Counts:
    """The counted runs, not those of the warm-up, confirmed by the program's summary. Raises `ParseError`."""
    counts = parse_counts(output)
    if not 1 <= len(counts) <= 2:
        raise ParseError(f"one output holds a warm-up and a run, not {len(counts)}: it ends in '{last_line(output)}'")
    run = counts[-1]
    means = 0
    for line in map(str.strip, output.split("\n")):
        if not _LIKE_SUMMARY.search(line):
            continue
        match = _SUMMARY.fullmatch(line)
        if match is None:
            raise ParseError(f"this is no summary of benchmark_model: '{one_line(line)}'")
        if not _confirms(match, run):
            raise ParseError(f"the summary is of other runs than those before it: '{one_line(line)}'")
        means += match["what"] in (None, "avg")
    if means != 1:
        raise ParseError(f"one output has one summary, not {means}: it ends in '{last_line(output)}'")
    return run


def _confirms(summary: re.Match[str], run: Counts) -> bool:
    """Whether a line of the summary is of this run, as far as its digits go."""
    if summary["us"]:
        # 2018's cuts off what is behind the point.
        slack_us = 1 + _rounding(run.mean_us) if summary["whole"] else 0.0
        return abs(number(summary["us"], summary.string) - run.mean_us) <= slack_us
    figure_us = {"avg": run.mean_us, "min": run.min_us, "max": run.max_us}[summary["what"]]
    same = abs(float(summary["ms"]) * 1000 - figure_us) <= 5.001 + _rounding(run.mean_us)
    return same and summary["n"] in (None, str(run.n))


def parse_counts(text: str) -> list[Counts]:
    """The figures of every series of runs, in order, warm-up first. Raises `ParseError` quoting a damaged line."""
    counts = []
    begun: re.Match[str] | None = None
    for line in map(str.strip, text.split("\n")):
        begins = _RUN.search(line)
        if begins and begun:
            raise ParseError(f"no figures came after '{one_line(begun.string)}'")
        if begins:
            begun = begins
        elif _LIKE_FIGURES.search(line) and not line.startswith(_NOT_A_RUN):
            if begun is None:
                raise ParseError(f"figures of no run: '{one_line(line)}'")
            counts.append(parse_figures(line.removeprefix("INFO: ")))
            if not _as_begun(counts[-1], begun):
                raise ParseError(f"these runs are not those that were asked for: '{one_line(line)}'")
            begun = None
    if begun:
        raise ParseError(f"no figures came after '{one_line(begun.string)}'")
    return counts


def parse_figures(line: str) -> Counts:
    """One line of figures, without what a logger puts before it. Raises `ParseError`."""
    match = _FIGURES.fullmatch(line)
    if match is None:
        raise ParseError(f"these are no figures of benchmark_model: '{one_line(line)}'")
    n = int(match["n"])
    full, only = bool(match["first"]), bool(match["only"])
    if (full, only, bool(match["same"])) not in {
        0: [(False, False, False)],
        1: [(False, True, False)],
    }.get(n, [(True, False, False), (False, True, True)]):
        raise ParseError(f"no series of {n} runs looks like this: '{one_line(line)}'")
    median = float(match["median"]) if match["median"] else None
    if full:
        low, high, first = float(match["min"]), float(match["max"]), float(match["first"])
        counts = Counts(n, first, low, median, high, number(match["avg"], line), number(match["std"], line))
    else:
        value = float(match["only"] or 0)
        counts = Counts(n, value, value, value, value, value, 0.0)
    percentiles = [float(match[name]) for name in ("p5", "median", "p95") if match[name]]
    last = float(match["curr"] or counts.first_us)
    if not _possible(counts, last, percentiles):
        raise ParseError(f"these figures contradict each other: '{one_line(line)}'")
    return counts


def _possible(counts: Counts, last_us: float, percentiles: list[float]) -> bool:
    """Whether any series of runs has these figures.

    A median is within one standard deviation of the mean (Hotelling and Solomons); a standard deviation is bounded by
    the extremes and the mean from above (Bhatia and Davis), and from below as the extremes are among the runs. The mean
    is printed with six digits, the standard deviation cut off to a whole number.
    """
    n, low, high, mean, std = counts.n, counts.min_us, counts.max_us, counts.mean_us, counts.std_us
    slack = _rounding(mean)
    inside = all(low <= value <= high for value in (counts.first_us, last_us, *percentiles))
    if not inside or percentiles != sorted(percentiles):
        return False
    if n < 2:
        return True
    above, below = high - mean, mean - low
    least = math.hypot(max(0.0, above - slack), max(0.0, below - slack)) / math.sqrt(n)
    most = math.sqrt(max(0.0, above + slack) * max(0.0, below + slack) * n / (n - 1))
    near = counts.median_us is None or abs(counts.median_us - mean) <= std + 1 + slack
    return above >= -slack and below >= -slack and least - 1 <= std <= most and near


def _as_begun(counts: Counts, begun: re.Match[str]) -> bool:
    """Whether a series is as long as the line before it says: fewer runs only if they took all the time there was."""
    if begun["least"] is None:
        return counts.n == int(begun["n"])
    max_s = number(begun["max_s"], begun.string) if begun["max_s"] else math.inf
    return counts.n >= int(begun["n"]) or counts.n * counts.mean_us / 1e6 > max_s / 2


def _rounding(mean_us: float) -> float:
    """How far a mean that was printed with six digits is off at most."""
    return mean_us * 5e-6


def number(text: str, line: str) -> float:
    """A number as C++ prints it by default: six digits at most, and none in vain."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if f"{value:g}" != text:
        raise ParseError(f"no program prints the number {text}: '{one_line(line)}'")
    return value


def one_line(text: str) -> str:
    """Foreign text as a part of a message: what can be printed of it, and not too much of that."""
    printable = "".join(c for c in " ".join(text.split()) if c.isprintable() and c != "\ufffd")
    return printable[:120]


def last_line(text: str) -> str:
    """The last line of foreign text that is not empty, as a part of a message."""
    lines = [line for line in text.split("\n") if line.strip()]
    return one_line(lines[-1]) if lines else "nothing"
