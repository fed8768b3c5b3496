"""From timings to the one figure people ask for: how many milliseconds, and how sure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from amc_latency.android_bench.safe.files import read_bytes
from amc_latency.android_bench.safe.limits import MODEL_BYTES
from amc_latency.device.base import Device, DeviceError, Protocol, Timing, Workload
from amc_latency.device.conditions import calm_of, is_busy

_IDENTIFIER = b"TFL3"


class BadModelError(ValueError):
    """A file that cannot be read or is not a `.tflite`."""


@dataclass(frozen=True)
class Measurement:
    """A workload's latency over all rounds of a protocol."""

    latency_ms: float
    statistic: str
    """How `latency_ms` came about, in words."""
    spread_pct: float | None
    """Half the range of the rounds' figures, in percent of `latency_ms`; none after a single round."""
    rounds: int
    n: int
    """Counted runs, all rounds together."""
    conditions: tuple[str, ...] = ()
    """What each round was measured under, where the device says so: see `amc_latency.device.conditions`."""
    rounds_sd_pct: float | None = None
    """Standard deviation of the rounds' figures, each in fresh processes, in percent of their mean; none after one."""
    within_pct: float | None = None
    """Half of what lies between the first and the last tenth of a round's runs, in percent of their median: the median
    over rounds, none where a device does not say it."""


def statistic_text(protocol: Protocol, rounds: int) -> str:
    """The statistic that counts in words, e.g. `minimum over 3 rounds of thread CPU time`."""
    what = {"min": "minimum", "median": "median", "mean": "mean"}[protocol.statistic]
    of = "" if protocol.statistic == "min" else f"the {protocol.statistic} "
    clock = "thread CPU time" if protocol.clock == "cpu" else "wall time"
    batch = "" if protocol.batch == 1 else f" of a batch of {protocol.batch}"
    return f"{what} over {rounds} round{'' if rounds == 1 else 's'} of {of}{clock}{batch}"


def summarise(timings: Iterable[Timing], protocol: Protocol) -> Measurement:
    """One workload's timings as a measurement, by calm rounds where there are enough.

    Which are calm: see `amc_latency.device.conditions.calm_of`. Raises `DeviceError` if there are none, or one with
    an error.
    """
    timings = list(timings)
    if not timings:
        raise DeviceError("nothing was timed")
    timings = calm_of(timings, [is_busy(timing.conditions) for timing in timings])
    rounds_us = [timing.latency_us(protocol) for timing in timings]
    latency_us = protocol.over_rounds(rounds_us)
    n = sum(timing.n for timing in timings)
    conditions = tuple(timing.conditions for timing in timings if timing.conditions)
    statistic = statistic_text(protocol, len(rounds_us))
    return Measurement(
        latency_us / 1e3,
        statistic,
        spread_pct(rounds_us, protocol),
        len(rounds_us),
        n,
        conditions,
        rounds_sd_pct=deviation_pct(rounds_us),
        within_pct=_within_pct(timings, protocol),
    )


def deviation_pct(rounds: Sequence[float]) -> float | None:
    """Standard deviation of the rounds' figures in percent of their mean; None after a single round, and for 0."""
    if len(rounds) < 2 or (mean := statistics.fmean(rounds)) <= 0:
        return None
    return 100 * statistics.stdev(rounds) / mean


def _within_pct(timings: Iterable[Timing], protocol: Protocol) -> float | None:
    found = []
    for timing in timings:
        summary = timing.cpu if protocol.clock == "cpu" else timing.wall
        if summary is None or not summary.median_us or summary.p10_us is None or summary.p90_us is None:
            return None
        found.append(50 * (summary.p90_us - summary.p10_us) / summary.median_us)
    return statistics.median(found)


def spread_pct(rounds_us: Sequence[float], protocol: Protocol) -> float | None:
    """Half the range of the rounds' figures in percent of the one that counts; None after a single round, and for 0."""
    if len(rounds_us) < 2 or (latency_us := protocol.over_rounds(rounds_us)) <= 0:
        return None
    return 100 * (max(rounds_us) - min(rounds_us)) / 2 / latency_us


def measure_many(
    device: Device, models: Mapping[str, bytes | Path], protocol: Protocol, seed: int = 0
) -> dict[str, Measurement]:
    """Time models (bytes or files) in the same rounds, so that whatever else the device does meets all alike.

    Raises `BadModelError` before anything is timed, and `DeviceError` at the first model that fails.
    """
    workloads = [workload_of(name, model) for name, model in models.items()]
    timings: dict[str, dict[int, Timing]] = {name: {} for name in models}
    for timing in device.time(workloads, protocol, seed):
        timing.latency_us(protocol)  # a failure ends it here, not after the last round
        timings[timing.workload][timing.round] = timing
    return {name: summarise(timings[name].values(), protocol) for name in models}


def measure_file(device: Device, path: Path, protocol: Protocol) -> Measurement:
    """Time any `.tflite` file. Raises as `measure_many`."""
    return measure_many(device, {path.name: path}, protocol)[path.name]


def workload_of(name: str, model: bytes | Path) -> Workload:
    content = read_model(model) if isinstance(model, Path) else model
    return Workload(name, lambda: content)


def read_model(path: Path) -> bytes:
    """The file's bytes. Raises `BadModelError` if it cannot be read or lacks TFLite's file identifier."""
    try:
        content = read_bytes(path, MODEL_BYTES)
    except OSError as error:
        raise BadModelError(f"cannot read {path}: {error.strerror}") from error
    if content[4:8] != _IDENTIFIER:
        raise BadModelError(f"{path} is not a .tflite file: its bytes 4 to 7 are not {_IDENTIFIER.decode()}")
    return content
