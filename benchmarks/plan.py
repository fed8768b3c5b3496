"""How few measurements a learned plan needs, against the fixed grid: on this computer, and on a device of arithmetic.

For MobileNetV1-224 on each device: the table of the fixed grid (every reachable count at the widest input, and each
step at two other inputs) and tables learned with several goals, each built anew. Then candidates that chance picks, a
layer family as often as it weighs in the network's time, and random pruned networks are timed in new processes, twice,
and compared with what each table says of them. Run nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

# The folder of this file has a lut.py, which would hide the package.
from amc_latency.device.base import Device, Protocol, Workload
from amc_latency.device.host.host import HostDevice
from amc_latency.device.rounds.measure import statistic_text, summarise
from amc_latency.lut.building.build import Plan, layer_workloads
from amc_latency.lut.building.plan import reachable_shapes
from amc_latency.lut.prediction.predict import Predictor
from amc_latency.lut.shapes.family import family
from amc_latency.lut.shapes.shape import LayerShape, NetworkShape, network_text
from amc_latency.lut.table.table import LatencyTable

from amc_latency.console import Console
from amc_latency.export.export import to_tflite
from amc_latency.measuring.profiling import Grid, complete_table
from amc_latency.models.load import Network, NetworkOptions, cut_to, load_network
from benchmarks.common import machine, versions
from benchmarks.policies import random_networks
from benchmarks.synthetic_device import SyntheticDevice

DEVICES = {"host": 8, "synthetic": 4}
"""And the step that counts are multiples of."""
PLANS = {"fixed grid": Plan("grid"), "goal 1 %": Plan(goal=0.01), "goal 0.5 %": Plan(goal=0.005)}


def drawn(
    network: Sequence[LayerShape], costs: Predictor, candidates: Sequence[LayerShape], n: int
) -> list[LayerShape]:
    """`n` different candidates, families as often as they weigh in the uncut network's time."""
    weights: dict[tuple, float] = defaultdict(float)
    for shape in network:
        weights[family(shape)] += costs.layer_us(shape)
    members = defaultdict(list)
    for shape in candidates:
        members[family(shape)].append(shape)
    rng = random.Random("held-out candidates")
    chosen: dict[LayerShape, None] = {}
    while len(chosen) < n:
        chosen[rng.choice(members[rng.choices(list(weights), list(weights.values()))[0]])] = None
    return list(chosen)


def timed_ms(device: Device, workloads: Sequence[Workload], protocol: Protocol, seed: int) -> dict[str, float]:
    """Milliseconds of each workload over all rounds."""
    timings = defaultdict(list)
    for timing in device.time(workloads, protocol, seed):
        timings[timing.workload].append(timing)
    return {name: summarise(rounds, protocol).latency_ms for name, rounds in timings.items()}


def errors_pct(predicted_ms: Sequence[float], measured_ms: Sequence[float]) -> str:
    """Mean, 90th percentile (nearest rank) and largest of the relative errors."""
    sizes = sorted(100 * abs(f / m - 1) for f, m in zip(predicted_ms, measured_ms, strict=True))
    return f"{statistics.fmean(sizes):7.2f}{sizes[-(-9 * len(sizes) // 10) - 1]:7.2f}{sizes[-1]:7.2f}"


def run(name: str, step: int, folder: Path, n: int, seed: int) -> None:
    """One device's table of figures."""
    device = HostDevice() if name == "host" else SyntheticDevice()
    again = HostDevice() if name == "host" else SyntheticDevice(seed=1)
    network = load_network(NetworkOptions("mobilenet_v1"))
    architecture, grid, protocol = network.graph.architecture, Grid(step=step), Protocol()
    choices = grid.choices(network)
    candidates = reachable_shapes(architecture, choices)
    print(f"\n{device.identity.name}: {device.identity.model}, {device.identity.runtime}")
    print(f"{len(candidates):,} reachable layer shapes, counts in steps of {step}; {statistic_text(protocol, 3)}")
    tables = {}
    for plan_name, plan in PLANS.items():
        start = time.perf_counter()
        table = LatencyTable.create(folder / f"{name} {plan_name}.tsv".replace(" ", "-"), device.identity, protocol)
        report = complete_table(network, device, table, grid, Console(quiet=True), plan)
        tables[plan_name] = (table, report, time.perf_counter() - start)

    held_out = drawn(architecture.shapes(), Predictor(tables["fixed grid"][0]), candidates, n)
    layers = layer_workloads(held_out)
    layers_ms = [timed_ms(device_, layers, protocol, seed) for seed, device_ in enumerate((again, device), start=1)]
    networks = [architecture.shapes(counts) for counts in random_networks(architecture, choices, 24, seed)]
    whole = [Workload(network_text(shapes), _file(network, shapes)) for shapes in networks]
    longer = replace(protocol, rounds=protocol.network_rounds)
    networks_ms = [timed_ms(device_, whole, longer, seed) for seed, device_ in enumerate((again, device), start=3)]
    first, second = layers_ms[0], networks_ms[0]

    print(f"{'':14}{'layers':>8}{'rows':>8}{'s':>6}{'':4}{n} candidates, %{'':5}24 networks, %")
    print(f"{'':14}{'timed':>8}{'':>14}{'mean':>9}{'p90':>7}{'max':>7}{'mean':>9}{'p90':>7}{'max':>7}")
    for plan_name, (table, report, seconds) in tables.items():
        predictor = Predictor(table)
        noop_ms = (table.latency_us("noop 1x1x1>1 k1 s1 p0 none float32") or 0.0) / 1000
        layer_errors = errors_pct(
            [predictor.layer_us(shape) / 1000 + noop_ms for shape in held_out], [first[s.text] for s in held_out]
        )
        network_errors = errors_pct(
            [predictor.ms(shapes) for shapes in networks], [second[network_text(shapes)] for shapes in networks]
        )
        print(f"{plan_name:14}{report.layers:8}{len(table.rows):8}{seconds:6.0f}  {layer_errors}  {network_errors}")
    noise = (
        errors_pct([layers_ms[1][s.text] for s in held_out], [first[s.text] for s in held_out]),
        errors_pct([networks_ms[1][network_text(s)] for s in networks], [second[network_text(s)] for s in networks]),
    )
    print(f"{'timed again':36}  {noise[0]}  {noise[1]}")


def _file(network: Network, shapes: NetworkShape) -> Callable[[], bytes]:
    # One output count a coupled group: MobileNetV1 has a group a convolution.
    counts = tuple(shape.c_out for shape in shapes if shape.kind == "conv")
    model = to_tflite(cut_to(network, counts).model, network.spec.input)
    return lambda: model


def main() -> None:
    """Read the options and run both devices."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=list(DEVICES), help="one of the devices")
    parser.add_argument("--candidates", type=int, default=200, help="how many held-out layer shapes")
    parser.add_argument("--seed", type=int, default=777, help="of the random networks")
    options = parser.parse_args()
    print(f"{machine()}; {versions()}")
    with tempfile.TemporaryDirectory() as folder:
        for name, step in DEVICES.items():
            if options.only in (None, name):
                run(name, step, Path(folder), options.candidates, options.seed)


if __name__ == "__main__":
    main()
