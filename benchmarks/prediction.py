"""How well a latency table predicts networks that its calibration never saw, on this computer's CPU.

For MobileNetV1-224, MobileNetV2-224 and the bundled network: builds the table as `amc-latency profile` does (or
continues the one under `--lut`), then times random pruned networks and uniform ones of .5 and .35, and compares. All
under the host's own protocol, at the sentinel's reference speed; `--rounds` alone differs. Run nothing else meanwhile.
With `--mixed` each layer has a precision of its own, drawn alone or in runs of several layers, and what stands between
precisions counts; the uniform networks are int8.
With `--json`: one object on standard output, with the figures of each network.

A virtual machine's speed wanders between one minute and another. So one session times, in the same shuffled rounds,
the networks, the same once more, and those that the table was calibrated on. That shows apart: `as it stands`, what
the table predicts, wandering included; `same rounds`, what it predicts if calibrated on its own networks as timed in
this session; the wandering, as the ratio of the calibration networks' two timings; and the noise of one timing, which
a perfect prediction would be off by.

Last the test of pairs: of 50 pairs that are predicted within 1 % of each other, how many are measured within 3 %, by
the paired ratio of their rounds. Where the networks themselves have fewer such pairs, more are timed beside them: for
each network in turn the first of `DRAWN` more random ones that is predicted within 1 % of it, until there are 50.
Those count for the pairs only.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

from amc_latency.device.base import Protocol, Timing, Workload
from amc_latency.device.host.host import HostDevice
from amc_latency.device.rounds.measure import statistic_text, summarise
from amc_latency.lut.prediction.predict import Predictor, network_family
from amc_latency.lut.shapes.precisions import PRECISIONS
from amc_latency.lut.shapes.shape import NetworkShape, network_text, parse_network
from amc_latency.lut.table.table import LatencyTable

from amc_latency.measuring.profiling import Grid, complete_table, plan_of
from amc_latency.models.load import Network, NetworkOptions, load_network
from amc_latency.quantize.architecture import mixed_architecture
from benchmarks.close_pairs import pair_test, partners
from benchmarks.peak_memory import Meter, PeakMemory
from benchmarks.policies import (
    Policy,
    policy_of,
    random_networks,
    random_policies,
    uniform_int8,
    uniform_policies,
)

WIDTHS = (0.5, 0.35)
DRAWN = 3000
"""Random networks among which partners are looked for."""
CASES = {
    "mobilenet_v1_224": NetworkOptions("mobilenet_v1"),
    "mobilenet_v2_224": NetworkOptions("mobilenet_v2"),
    "mobilenet_v1_bundled": NetworkOptions(),
}


@dataclass(frozen=True)
class Session:
    """Networks timed twice, among those that the table was calibrated on."""

    first_ms: list[float]
    again_ms: list[float]
    rounds_us: list[list[float]]
    """each network's figures by round, the first time; then those of the networks that were timed once"""
    table: LatencyTable
    """the table with its calibration networks as timed here"""
    drift_pct: list[float]
    """of each calibration network, since the table was built"""


def calibration_networks(table: LatencyTable, uncut: NetworkShape) -> list[NetworkShape]:
    """The table's whole networks that calibrate predictions of this one."""
    networks = [parse_network(key) for key in table.keys if " + " in key]
    return [network for network in networks if network_family(network) == network_family(uncut)]


def time_together(
    network: Network,
    device: HostDevice,
    table: LatencyTable,
    policies: Sequence[Policy],
    protocol: Protocol,
    once: Sequence[Policy] = (),
) -> Session:
    """Time all in the same shuffled rounds, `once` without a second time; all are built before the first is timed."""
    architecture = network.graph.architecture
    calibrating = calibration_networks(table, architecture.shapes())

    own_models = [policy.content(network) for policy in policies]
    models = {network_text(shapes): policy_of(architecture, shapes).content(network) for shapes in calibrating}
    models |= {f"{when} {i}": content for when in ("first", "again") for i, content in enumerate(own_models)}
    models |= {f"first {i}": policy.content(network) for i, policy in enumerate(once, len(policies))}
    workloads = [Workload(name, partial(models.__getitem__, name)) for name in models]
    timings: dict[str, list[Timing]] = {name: [] for name in models}
    for timing in device.time(workloads, protocol, seed=1):
        timings[timing.workload].append(timing)
    measured_ms = {name: summarise(some, protocol).latency_ms for name, some in timings.items()}

    beside, before = table.detached(), Predictor(table)
    drift_pct = []
    for shapes in calibrating:
        for timing in timings[network_text(shapes)]:
            beside.append(timing)
        before_ms = before.measured_ms(shapes)
        assert before_ms is not None
        drift_pct.append(100 * (measured_ms[network_text(shapes)] / before_ms - 1))
    first_ms, again_ms = ([measured_ms[f"{when} {i}"] for i in range(len(policies))] for when in ("first", "again"))
    rounds_us = []
    for i in range(len(policies) + len(once)):
        by_round = {timing.round: timing.latency_us(protocol) for timing in timings[f"first {i}"]}
        rounds_us.append([by_round[index] for index in sorted(by_round)])
    return Session(first_ms, again_ms, rounds_us, beside, drift_pct)


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


def prediction_figures(predictor: Predictor, networks: Sequence[NetworkShape], measured_ms: Sequence[float]) -> dict:
    """Errors of a predictor, and how many measurements lie in its 95 % intervals."""
    predicted_ms = [predictor.ms(network) for network in networks]
    intervals_ms = [interval for network in networks if (interval := predictor.interval_ms(network)) is not None]
    pairs = list(zip(intervals_ms, measured_ms, strict=False))
    half_widths = [50 * (high - low) / ms for (low, high), ms in zip(intervals_ms, predicted_ms, strict=False)]
    return {
        **error_figures(predicted_ms, measured_ms),
        "inside": sum(low <= ms <= high for (low, high), ms in pairs),
        "intervals": len(pairs),
        "half_width_pct": round(statistics.fmean(half_widths), 3) if half_widths else None,
        "predicted_ms": predicted_ms,
        "intervals_ms": intervals_ms,
    }


def run(name: str, folder: Path, n: int, seed: int, protocol: Protocol, is_mixed: bool, goal: str) -> dict[str, object]:
    """All figures of one network; `is_mixed` if layers have precisions of their own."""
    device = HostDevice()
    device.say = partial(print, file=sys.stderr)
    network = load_network(CASES[name])
    architecture = network.graph.architecture
    grid = Grid(precisions=tuple(reversed(PRECISIONS))) if is_mixed else Grid()
    table = LatencyTable.open_or_create(folder / f"{name}.tsv", device.identity, protocol)
    memory = PeakMemory()
    report = complete_table(network, device, table, grid, Meter(memory), plan_of("learn", goal))
    memory.look()
    predictor = Predictor(table)
    uncut: NetworkShape = architecture.shapes()

    choices = grid.choices(network)
    seen = {policy_of(architecture, shapes) for shapes in calibration_networks(table, uncut)}
    uniform = uniform_policies(architecture, choices, WIDTHS)
    if is_mixed:
        mixed = mixed_architecture(network.graph, grid.precisions)
        uniform = uniform_int8(mixed, choices, WIDTHS)
        found, drawn = (random_policies(mixed, choices, many, of) for many, of in ((n, seed), (DRAWN, seed + 1)))
    else:
        found, drawn = (
            [Policy(counts) for counts in random_networks(architecture, choices, many, of)]
            for many, of in ((n, seed), (DRAWN, seed + 1))
        )
    policies = [each for each in dict.fromkeys((*found, *uniform)) if each not in seen]
    networks = [policy.shapes(architecture) for policy in policies]
    predicted_ms = [predictor.ms(shapes) for shapes in networks]
    drawn = [each for each in drawn if each not in {*seen, *policies}]
    more = partners(predicted_ms, drawn, lambda each: predictor.ms(each.shapes(architecture)))
    predicted_ms += [predictor.ms(each.shapes(architecture)) for each in more]
    start = time.perf_counter()
    longer = replace(protocol, rounds=protocol.network_rounds)
    session = time_together(network, device, table, policies, longer, more)
    alike = pair_test(predicted_ms, session.rounds_us, seed)
    measured_ms = session.first_ms
    noise_pct = [100 * (again / first - 1) for first, again in zip(measured_ms, session.again_ms, strict=True)]
    summary = table.summary()
    return {
        "n": len(policies),
        "raw": error_figures([predictor.raw_ms(network) for network in networks], measured_ms),
        "as it stands": prediction_figures(predictor, networks, measured_ms),
        "same rounds": prediction_figures(Predictor(session.table), networks, measured_ms),
        "noise": {
            "twice_pct": round(statistics.fmean(map(abs, noise_pct)), 3),
            # Both timings are off: by as much, and in ways of their own.
            "ceiling_pct": round(statistics.fmean(map(abs, noise_pct)) / math.sqrt(2), 3),
            "max_pct": round(max(map(abs, noise_pct)), 3),
        },
        "drift": {
            "median_pct": round(statistics.median(session.drift_pct), 3),
            "least_pct": round(min(session.drift_pct), 3),
            "most_pct": round(max(session.drift_pct), 3),
            "networks": len(session.drift_pct),
        },
        "pairs": {
            "pairs": len(alike.ratios),
            "alike": alike.alike,
            "apart": alike.apart,
            "most_pct": round(alike.most_pct, 3),
            "partners": len(more),
            "ratios": [asdict(ratio) for ratio in alike.ratios],
        },
        "seed": seed,
        "uncut_ms": predictor.measured_ms(uncut),
        "counts": [policy.counts for policy in policies],
        "precisions": [policy.precisions for policy in policies],
        "widths": {
            str(width): policies.index(each) for width, each in zip(WIDTHS, uniform, strict=True) if each in policies
        },
        "measured_ms": measured_ms,
        "again_ms": session.again_ms,
        "measuring_s": round(time.perf_counter() - start, 1),
        "calibration": asdict(predictor.calibration(uncut)),
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


PREDICTIONS = ("as it stands", "same rounds")


def show(name: str, figures: dict) -> None:
    """One network's figures as a table."""
    table, calibration = figures["table"], figures["calibration"]
    noise, drift = figures["noise"], figures["drift"]
    low, high = min(figures["measured_ms"]), max(figures["measured_ms"])
    print(
        f"\n{name}: {figures['n']} networks ({', '.join(figures['widths'])} uniform) of {low:.3f}-{high:.3f} ms, "
        f"uncut {figures['uncut_ms']:.3f} ms"
    )
    print(f"{'':14}{'bias %':>9}{'MAPE %':>9}{'p90 %':>9}{'max %':>9}{'inside 95 %':>13}{'+- %':>7}")
    for kind in ("raw", *PREDICTIONS):
        cells = "".join(f"{figures[kind][f'{column}_pct']:9.2f}" for column in ("bias", "mape", "p90", "max"))
        if figures[kind].get("intervals"):
            inside = f"{figures[kind]['inside']}/{figures[kind]['intervals']}"
            cells += f"{inside:>13}{figures[kind]['half_width_pct']:7.2f}"
        print(f"{kind:14}{cells}")
    as_it_stands = figures["as it stands"]
    for width, i in figures["widths"].items():
        predicted_ms, measured_ms = as_it_stands["predicted_ms"][i], figures["measured_ms"][i]
        print(
            f"uniform {width}: predicted {predicted_ms:.4f} ms, measured {measured_ms:.4f} "
            f"({100 * (predicted_ms / measured_ms - 1):+.2f} %)"
        )
    pairs = figures["pairs"]
    print(
        f"pairs predicted within 1 % of each other: {pairs['alike']} of {pairs['pairs']} measured within 3 % "
        f"(most {pairs['most_pct']:.2f} %; {pairs['apart']} beyond doubt not); "
        f"{pairs['partners']} networks were timed for that"
    )
    print(
        f"noise: the same networks timed twice in the same rounds differ by {noise['twice_pct']:.2f} % (mean), "
        f"{noise['max_pct']:.2f} % (max); a perfect prediction would have a MAPE of {noise['ceiling_pct']:.2f} %"
    )
    print(
        f"drift: the {drift['networks']} calibration networks take {drift['median_pct']:+.2f} % (median; "
        f"{drift['least_pct']:+.2f} to {drift['most_pct']:+.2f}) as against when the table was built"
    )
    print(
        f"calibration: {calibration['scale']:.4f} x + {calibration['offset_ms']:.4f} ms "
        f"+ {calibration['per_unit_ms']:.4f} ms/MB of {calibration['term']} "
        f"from {calibration['networks']} other networks"
    )
    print(
        f"table: {table['layers']} layers, {table['networks']} networks, {table['rows']} rows "
        f"({table['timed_now']} timed now) in {table['build_s']:.0f} s, "
        f"peak resident {table['peak_resident_mb']:.0f} MB; this session {figures['measuring_s']:.0f} s"
    )


def show_coverage(results: Mapping[str, dict]) -> None:
    """Over all networks: how many measurements lie in the 95 % intervals."""
    print()
    for kind in PREDICTIONS:
        inside = sum(figures[kind]["inside"] for figures in results.values())
        intervals = sum(figures[kind]["intervals"] for figures in results.values())
        share = f"{100 * inside / intervals:.1f} %" if intervals else "none"
        print(f"in the 95 % interval, {kind}: {inside} of {intervals} ({share})")


def main() -> None:
    """Read the options and run each network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lut", type=Path, help="folder to keep the tables in, and to continue them from")
    parser.add_argument("--only", choices=list(CASES), help="one of the networks")
    parser.add_argument("--networks", type=int, default=24, help="how many random networks")
    parser.add_argument("--rounds", type=int, help="rounds of the protocol, the host's own unless set")
    parser.add_argument("--seed", type=int, default=777, help="of the random networks")
    parser.add_argument("--mixed", action="store_true", help="with a precision drawn for each layer")
    parser.add_argument("--goal", default="0.5%", help="error of layers that tables are made for")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()

    protocol = replace(HostDevice.protocol, rounds=options.rounds or HostDevice.protocol.rounds)
    names = [name for name in CASES if options.only in (None, name)]
    results: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as fresh:
        for name in names:
            folder = options.lut or Path(fresh)
            # A process for each network, so that neither its memory nor its speed hangs on the one before.
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                job = pool.submit(
                    run, name, folder, options.networks, options.seed, protocol, options.mixed, options.goal
                )
                results[name] = job.result()
    if options.json:
        print(json.dumps(results))
        return
    table = results[names[0]]["table"]
    print(
        f"{table['model']}, {platform.system()} {platform.release()}, Python {platform.python_version()}, "
        f"{datetime.now():%Y-%m-%d %H:%M}"
    )
    print(
        f"{table['runtime']}, {protocol.threads} thread, state {protocol.state}, "
        f"{statistic_text(protocol, protocol.rounds)}, whole networks over {table['network_rounds']}"
    )
    for name, figures in results.items():
        show(name, figures)
    show_coverage(results)


if __name__ == "__main__":
    main()
