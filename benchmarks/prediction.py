"""How well a latency table predicts networks that its calibration never saw, on this computer's CPU.

For MobileNetV1-224 and the bundled network: builds the table as `amc-latency profile` does (or continues the one
under `--lut`), then times random pruned networks in fresh processes and compares. Run nothing else meanwhile. With
`--json`: one object on standard output, with the figures of each network.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from amc_latency.console import Console
from amc_latency.export import to_tflite
from amc_latency.models.load import Network, NetworkOptions, cut_to, load_network
from amc_latency.profiling import Grid, complete_table
from device.base import Protocol
from device.host import HostDevice
from device.measure import Measurement, measure_many, statistic_text
from lut.architecture import Architecture
from lut.build import NETWORK_ROUNDS
from lut.plan import Choices, nearest_counts
from lut.predict import Predictor
from lut.shape import NetworkShape
from lut.table import LatencyTable

Counts = tuple[int, ...]


CASES = {
    "mobilenet_v1_224": NetworkOptions("mobilenet_v1"),
    "mobilenet_v1_bundled": NetworkOptions(),
}


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


class Meter(Console):
    """A console that shows no message and looks at the memory whenever progress is made."""

    def __init__(self, memory: PeakMemory) -> None:
        super().__init__()
        self.memory = memory

    def say(self, text: str) -> None: ...

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Any]:
        with super().progress(what, total) as meter:
            update = meter.update

            def looking(*values: Any) -> None:
                self.memory.look()
                update(*values)

            meter.update = looking
            yield meter


def measure(
    network: Network, device: HostDevice, policies: Sequence[Counts], protocol: Protocol, seed: int
) -> list[Measurement]:
    """Time the network cut to each policy, all built before the first is timed, in fresh processes."""
    models = {str(i): to_tflite(cut_to(network, counts).model, network.spec.input) for i, counts in enumerate(policies)}
    return list(measure_many(device, models, protocol, seed).values())


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


def run(name: str, folder: Path, n: int, seed: int, protocol: Protocol) -> dict[str, object]:
    """All figures of one network."""
    device = HostDevice()
    network = load_network(CASES[name])
    architecture, grid = network.graph.architecture, Grid()
    table = LatencyTable.open_or_create(folder / f"{name}.tsv", device.identity, protocol)
    memory = PeakMemory()
    report = complete_table(network, device, table, grid, Meter(memory))
    memory.look()
    predictor = Predictor(table)
    uncut: NetworkShape = architecture.shapes()
    calibration = predictor.calibration(uncut)

    counts = random_networks(architecture, grid.choices(network), n, seed)
    networks = [architecture.shapes(each) for each in counts]
    start = time.perf_counter()
    longer = replace(protocol, rounds=NETWORK_ROUNDS * protocol.rounds)
    measured_ms, again_ms = (
        [each.latency_ms for each in measure(network, device, counts, longer, time_seed)] for time_seed in (1, 2)
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
            "build_s": round(report.seconds, 1),
            "peak_resident_mb": memory.megabytes,
            "model": device.identity.model,
            "runtime": device.identity.runtime,
            "protocol": asdict(protocol),
            "network_rounds": longer.rounds,
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
        f"from {calibration['networks']} other networks"
    )
    print(
        f"table: {table['layers']} layers, {table['networks']} networks, {table['rows']} rows "
        f"({table['timed_now']} timed now) in {table['build_s']:.0f} s, "
        f"peak resident {table['peak_resident_mb']:.0f} MB"
    )


def main() -> None:
    """Read the options and run both networks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lut", type=Path, help="folder to keep the tables in, and to continue them from")
    parser.add_argument("--only", choices=list(CASES), help="one of the networks")
    parser.add_argument("--networks", type=int, default=24, help="how many random networks")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the protocol")
    parser.add_argument("--seed", type=int, default=777, help="of the random networks")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()

    protocol = Protocol(rounds=options.rounds)
    names = [name for name in CASES if options.only in (None, name)]
    results: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as fresh:
        for name in names:
            folder = options.lut or Path(fresh)
            # A process for each network, so that neither its memory nor its speed hangs on the one before.
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                job = pool.submit(run, name, folder, options.networks, options.seed, protocol)
                results[name] = job.result()
    if options.json:
        print(json.dumps(results))
        return
    table = results[names[0]]["table"]
    print(f"{table['model']}, {platform.system()} {platform.release()}, Python {platform.python_version()}")
    print(
        f"{table['runtime']}, {protocol.threads} thread, {statistic_text(protocol, protocol.rounds)}, "
        f"whole networks over {table['network_rounds']}"
    )
    for name, figures in results.items():
        show(name, figures)


if __name__ == "__main__":
    main()
