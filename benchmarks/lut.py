"""How long a latency table takes to load, and a network to predict.

    python -m benchmarks.lut [--rows 20000] [--repeats 15] [--json]

The aims: 20,000 rows loaded and checked in under 0.3 s, MobileNetV1 predicted in at most 50 microseconds, and 100,000
policies a second where many are asked for at once. The tables are made up: of a phone, whose rows each say in half a
kilobyte of JSON what they were measured under, and of a computer, whose rows don't.
"""

from __future__ import annotations

import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

# This script is called as a package is: its own folder must not be where `lut` is looked for.
from amc_latency.device.base import DeviceIdentity, Protocol, Summary, Timing
from amc_latency.device.conditions import Conditions
from amc_latency.lut.prediction.predict import Predictor
from amc_latency.lut.shapes.shape import NOOP, LayerShape, network_text, parse_shape
from amc_latency.lut.table.table import LatencyTable
from amc_latency.lut.table.table_text import header_lines, row_line

from amc_latency.measuring.profiling import Grid
from amc_latency.models.load import NetworkOptions, load_network
from amc_latency.search.costs.costs import LatencyCosts
from benchmarks.common import machine, parser_of, versions

IDENTITY = DeviceIdentity("made-up", "arithmetic", "none")
PHONE = Protocol(clock="wall", statistic="median")
COMPUTER = Protocol()
POLICIES = 100_000


def conditions(row: int, draw: random.Random) -> str:
    """What a phone says beside a timing."""
    return Conditions(
        serial="0A1B2C3D4E5F",
        build="maker/phone/phone:10/QP1A.191005.007.A3/5972272:user/release-keys",
        binary_sha256=f"{draw.getrandbits(256):064x}",
        flags="--threads=1 --warmup=3 --warmup_ms=20 --runs=10 --max_runs=1000 --min_time_ms=5",
        cores=(2, 3),
        khz_before=(2150400, 2150400),
        khz_after=(2150400, 2150400),
        temperature_c=(round(draw.uniform(30, 45), 1), round(draw.uniform(30, 45), 1)),
        battery_pct=draw.randrange(40, 100),
        battery_c=31.5,
        charging=True,
        thermal_status=0,
        sentinel_us=(round(draw.uniform(2000, 2100), 2), round(draw.uniform(2000, 2100), 2)),
        delegated=True,
        tries=1,
        time_s=1_700_000_000 + row,
    ).text


def timing(key: str, round_index: int, us: float, protocol: Protocol, text: str = "") -> Timing:
    """A phone's program has one clock, the host's two."""
    summary = Summary(us, 1.01 * us, 1.02 * us, 0.02 * us)
    return Timing(key, round_index, 50, summary if protocol.clock == "cpu" else None, summary, conditions=text)


def write_table(path: Path, rows: int, rounds: int, protocol: Protocol) -> None:
    """Pointwise layers, all different, with `rounds` rows each."""
    draw = random.Random(0)
    lines = [line.encode() for line in header_lines(IDENTITY, protocol)]
    for row in range(rows):
        layer = row // rounds
        key = LayerShape("conv", 8 * (1 + layer % 128), 8 * (1 + layer // 128), 14, 14, activation="relu6").text
        text = conditions(row, draw) if protocol is PHONE else ""
        lines.append(row_line(timing(key, row % rounds, draw.uniform(10, 5000), protocol, text)))
    path.write_bytes(b"\n".join(lines) + b"\n")


def times(call: Callable[[], object], repeats: int, calls: int = 1) -> list[float]:
    """Seconds of one call, in each repeat."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        seconds.append((time.perf_counter() - start) / calls)
    return seconds


def spread(seconds: list[float], scale: float) -> dict[str, float]:
    """Median, minimum and maximum, in units of 1 / `scale` seconds."""
    figures = {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}
    return {name: float(f"{scale * value:.4g}") for name, value in figures.items()}


def loading(rows: int, rounds: int, protocol: Protocol, folder: Path, repeats: int) -> dict[str, object]:
    """Load a table; beside it, CPU time, for a busy computer, and what only splitting the file into cells takes."""
    path = folder / "table.tsv"
    write_table(path, rows, rounds, protocol)
    load_s, cpu_s = [], []
    for _ in range(repeats):
        parse_shape.cache_clear()  # as for the first table of a process
        cpu_start = time.process_time()
        load_s += times(lambda: LatencyTable.open(path), 1)
        cpu_s.append(time.process_time() - cpu_start)
    split_s = times(lambda: [line.split("\t") for line in path.read_text().splitlines()], repeats)
    table = LatencyTable.open(path)
    return {
        "layers": len(table.keys),
        "megabytes": round(path.stat().st_size / 1e6, 1),
        "load_ms": spread(load_s, 1e3),
        "load_cpu_ms": spread(cpu_s, 1e3),
        "predictor_ms": spread(times(lambda: Predictor(table), repeats), 1e3),
        "times_splitting": round(min(load_s) / min(split_s), 2),
    }


def arithmetic_ms(shape: LayerShape) -> float:
    """Something that each layer takes."""
    return 0.001 + shape.macs / 1e8 + (shape.c_in + shape.c_out) / 1e5


def predicting(folder: Path, repeats: int) -> dict[str, object]:
    """MobileNetV1-224: one policy from `LatencyCosts`, its shapes from `Predictor`, and many policies."""
    network = load_network(NetworkOptions("mobilenet_v1"))
    architecture, choices = network.graph.architecture, Grid().choices(network)
    rng = np.random.default_rng(0)
    policies = np.stack([rng.choice(counts, POLICIES) for counts in choices], axis=1)
    few = [tuple(counts) for counts in policies[:100].tolist()]

    costs = LatencyCosts(architecture, choices, arithmetic_ms, 0.05)
    networks = [architecture.shapes(counts) for counts in few[:8]]
    predictor = Predictor(table_of(networks, folder / "networks.tsv"))
    assert costs.ms_many(few).tolist() == [costs.ms(counts) for counts in few]

    costs_s = [seconds / len(few) for seconds in times(lambda: [costs.ms(counts) for counts in few], repeats)]
    predictor_s = times(lambda: predictor.ms(networks[0]), repeats, calls=100)
    many_s = times(lambda: costs.ms_many(policies), repeats)
    return {
        "layers": len(architecture.layers),
        "groups": len(choices),
        "costs_ms_us": spread(costs_s, 1e6),
        "predictor_ms_us": spread(predictor_s, 1e6),
        "policies_per_s": spread([POLICIES / seconds for seconds in many_s], 1),
        "many_against_one_by_one": round(min(costs_s) * POLICIES / min(many_s), 1),
    }


def table_of(networks: list[tuple[LayerShape, ...]], path: Path) -> LatencyTable:
    """The networks, which calibrate the prediction, and each of their layers."""
    table = LatencyTable.create(path, IDENTITY, COMPUTER)
    shapes = {shape for network in networks for shape in network}
    latencies_ms = {shape.text: arithmetic_ms(shape) for shape in {NOOP, *shapes}}
    latencies_ms |= {network_text(network): 0.05 + sum(map(arithmetic_ms, network)) for network in networks}
    for key, ms in latencies_ms.items():
        table.append(timing(key, 0, 1000 * ms, COMPUTER))
    table.close()
    return table


def main() -> None:
    """Read the options, measure, print."""
    parser = parser_of(__doc__, json=True)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    if min(options.rows, options.repeats) < 1:
        parser.error("--rows and --repeats are at least 1")
    cases = {
        "phone, 4 rounds": (4, PHONE),
        "computer, 4 rounds": (4, COMPUTER),
        "phone, each row another layer": (1, PHONE),
    }
    with tempfile.TemporaryDirectory() as folder:
        record = {
            "machine": machine(),
            "versions": versions("numpy"),
            "repeats": options.repeats,
            "rows": options.rows,
            "loading": {
                name: loading(options.rows, rounds, protocol, Path(folder), options.repeats)
                for name, (rounds, protocol) in cases.items()
            },
            "predicting": predicting(Path(folder), options.repeats),
        }
    print(json.dumps(record)) if options.json else show(record)


def show(record: dict) -> None:
    """The figures as a table."""
    print(f"{record['machine']}; {record['versions']}; median (min to max) of {record['repeats']} repeats\n")
    rows = f"{record['rows']:,} rows"
    print(f"{rows:30}{'layers':>8}{'MB':>6}{'load ms':>24}{'CPU ms':>8}{'x splitting':>13}{'Predictor ms':>24}")
    for name, row in record["loading"].items():
        print(
            f"{name:30}{row['layers']:8,}{row['megabytes']:6.1f}{cell(row['load_ms']):>24}{row['load_cpu_ms']['median']:8.1f}"
            f"{row['times_splitting']:13.1f}{cell(row['predictor_ms']):>24}"
        )
    row = record["predicting"]
    print(f"\nMobileNetV1-224, {row['layers']} layers, {row['groups']} coupled groups")
    print(f"{'one policy, LatencyCosts.ms':36}{cell(row['costs_ms_us']):>20} us")
    print(f"{'a network known, Predictor.ms':36}{cell(row['predictor_ms_us']):>20} us")
    rates = {name: value / 1e6 for name, value in row["policies_per_s"].items()}
    print(f"{f'{POLICIES:,} at once, ms_many':36}{cell(rates):>20} million policies/s")
    print(f"{'':36}{row['many_against_one_by_one']:>20} times as fast as one by one")


def cell(values: dict[str, float]) -> str:
    """Median, then minimum and maximum in brackets."""
    low, high = sorted((values["min"], values["max"]))
    return f"{values['median']:.1f} ({low:.1f} to {high:.1f})"


if __name__ == "__main__":
    main()
