"""A report of `amc-latency bench` for people."""

from __future__ import annotations

from typing import Any

from amc_latency.console import put
from amc_latency.measuring.bench import BenchReport
from amc_latency.measuring.bench_figures import ClockFigures, Compared, Interval, SpeedupVerdict, StateFigures


def bench_text(report: BenchReport) -> None:
    """Print it, the one figure that counts first."""
    put(f"{_figure_text(report)} on {report.device}, {report.runtime}")
    put(f"input {', '.join(report.inputs)}")
    if report.suspect:
        put(f"not to be trusted: {'; '.join(report.suspect)}")
    _print_states(report.states)
    for other in report.against:
        put(f"{report.file} beside {other.file}, in the same rounds:")
        for state, both in other.compared.items():
            ours_ms, other_ms = report.states[state].latency_ms, other.states[state].latency_ms
            put(
                f"  {state:5}  {ours_ms:.4f} and {other_ms:.4f} ms, ratio {_interval_text(both.ratio)}: "
                f"{speedup_text(both)}"
            )
    if report.speedup is not None:
        put(verdict_text(report.speedup))
    _print_conditions(report.conditions)
    if report.ops is not None:
        total_ms = sum(op.ms for op in report.ops)
        put(f"operators, {total_ms:.3f} ms in a run of their own:")
        for op in report.ops:
            put(f"  {100 * op.ms / total_ms if total_ms else 0:5.1f} %  {op.ms:9.3f} ms  {op.type}  {op.name}")


def speedup_text(both: Compared) -> str:
    """How many times as fast, and how sure."""
    speedup = both.speedup
    if speedup.low is None or speedup.high is None:
        return f"{speedup.value:.3g}x as fast, by one round"
    return f"{speedup.value:.4g}x as fast, 95 % {speedup.low:.4g} to {speedup.high:.4g}"


def verdict_text(speedup: SpeedupVerdict) -> str:
    """Whether a speed-up that was asked for is reached, in a line."""
    verdict: str = speedup.verdict
    if verdict == "within the noise":
        verdict += ": one round tells no more" if speedup.within_pct is None else f": +-{speedup.within_pct:.1f} %"
    return (
        f"speed-up of {speedup.asked:g} over {speedup.against}, state {speedup.state}, "
        f"{_rounds(speedup.compared.rounds)}: {verdict}"
    )


def _figure_text(report: BenchReport) -> str:
    parts = [f"{report.statistic}, state {report.state}"]
    if report.interval_ms is not None:
        parts.append("95 % {:.4f} to {:.4f}".format(*report.interval_ms))
    return f"{report.latency_ms:.4f} ms ({', '.join([*parts, f'{report.n} runs'])})"


def _interval_text(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return f"{interval.value:.4f}"
    return f"{interval.value:.4f} (95 % {interval.low:.4f} to {interval.high:.4f})"


def _rounds(rounds: int) -> str:
    return f"{rounds} round{'' if rounds == 1 else 's'}"


def _print_states(states: dict[str, StateFigures]) -> None:
    put(f"{'state':6} {'ms of':10} {'median':>9} {'p90':>9} {'p99':>9} {'least':>9}   between processes")
    for state, figures in states.items():
        clocks = {"thread CPU": figures.cpu, "wall": figures.wall}
        for clock, of_clock in clocks.items():
            if of_clock is not None:
                put(f"{state:6} {clock:10} {_clock_text(of_clock)}")
    speeds = {state: figures.speed_pct for state, figures in states.items() if figures.speed_pct is not None}
    if speeds:
        each = ", ".join(f"{speed:.0f} % ({state})" for state, speed in speeds.items())
        put(f"all given at this computer's reference speed; it ran at {each} of that")


def _clock_text(figures: ClockFigures) -> str:
    values = (figures.median_ms, figures.p90_ms, figures.p99_ms, figures.min_ms)
    cells = [f"{'-' if value is None else f'{value:.4f}':>9}" for value in values]
    if figures.median_ms is None and figures.mean_ms is not None:
        cells.append(f"  mean {figures.mean_ms:.4f}")
    if figures.processes_sd_pct is not None:
        cells.append(f"  sd {figures.processes_sd_pct:.1f} %")
    return " ".join(cells)


def _print_conditions(conditions: list[dict[str, Any]]) -> None:
    if not conditions:
        return
    first = conditions[0]
    once = ("serial", "build", "driver", "flags", "core", "cores", "delegated", "clocks_set")
    lines = [f"  {key:16} {first[key]}" for key in once if key in first]
    each_round = ["khz_after", "sm_mhz", "memory_mhz", "temperature_c", "battery_pct", "thermal_status", "tries"]
    if "reference_us" not in first:
        # Where it has a reference, the speed says the same.
        each_round.append("sentinel_us")
    for key in each_round:
        values = [row.get(key) for row in conditions]
        if any(value is not None for value in values):
            lines.append(f"  {key:16} {_rounds_text(values)}")
    if lines:
        put("measured under:", *lines, sep="\n")


def _rounds_text(values: list[Any]) -> str:
    """A value that all rounds share once, or each round's."""
    return (
        str(values[0])
        if all(value == values[0] for value in values)
        else " | ".join("-" if value is None else str(value) for value in values)
    )
