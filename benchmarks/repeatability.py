"""What a latency should be: candidates compared by how well they repeat, add up and rank, on this computer's CPU.

    python -m benchmarks.repeatability [--repeats 10] [--minutes 60] [--out runs/repeatability] [--all]

Every candidate is a cache state, a statistic of a process's runs and one of the processes, a clock, a speed (as the
clock showed it, or at the sentinel's reference) and a number of processes. All are counted from the same raw rounds:
the bundled network, its uniform widths .5 and .35, and random pruned ones, each in 27 fresh processes, and all their
distinct layers in three, every one in both states. That is repeated over an hour; each timing is stored at once, and
a second call goes on. A restless timing is not made again here, as `HostDevice` would.

    sd %     standard deviation of a network's latency over repeats: mean over networks, and the worst network
    range %  largest difference between two repeats of one network
    MAPE %   of summed layers less the no-op, after the best scale of the other networks; and the largest error
    rank     Spearman's between one repeat's networks and the mean of the other repeats; `sums`: between summed layers
             and networks; the least of all repeats
    close    pairs 1 to 3 % apart by the other repeats that a repeat orders rightly

Then one network's latencies in fresh processes beside those after reloading it in one that stays. Run nothing else.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from amc_latency.device.base import DeviceError, Protocol, shuffled
from amc_latency.device.host import host
from amc_latency.device.host.host import HostDevice
from amc_latency.device.host.host_speed import Speed, at_reference, summary_of
from amc_latency.device.workers.process import WorkerDied, WorkerProcess
from amc_latency.lut.building.layer_model import layer_model
from amc_latency.lut.building.plan import uniform_counts
from amc_latency.lut.shapes.shape import NOOP as NOOP_SHAPE
from amc_latency.lut.shapes.shape import LayerShape

from amc_latency.errors import UserError
from amc_latency.export.export import to_tflite
from amc_latency.jsonl import append_line, drop_torn_line, read_lines
from amc_latency.measuring.profiling import Grid
from amc_latency.models.load import NetworkOptions, cut_to, load_network
from benchmarks.common import machine, parser_of, versions
from benchmarks.policies import random_networks
from benchmarks.repeatability_figures import (
    CLOCKS,
    NOOP,
    SPEEDS,
    STATES,
    STATISTICS,
    Reloading,
    Rounds,
    Row,
    complete,
    default_candidate,
    figures_of,
    reloading,
    reloading_lines,
    shown_candidates,
    table_lines,
)

PROTOCOLS = {
    "hot": replace(HostDevice.protocol, state="hot", min_time_ms=5.0),
    "frame": replace(HostDevice.protocol, state="frame"),
}
WIDTHS = {"uniform .5": 0.5, "uniform .35": 0.35}
RELOADED = ("original", "uniform .5", "random 0")


def answer_of(worker: WorkerProcess, protocol: Protocol, name: str, model: bytes) -> dict[str, Any]:
    """A worker's raw samples of one model. Raises `DeviceError`."""
    worker.send(host._job(protocol), model, protocol.timeout_s)
    try:
        answer = worker.answer()
    except WorkerDied as error:
        raise DeviceError(f"{name} was not timed: {error}") from error
    if "error" in answer:
        raise DeviceError(f"{name} was not timed: {answer['error']}")
    return answer


def figures_us(
    answer: dict[str, Any], reference_us: Mapping[str, Sequence[float]]
) -> dict[str, dict[str, dict[str, float]]]:
    """All statistics of an answer by clock and speed; `reference_us` is the sentinel's by clock."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for clock in CLOCKS:
        samples = {
            "shown": answer[f"{clock}_ns"],
            "reference": at_reference(answer, clock, clock, Speed(*reference_us[clock])),
        }
        summaries = {speed: summary_of(samples[speed]) for speed in SPEEDS}
        found[clock] = {
            speed: {statistic: round(getattr(summary, f"{statistic}_us"), 4) for statistic in STATISTICS}
            for speed, summary in summaries.items()
        }
    return found


def timed_repeat(
    device: HostDevice,
    repeat: int,
    networks: Mapping[str, bytes],
    layers: Mapping[str, bytes],
    rounds: Sequence[int],
    reference_us: Mapping[str, Mapping[str, Sequence[float]]],
) -> Iterator[Row]:
    """One repeat: `rounds` are how many each network and each layer get. Each workload in both states, one by one."""
    for round_index in range(max(rounds)):
        models = {
            name: model
            for some, n in zip((networks, layers), rounds, strict=True)
            if round_index < n
            for name, model in some.items()
        }
        worker = device._start_worker(1)
        try:
            for name in shuffled(models, repeat, round_index):
                for state in STATES:
                    answer = answer_of(worker, PROTOCOLS[state], name, models[name])
                    sentinel_us = summary_of(answer["sentinel_cpu_ns"]).median_us
                    found = figures_us(answer, reference_us[state])
                    yield Row(repeat, round_index, name, state, round(time.time(), 1), round(sentinel_us, 2), found)
        finally:
            worker.stop()


def compare_reloading(device: HostDevice, models: Mapping[str, bytes], processes: int, reloads: int) -> list[Reloading]:
    """Latencies under the default protocol in fresh processes, in turn with those in one that stays for `reloads`."""
    protocol = HostDevice.protocol
    reference = device.speed(protocol)

    def latency_us(worker: WorkerProcess, name: str) -> float:
        answer = answer_of(worker, protocol, name, models[name])
        summary = summary_of(at_reference(answer, protocol.clock, protocol.clock, reference))
        return getattr(summary, f"{protocol.statistic}_us")

    kinds = ("fresh", "stays")
    found = {kind: {name: [[] for _ in range(processes)] for name in models} for kind in kinds}  # type: ignore[var-annotated]
    for process in range(processes):
        stays = device._start_worker(1)
        try:
            for reload in range(reloads):
                fresh = device._start_worker(1)
                try:
                    for kind in shuffled(kinds, process, reload):
                        for name in shuffled(models, process, reload):
                            us = latency_us(fresh if kind == "fresh" else stays, name)
                            found[kind][name][process].append(us)
                finally:
                    fresh.stop()
        finally:
            stays.stop()
    return [reloading(name, found["fresh"][name], found["stays"][name]) for name in models]


def same_settings(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings are stored once; raises `UserError` where those in the folder are others. Returns the stored ones."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings, indent=1) + "\n")
        return settings
    stored = json.loads(path.read_text())
    for name in settings:
        if name != "reference_us" and stored.get(name) != settings[name]:
            raise UserError(f"{path.parent} was begun with other {name.replace('_', ' ')}: name another --out")
    return stored


def main() -> None:
    """Time the repeats that are missing, then print."""
    parser = parser_of(__doc__)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=60, help="from the first repeat's begin to the last one's")
    parser.add_argument("--networks", type=int, default=8, help="random ones, beside the original and two uniform ones")
    parser.add_argument("--rounds", default="3,9,27", help="numbers of processes that are compared")
    parser.add_argument("--layer-rounds", type=int, default=3, help="processes that layers are timed in, at most")
    parser.add_argument("--reloads", type=int, default=5, help="of each process that stays; 0 leaves that out")
    parser.add_argument("--processes", type=int, default=6, help="that stay")
    parser.add_argument("--out", type=Path, default=Path("runs/repeatability"))
    parser.add_argument("--all", action="store_true", help="every candidate, not those one choice from the default")
    options = parser.parse_args()
    try:
        run(options)
    except (UserError, DeviceError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped: what was timed is kept, run again to go on")


def run(options: argparse.Namespace) -> None:
    """As the options say."""
    numbers = sorted(int(number) for number in options.rounds.split(","))
    rounds = (numbers[-1], min(options.layer_rounds, numbers[-1]))
    network = load_network(NetworkOptions())
    architecture, choices = network.graph.architecture, Grid().choices(network)
    counts = {"original": architecture.group_channels}
    counts |= {name: uniform_counts(architecture, choices, width) for name, width in WIDTHS.items()}
    drawn = random_networks(architecture, choices, options.networks, seed=14)
    counts |= {f"random {i}": each for i, each in enumerate(drawn)}
    shapes = {name: architecture.shapes(each) for name, each in counts.items()}
    distinct: dict[str, LayerShape] = {shape.text: shape for some in shapes.values() for shape in some}
    distinct[NOOP] = NOOP_SHAPE

    device = HostDevice()
    device.say = lambda text: print(text, file=sys.stderr)
    settings = same_settings(
        options.out / "settings.json",
        {
            "cpu": device.identity.model,
            "runtime": device.identity.runtime,
            "system": f"{machine()}; {versions()}",
            "amc_latency": importlib.metadata.version("amc-latency"),
            "network_rounds": rounds[0],
            "layer_rounds": rounds[1],
            "runs": HostDevice.protocol.runs,
            "frame_mb": HostDevice.protocol.frame_mb,
            "layers": {name: [shape.text for shape in some] for name, some in shapes.items()},
            "reference_us": {
                state: {clock: list(device.speed(replace(protocol, clock=clock))) for clock in CLOCKS}  # type: ignore[arg-type]
                for state, protocol in PROTOCOLS.items()
            },
        },
    )
    networks = {name: to_tflite(cut_to(network, each).model, network.spec.input) for name, each in counts.items()}
    layers = {text: layer_model(shape) for text, shape in distinct.items()}
    expected = len(STATES) * (rounds[0] * len(networks) + rounds[1] * len(layers))
    store = options.out / "rounds.jsonl"
    drop_torn_line(store)
    done = complete(read_lines(store, Row), expected)
    gap_s = 60 * options.minutes / max(1, options.repeats - 1)
    for repeat in range(options.repeats):
        if repeat in done:
            continue
        if repeat - 1 in done:
            time.sleep(max(0.0, min(row.at for row in done[repeat - 1]) + gap_s - time.time()))
        began = time.perf_counter()
        done[repeat] = []
        for row in timed_repeat(device, repeat, networks, layers, rounds, settings["reference_us"]):
            append_line(store, row)
            done[repeat].append(row)
        print(f"repeat {repeat + 1} of {options.repeats}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    kept = [row for repeat in range(options.repeats) for row in done[repeat]]
    first, last = (datetime.fromtimestamp(which(row.at for row in kept)) for which in (min, max))
    print(f"{settings['cpu']}, {settings['system']}\n{settings['runtime']}, amc-latency {settings['amc_latency']}")
    print(
        f"{options.repeats} repeats, {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M}; {len(networks)} networks, "
        f"{len(layers)} layers in up to {rounds[1]} processes each"
    )
    default = default_candidate(HostDevice.protocol)
    arrays = Rounds(kept, options.repeats, rounds[0])
    found = [figures_of(arrays, settings["layers"], each) for each in shown_candidates(numbers, default, options.all)]
    print("\n".join(table_lines(found, default)))
    if options.reloads > 1:
        several = {name: networks[name] for name in RELOADED if name in networks}
        print(f"\nfresh processes, and {options.processes} that reload each model {options.reloads} times:")
        print("\n".join(reloading_lines(compare_reloading(device, several, options.processes, options.reloads))))


if __name__ == "__main__":
    main()
