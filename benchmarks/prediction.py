"""How well a latency table predicts networks that its calibration never saw, on this computer's CPU.

For MobileNetV1-224 and the bundled network: builds the table (or continues the one under `--lut`), then times
random pruned networks in fresh processes and compares. Run nothing else meanwhile. With `--json`: one object
on standard output, with the figures of each network.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from amc_latency.export import to_tflite
from amc_latency.graph import trace
from amc_latency.models.mobilenet_v1 import mobilenet_v1
from amc_latency.profiling import UNIFORM_WIDTHS
from device.base import Protocol
from device.host import HostDevice
from device.measure import Measurement, measure_many, statistic_text
from lut.architecture import Architecture, channel_choices
from lut.build import NETWORK_ROUNDS, BuildReport, NetworkWorkload, build_table
from lut.plan import Choices, nearest_counts, uniform_counts
from lut.predict import Predictor
from lut.shape import NetworkShape
from lut.table import LatencyTable

Counts = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """A MobileNetV1 to prune at random."""

    name: str
    width: float
    input_chw: tuple[int, int, int]
    classes: int


CASES = (
    Case("mobilenet_v1_224", 1.0, (3, 224, 224), 1000),
    Case("mobilenet_v1_bundled", 0.5, (1, 64, 64), 10),
)


def random_networks(architecture: Architecture, choices: Choices, n: int, seed: int) -> list[Counts]:
    """Half with independent widths, half with one width and a jitter for each group."""
    rng = random.Random(seed)
    networks = []
    for i in range(n):
        width = rng.uniform(0.3, 1.0)
        keeps = [
            rng.uniform(0.25, 1.0) if i < n // 2 else min(1.0, width * rng.uniform(0.8, 1.2))
            for _ in architecture.group_channels
        ]
        wanted = [keep * channels for keep, channels in zip(keeps, architecture.group_channels, strict=True)]
        networks.append(nearest_counts(choices, wanted))
    return networks


def network_file(case: Case, counts: Counts) -> bytes:
    """The pruned network, random weights, as `.tflite`."""
    model = mobilenet_v1(classes=case.classes, in_channels=case.input_chw[0], channels=counts).eval()
    return to_tflite(model, case.input_chw)


class PeakMemory:
    """The most that this process and any one of its workers have had resident, together."""

    def __init__(self) -> None:
        self.megabytes = 0.0

    def look(self) -> None:
        """Take note of the peaks so far; a worker's is lost when it ends. Rusage won't do: a forked child's starts at
        its parent's, before it becomes another program.
        """
        own = Path("/proc/self")
        workers = [Path("/proc", pid) for file in own.glob("task/*/children") for pid in file.read_text().split()]
        now = _peak_kib(own) + max(map(_peak_kib, workers), default=0)
        self.megabytes = max(self.megabytes, round(now * 1024 / 1e6))


def _peak_kib(process: Path) -> int:
    try:
        status = (process / "status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), 0)


def build(case: Case, device: HostDevice, table: LatencyTable, choices: Choices, memory: PeakMemory) -> BuildReport:
    """Time whatever the table lacks: layers, and uniform widths to calibrate on."""
    architecture = architecture_of(case)
    widths = dict.fromkeys(uniform_counts(architecture, choices, width) for width in UNIFORM_WIDTHS)
    networks = [NetworkWorkload(architecture.shapes(counts), partial(network_file, case, counts)) for counts in widths]

    def progress(done: int, total: int, to_go_s: float, name: str) -> None:
        memory.look()
        if sys.stderr.isatty():
            print(f"\r{case.name}: {done}/{total}, {to_go_s:4.0f} s to go ", end="", file=sys.stderr)

    report = build_table(device, table, architecture, choices, networks, progress)
    memory.look()
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return report


def architecture_of(case: Case) -> Architecture:
    """The uncut network's layers."""
    model = mobilenet_v1(case.width, case.classes, case.input_chw[0]).eval()
    return trace(model, case.input_chw).architecture


def measure(
    case: Case, device: HostDevice, networks: Sequence[Counts], protocol: Protocol, seed: int
) -> list[Measurement]:
    """Time the networks in fresh processes, from files, so that building them doesn't disturb the timing."""
    with tempfile.TemporaryDirectory() as folder:
        files: dict[str, bytes | Path] = {}
        for i, counts in enumerate(networks):
            path = Path(folder, f"{i}.tflite")
            path.write_bytes(network_file(case, counts))
            files[path.stem] = path
        measured = measure_many(device, files, protocol, seed)
        return [measured[name] for name in files]


def error_figures(predicted_ms: Sequence[float], measured_ms: Sequence[float]) -> dict[str, float]:
    """Signed and absolute relative errors in percent; p90 is the nearest rank."""
    errors = [100 * (p / m - 1) for p, m in zip(predicted_ms, measured_ms, strict=True)]
    sizes = sorted(map(abs, errors))
    return {
        "bias_pct": round(statistics.fmean(errors), 3),
        "mape_pct": round(statistics.fmean(sizes), 3),
        "p90_pct": round(sizes[-(-9 * len(sizes) // 10) - 1], 3),
        "max_pct": round(sizes[-1], 3),
    }


def run(case: Case, folder: Path, n: int, seed: int, protocol: Protocol) -> dict[str, object]:
    """All figures of one network."""
    device = HostDevice()
    architecture = architecture_of(case)
    choices = tuple(map(channel_choices, architecture.group_channels))
    table = LatencyTable.open_or_create(folder / f"{case.name}.tsv", device.identity, protocol)
    memory = PeakMemory()
    report = build(case, device, table, choices, memory)
    predictor = Predictor(table)
    uncut: NetworkShape = architecture.shapes()
    calibration = predictor.calibration(uncut)

    counts = random_networks(architecture, choices, n, seed)
    networks = [architecture.shapes(each) for each in counts]
    start = time.perf_counter()
    longer = replace(protocol, rounds=NETWORK_ROUNDS * protocol.rounds)
    measured_ms, again_ms = (
        [each.latency_ms for each in measure(case, device, counts, longer, time_seed)] for time_seed in (1, 2)
    )
    noise = [100 * abs(one / other - 1) for one, other in zip(again_ms, measured_ms, strict=True)]
    summary = table.summary()
    return {
        "n": n,
        "raw": error_figures([predictor.raw_ms(network) for network in networks], measured_ms),
        "calibrated": error_figures([predictor.ms(network) for network in networks], measured_ms),
        "noise_pct": round(statistics.fmean(noise), 3),
        "seed": seed,
        "uncut_ms": predictor.measured_ms(uncut),
        "measured_ms": [round(min(measured_ms), 4), round(max(measured_ms), 4)],
        "measuring_s": round(time.perf_counter() - start, 1),
        "calibration": asdict(calibration),
        "table": {
            "layers": summary["layers"],
            "networks": summary["networks"],
            "rows": summary["rows"],
            "timed_now": report.timed,
            "errors": len(report.errors),
            "build_s": round(report.seconds, 1),
            "peak_resident_mb": memory.megabytes,
            "model": device.identity.model,
            "runtime": device.identity.runtime,
            "protocol": asdict(protocol),
        },
    }


def show(name: str, figures: dict) -> None:
    """One network's figures as a table."""
    table, calibration = figures["table"], figures["calibration"]
    low, high = figures["measured_ms"]
    print(f"\n{name}: {figures['n']} random networks of {low:.2f}-{high:.2f} ms, uncut {figures['uncut_ms']:.2f} ms")
    print(f"{'':12}{'bias %':>9}{'MAPE %':>9}{'p90 %':>9}{'max %':>9}")
    for kind in ("raw", "calibrated"):
        cells = (figures[kind][f"{column}_pct"] for column in ("bias", "mape", "p90", "max"))
        print(f"{kind:12}" + "".join(f"{cell:9.2f}" for cell in cells))
    print(f"noise: the same networks timed once more differ by {figures['noise_pct']:.2f} % (mean)")
    print(
        f"calibration: {calibration['scale']:.4f} x + {calibration['offset_ms']:.4f} ms "
        f"from {calibration['networks']} uniform widths"
    )
    print(
        f"table: {table['layers']} layers, {table['networks']} networks, {table['rows']} rows "
        f"({table['timed_now']} timed now, {table['errors']} errors) in {table['build_s']:.0f} s, "
        f"peak resident {table['peak_resident_mb']:.0f} MB"
    )


def main() -> None:
    """Read the options and run both networks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lut", type=Path, help="folder to keep the tables in, and to continue them from")
    parser.add_argument("--only", choices=[case.name for case in CASES], help="one of the networks")
    parser.add_argument("--networks", type=int, default=24, help="how many random networks")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the protocol")
    parser.add_argument("--seed", type=int, default=777, help="of the random networks")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()

    protocol = Protocol(rounds=options.rounds)
    cases = [case for case in CASES if options.only in (None, case.name)]
    results: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as fresh:
        for case in cases:
            folder = options.lut or Path(fresh)
            # A process for each network, so that neither its memory nor its speed hangs on the one before.
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                job = pool.submit(run, case, folder, options.networks, options.seed, protocol)
                results[case.name] = job.result()
    if options.json:
        print(json.dumps(results))
        return
    table = results[cases[0].name]["table"]
    print(f"{table['model']}, {platform.system()} {platform.release()}, Python {platform.python_version()}")
    print(f"{table['runtime']}, {protocol.threads} thread, {statistic_text(protocol, protocol.rounds)}")
    for name, figures in results.items():
        show(name, figures)


if __name__ == "__main__":
    main()
