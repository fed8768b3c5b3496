"""Every network of the papers through the whole flow on this computer: profile, cut, export, compare, time.

    python -m benchmarks.zoo [--networks resnet18,vgg16_bn] [--speedup 1.5] [--goal 2%] [--rounds 1] [--out FOLDER]

Each network has random weights (EfficientNet-Lite0 its own, where its extra is installed) and batch norms that have
seen images; it is profiled on its own table and cut to the widest uniform width under the target, as a latency does not
depend on which weights are there. Where the device says that the result is over the target, predictions are shifted
and a narrower one is cut, as a search does. `predicted` is what the table said of the network that is kept, before its
own timing; `same rounds` is what that is off by if the uncut network's timing beside it replaces the one in the table:
without what the machine wandered meanwhile. `covered` is the share of the operators that the table has. Both files'
outputs are compared with PyTorch's on eight images of Fashion-MNIST, relative to their range. Run nothing else
meanwhile; with --out a stopped run goes on.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from amc_latency.device.base import Device, Protocol
from amc_latency.device.host.host import HostDevice
from amc_latency.device.rounds.measure import Measurement, measure_many
from amc_latency.lut.prediction.predict import Predictor

from amc_latency.console import Console
from amc_latency.data import fitted, load_data
from amc_latency.errors import JobError, UserError
from amc_latency.export.export import ExportReport, export
from amc_latency.measuring.profiling import Grid, complete_table, open_table, plan_of
from amc_latency.models.load import Network, NetworkOptions, cut_to, load_network
from amc_latency.models.untrained import with_norm_statistics
from amc_latency.search.costs.clamp import Clamp
from amc_latency.search.costs.costs import Counts, LatencyCosts, predicted_costs
from amc_latency.search.solvers.baselines import uniform_policy
from benchmarks.common import machine, parser_of, versions

NETWORKS = (
    *("mobilenet_v1", "mobilenet_v2", "vgg16", "vgg16_bn", "resnet18", "resnet50"),
    *("resnet20", "resnet56", "plain20", "lenet5", "efficientnet_lite0"),
    *("mobilenet_v3_small", "mobilenet_v3_large", "mnasnet1_0", "squeezenet1_1", "densenet121", "googlenet"),
)
OPTIONS = {
    # CIFAR's size, which these were made for.
    **{name: {"input": "3x32x32", "classes": 10} for name in ("resnet20", "resnet56", "plain20")},
}
GRIDS = {
    "lenet5": Grid(min_keep=0.02, step=1),
    **dict.fromkeys(("resnet20", "resnet56", "plain20"), Grid(step=4)),
}
"""Where 8 channels a step would leave few choices: these have groups of 6 or 16."""
ROUNDS = {"lenet5": 3}
"""Where a layer takes a microsecond or two, one round's timings wander by more than is asked for."""
CORRECTIONS = 4
MARGIN_PCT = 1.5


@dataclass(frozen=True)
class Row:
    """One network."""

    name: str
    input: str
    groups: int
    left_whole: int
    layers: int
    coverage_pct: float
    rows: int
    original_ms: float
    target_ms: float
    predicted_ms: float
    measured_ms: float
    attempts: int
    converter: str
    relative_error: float
    """the larger one of both files', as a share of the outputs' range"""
    ops: dict[str, int]
    bytes: int
    seconds: float

    @property
    def error_pct(self) -> float:
        return 100 * (self.predicted_ms / self.measured_ms - 1)

    def same_rounds_pct(self, speedup: float) -> float:
        """The error without the wandering of the machine since the table was made."""
        return 100 * (self.predicted_ms * self.original_ms / (self.target_ms * speedup) / self.measured_ms - 1)

    @property
    def met(self) -> bool:
        return self.measured_ms <= self.target_ms


def run(name: str, folder: Path, speedup: float, goal: str, rounds: int, console: Console) -> Row:
    """Profile, cut, export and time one network."""
    began = time.perf_counter()
    network = load_network(NetworkOptions(name, **OPTIONS.get(name, {})))
    if not network.trained:
        network = with_norm_statistics(network)
    grid = GRIDS.get(name, Grid())
    with HostDevice() as device:
        protocol = replace(device.protocol, rounds=rounds)
        table = open_table(device, protocol, folder / f"{name}.tsv", create=True)
        assert table is not None
        profile = complete_table(network, device, table, grid, console, plan_of("learn", goal))
        predictor = Predictor(table)
        costs = predicted_costs(network.graph.architecture, grid.choices(network), predictor)
        target_ms = profile.original_ms / speedup
        counts, predicted_ms, measured, reports, attempts = _fitted(network, costs, target_ms, device, protocol, folder)
    shapes = network.graph.architecture.shapes(counts)
    cut = reports[-1]
    return Row(
        name=name,
        input="x".join(map(str, network.spec.input)),
        groups=len(network.graph.groups),
        left_whole=len(network.graph.left_whole),
        layers=len(shapes),
        coverage_pct=100 * (1 - len(predictor.missing(shapes)) / len(shapes)),
        rows=profile.rows,
        original_ms=measured["original"].latency_ms,
        target_ms=target_ms,
        predicted_ms=predicted_ms,
        measured_ms=measured["cut"].latency_ms,
        attempts=attempts,
        converter=cut.converter,
        relative_error=max(report.max_abs_error / (report.output_range or 1.0) for report in reports),
        ops=cut.ops,
        bytes=cut.bytes,
        seconds=round(time.perf_counter() - began, 1),
    )


def _fitted(
    network: Network, costs: LatencyCosts, target_ms: float, device: Device, protocol: Protocol, folder: Path
) -> tuple[Counts, float, dict[str, Measurement], list[ExportReport], int]:
    """The counts whose exported file the device says is at or under the target, and what it says."""
    original = folder / "original.tflite"
    images = fitted(load_data("bundled"), network.spec, network.pixels).train.take(8).inputs(network.spec.input[1:])
    reports = [export(network.model, network.spec.input, original, images)]
    protocol = replace(protocol, rounds=protocol.network_rounds)
    factor = 1.0
    for attempt in range(1, CORRECTIONS + 2):
        limit_ms = target_ms / factor * (1 - MARGIN_PCT / 100)
        try:
            counts = uniform_policy(costs, limit_ms)
        except UserError:
            counts = _narrowed(costs, limit_ms)
        path = folder / "cut.tflite"
        report = export(cut_to(network, counts).model, network.spec.input, path, images)
        measured = measure_many(device, {"original": original, "cut": path}, protocol)
        if measured["cut"].latency_ms <= target_ms or attempt > CORRECTIONS:
            break
        factor = measured["cut"].latency_ms / costs.ms(counts)
    return counts, costs.ms(counts), measured, [*reports, report], attempt


def _narrowed(costs: LatencyCosts, limit_ms: float) -> Counts:
    """Where no uniform width is fast enough: each group in turn as wide as the target still allows, by halves."""
    clamp = Clamp(costs, limit_ms)
    counts: Counts = ()
    for _ in range(costs.groups):
        counts = (*counts, clamp.nearest(counts, 0.5))
    return counts


def print_table(rows: list[Row], speedup: float) -> None:
    """A line a network, and the ops of each below."""
    print(
        f"{'network':20}{'input':>12}{'groups':>7}{'whole':>6}{'layers':>7}{'covered':>8}{'original':>10}{'target':>9}"
        f"{'predicted':>10}{'measured':>9}{'error':>7}{'same rounds':>12}{'tries':>6}"
        f"{'vs torch':>9}{'converter':>10}{'seconds':>8}"
    )
    for row in rows:
        print(
            f"{row.name:20}{row.input:>12}{row.groups:7}{row.left_whole:6}{row.layers:7}{row.coverage_pct:7.1f}%"
            f"{row.original_ms:10.4g}{row.target_ms:9.4g}{row.predicted_ms:10.4g}{row.measured_ms:9.4g}"
            f"{row.error_pct:+6.1f}%{row.same_rounds_pct(speedup):+11.1f}%{row.attempts:6}{row.relative_error:9.0e}{row.converter:>10}{row.seconds:8.0f}"
            + ("" if row.met else "  OVER THE TARGET")
        )
    print(f"\nmilliseconds, --speedup {speedup:g}; operators and bytes of the cut files:")
    for row in rows:
        print(f"{row.name:20}{row.bytes:12,} bytes  " + ", ".join(f"{n} {op}" for op, n in row.ops.items()))
    as_it_stands = max(abs(row.error_pct) for row in rows)
    same_rounds = max(abs(row.same_rounds_pct(speedup)) for row in rows)
    print(
        f"{sum(row.met for row in rows)} of {len(rows)} at or under the target; predictions off by "
        f"{as_it_stands:.1f} % at most, in the same rounds by {same_rounds:.1f} %"
    )


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--speedup", type=float, default=1.5)
    parser.add_argument("--goal", default="2%")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / "zoo.jsonl"
        done = [Row(**json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []
        names = options.networks.split(",")
        for name in names:
            if all(row.name != name for row in done):
                try:
                    rounds = max(options.rounds, ROUNDS.get(name, 1))
                    row = run(name, folder, options.speedup, options.goal, rounds, Console())
                except (UserError, JobError) as error:
                    print(f"{name}: {error}", file=sys.stderr)
                    continue
                done.append(row)
                with log.open("a") as file:
                    file.write(json.dumps(asdict(row)) + "\n")
                print(f"{name}: {row.measured_ms:.4g} ms, {row.error_pct:+.1f} %, {row.seconds:.0f} s", file=sys.stderr)
        print(f"{machine()}; {versions('torch', 'ai-edge-litert')}")
        rows = [row for name in names for row in done if row.name == name]
        print_table(rows, options.speedup)
        print(f"{len(names) - len(rows)} of {len(names)} networks failed")


if __name__ == "__main__":
    main()
