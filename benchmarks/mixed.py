"""How long choosing widths and precisions together takes: variables, tables of what policies cost, solving.

On the channel grid of a search; a layer is in int8 or float32 where its kind has both. Without a table (`--lut`)
milliseconds are arithmetic: so many MACs and values a microsecond, int8 quicker in convolutions and slower in depthwise
ones. Damage is drawn, falling with width as a square does. Targets are shares of the uncut network's milliseconds.
Seconds are of CPU time, on one core.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

# The folder of this file has a lut.py, which would hide the package.
from amc_latency.lut.prediction.predict import Predictor
from amc_latency.lut.shapes.shape import LayerShape
from amc_latency.lut.table.table import LatencyTable

from amc_latency.errors import UserError
from amc_latency.measuring.profiling import Grid
from amc_latency.models.load import NetworkOptions, load_network
from amc_latency.quantize.architecture import entries, mixed_architecture
from amc_latency.search.costs.clamp import Clamp
from amc_latency.search.costs.costs import PS_PER_MS, LatencyCosts, predicted_costs
from amc_latency.search.solvers.dynamic import solve
from benchmarks.common import csv_of, machine, parser_of, versions

SHARES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
INT8_IS = {"conv": 0.3, "linear": 0.2, "depthwise": 1.6}
"""Time over that of float32; of other kinds 1.2."""


def arithmetic_ms(shape: LayerShape) -> float:
    """Milliseconds of a layer on no device."""
    values = shape.c_out * shape.h_out * shape.w_out
    if shape.kind in ("quantize", "dequantize"):
        return (0.2 + values * 3e-5) / 1000
    us = 0.3 + shape.macs * (1e-4 if shape.kind == "depthwise" else 2e-5) + values * 4e-5
    return us * (1.0 if shape.precision == "float32" else INT8_IS.get(shape.kind, 1.2)) / 1000


def run(model: str, table: Path | None, precisions: list[str], step: int, seed: int) -> None:
    """A network's lines."""
    network = load_network(NetworkOptions(model))
    seconds: dict[str, float] = {}

    def timed(what: str, step: Callable[[], LatencyCosts]) -> LatencyCosts:
        began = time.process_time()
        made = step()
        seconds[what] = time.process_time() - began
        return made

    mixed = mixed_architecture(network.graph, precisions)
    choices = mixed.choices(Grid(step=step).choices(network))
    if table is None:
        costs = timed("costs", lambda: LatencyCosts(mixed, choices, arithmetic_ms))
    else:
        predictor = Predictor(LatencyTable.open(table))
        costs = timed("costs", lambda: predicted_costs(mixed, choices, predictor))
    rng = random.Random(seed)
    damage = []
    for variable, values in enumerate(choices):
        most = rng.expovariate(1) if variable in mixed.by_group else 0.1 * rng.expovariate(1)
        damage.append(most * (1 - np.array(values) / mixed.full[variable]) ** 2)
    began = time.process_time()
    clamp = Clamp(costs, np.inf)
    seconds["clamp"] = time.process_time() - began
    print(
        f"{model}: {len(mixed.by_group)} groups and {len(mixed.full) - len(mixed.by_group)} precisions of "
        f"{len(mixed.allowed)} layers, {sum(map(len, choices)):,} choices, {entries(mixed, choices):,} entries; "
        f"costs {seconds['costs']:.2f} s, clamp {seconds['clamp']:.2f} s; uncut {costs.full_ms:.4g} ms, fastest "
        f"{clamp.fastest_ms / costs.full_ms:.0%}"
    )
    for share in SHARES:
        began = time.process_time()
        try:
            solution = solve(costs, damage, int(share * costs.full_ms * PS_PER_MS))
        except UserError:
            continue
        solving = time.process_time() - began
        names = mixed.precisions(solution.counts)
        exact = "optimal" if solution.optimal else f"within {solution.gap:.3g}"
        print(
            f"  {share:.0%}: {solving:.2f} s, {solving + sum(seconds.values()):.2f} s in all; {exact}, damage "
            f"{solution.damage:.4g}, {names.count('int8')} layers int8"
        )


def main() -> None:
    """Print the lines of each network."""
    parser: argparse.ArgumentParser = parser_of(__doc__)
    parser.add_argument("--models", type=csv_of(str), default=["bundled", "mobilenet_v2", "torchvision:resnet18"])
    parser.add_argument("--lut", type=Path, help="a table of all that can be reached, of one network")
    parser.add_argument("--precisions", type=csv_of(str), default=["int8", "float32"])
    parser.add_argument("--step", type=int, default=Grid.step, help="that channels are multiples of")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"{machine()}; {versions('numpy')}")
    for model in options.models:
        run(model, options.lut, options.precisions, options.step, options.seed)


if __name__ == "__main__":
    main()
