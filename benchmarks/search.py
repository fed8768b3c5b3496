"""How long a search takes, and what it finds beside uniform width and random policies of the same predicted latency.

    python -m benchmarks.search [--episodes 100+300] [--lut TABLE] [--quick] [--json]

The aim: at most 0.15 s an episode on the bundled network with 1,000 held-back images on 2 cores, a twentieth of what
AMC's released code takes there. Where the time goes is of policies that were not asked about before; part of them is
given up early, after the first images. Accuracy is that of the reward: cut, refitted, not fine-tuned, on held-back
images; a random baseline has as many policies as the search has episodes. Run nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from amc_latency.lut.prediction.predict import Predictor
from amc_latency.lut.table.table import LatencyTable

from amc_latency.data import load_data
from amc_latency.errors import UserError
from amc_latency.measuring.profiling import Grid
from amc_latency.models.load import BUNDLED, Network, NetworkOptions, load_network
from amc_latency.prune.refit import RankedRefit
from amc_latency.search.agents.ddpg import DDPGAgent, DDPGConfig
from amc_latency.search.costs.clamp import Clamp
from amc_latency.search.costs.costs import LatencyCosts, predicted_costs
from amc_latency.search.episodes.env import ChannelEnv
from amc_latency.search.episodes.loop import run_episodes
from amc_latency.search.judge import evaluator
from amc_latency.search.judge.config import JudgeConfig
from amc_latency.search.judge.evaluator import NetworkEvaluator
from amc_latency.search.judge.forward import CutForward
from amc_latency.search.judge.judge import Judge
from amc_latency.search.judge.record import EpisodeRecord, best_of
from amc_latency.search.records import FEATURES
from amc_latency.search.solvers.baselines import random_policies, uniform_policy
from benchmarks.common import machine, parser_of, versions

MACS_PER_MS = 10e6
AMC_S = 2.9
"""Seconds an episode that AMC's released code takes: refit 2.2 s, 1,000 images 0.6 s (research/amc.md)."""


def make_costs(network: Network, table: Path | None) -> tuple[LatencyCosts, str]:
    """The network's costs from a latency table or, without one, from MACs; and which of the two."""
    architecture, choices = network.graph.architecture, Grid().choices(network)
    if table is not None:
        return predicted_costs(architecture, choices, Predictor(LatencyTable.open(table))), str(table)
    note = f"no --lut: costs are MACs at {MACS_PER_MS / 1e6:.0f} M a pretended ms, not measured"
    return LatencyCosts(architecture, choices, lambda shape: shape.macs / MACS_PER_MS), note


class Stopwatch:
    """Adds up what functions take, one inside another counted in both."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def watch(self, name: str, owner: object, function: str) -> None:
        """Count all calls of `owner.function` from now on under `name`."""
        watched = getattr(owner, function)

        @functools.wraps(watched)
        def timed(*args: object, **kwargs: object) -> object:
            start = time.perf_counter()
            try:
                return watched(*args, **kwargs)
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

        setattr(owner, function, timed)


def watched_parts() -> Stopwatch:
    """A stopwatch on everything that an episode does."""
    watch = Stopwatch()
    watch.watch("evaluator", NetworkEvaluator, "__call__")
    watch.watch("cut", evaluator, "cut")
    watch.watch("refit", RankedRefit, "apply")
    watch.watch("recalibration", CutForward, "calibrate")
    for function in ("begin", "act", "learn"):
        watch.watch("agent", DDPGAgent, function)
    return watch


def parts_ms(seconds: dict[str, float], search_s: float, episodes: int, judged: int) -> dict[str, float]:
    """Milliseconds of each part: the evaluator's a policy judged, the others an episode."""
    inner = {name: seconds[name] for name in ("cut", "refit", "recalibration")}
    rest = search_s - seconds["evaluator"] - seconds["agent"]
    parts = {name: value / judged for name, value in inner.items()}
    parts["scoring"] = (seconds["evaluator"] - sum(inner.values())) / judged
    parts |= {"agent": seconds["agent"] / episodes, "clamp, state and log": rest / episodes}
    return {name: round(1000 * value, 1) for name, value in parts.items()}


def p90(values: list[float]) -> float:
    """The nearest rank."""
    return sorted(values)[-(-9 * len(values) // 10) - 1]


def run(options: argparse.Namespace) -> dict[str, object]:
    """All figures."""
    warmup, learned = map(int, options.episodes.split("+"))
    network = load_network(NetworkOptions(options.model))
    costs, source = make_costs(network, options.lut)
    figures: dict[str, float] = {}
    judge = Judge(network, load_data(), JudgeConfig(options.images, options.calibration, options.recalibration))
    start = time.perf_counter()
    judge.evaluator  # noqa: B018  # made here, that no episode pays for it
    figures["collect_s"] = round(time.perf_counter() - start, 2)
    start = time.perf_counter()
    clamp = Clamp(costs, costs.full_ms / options.speedup)
    figures["clamp_ms"] = round(1000 * (time.perf_counter() - start), 1)

    uniform = uniform_policy(costs, clamp.target_ms)
    config = DDPGConfig(warmup=warmup)

    def search(log: list[EpisodeRecord]) -> tuple[list[EpisodeRecord], float]:
        agent = DDPGAgent(config, len(FEATURES), options.seed)
        start = time.perf_counter()
        records = run_episodes(
            ChannelEnv(clamp, judge), agent, warmup + learned, clamp.target_ms, log, [uniform], show_progress
        )
        return records, time.perf_counter() - start

    def show_progress(record: EpisodeRecord) -> None:
        if sys.stderr.isatty():
            print(f"\repisode {record.episode + 1}, {record.accuracy:.4f} ", end="", file=sys.stderr)

    watch = watched_parts()
    with judge.counting() as asked:
        records, search_s = search([])
    parts = parts_ms(watch.seconds, search_s, len(records), len(asked))
    _, replay_s = search(records)
    # A policy that came before is answered from memory, in no time.
    first = list({record.counts: record for record in reversed(records)}.values())
    seconds = [record.seconds for record in first]
    random_accuracies = [
        judge(counts).accuracy for counts in random_policies(clamp, options.random or len(records), options.seed + 1)
    ]
    best = best_of(records, clamp.target_ms)[0]
    last = [record.accuracy for record in records[-20:]]
    return {
        "machine": machine(),
        "versions": f"{versions('torch')}, {torch.get_num_threads()} threads",
        "costs": source,
        "model": options.model,
        "images": options.images,
        "calibration_images": options.calibration,
        "recalibration_images": options.recalibration,
        "seed": options.seed,
        "original_ms": costs.full_ms,
        "target_ms": clamp.target_ms,
        "fastest_ms": clamp.fastest_ms,
        "episodes": len(records),
        "warmup": warmup,
        "seconds_per_episode": {
            "median": round(statistics.median(seconds), 3),
            "p90": round(p90(seconds), 3),
            "max": round(max(seconds), 3),
            "mean": round(statistics.fmean(seconds), 3),
        },
        "times_amc": round(AMC_S / statistics.fmean(seconds), 1),
        "part_ms": parts,
        "distinct_policies": len(first),
        "given_up": sum(record.images < options.images for record in first),
        "search_s": round(search_s, 1),
        "replay_s": round(replay_s, 1),
        **figures,
        "accuracy": {
            "original": judge(costs.full).accuracy,
            "uniform": judge(uniform).accuracy,
            "random_best": max(random_accuracies),
            "random_mean": round(statistics.fmean(random_accuracies), 4),
            "search_best": best.accuracy,
            "search_last_20_mean": round(statistics.fmean(last), 4),
        },
        "random_policies": len(random_accuracies),
        "best_episode": best.episode,
        "best_source": best.source,
        "best_counts": best.counts,
        "best_ms": best.predicted_ms,
        "uniform_counts": uniform,
        "uniform_ms": costs.ms(uniform),
    }


def show(figures: dict) -> None:
    """The figures as a table."""
    episode, accuracy = figures["seconds_per_episode"], figures["accuracy"]
    print(f"{figures['machine']}, {figures['versions']}")
    print(f"costs: {figures['costs']}")
    print(
        f"{figures['model']}: {figures['original_ms']:.3f} ms, target {figures['target_ms']:.3f} ms "
        f"(fastest reachable {figures['fastest_ms']:.3f} ms)"
    )
    print(
        f"{figures['warmup']} + {figures['episodes'] - figures['warmup']} episodes on {figures['images']} images: "
        f"mean {episode['mean']:.3f} s, median {episode['median']:.3f} s, p90 {episode['p90']:.3f} s, "
        f"max {episode['max']:.3f} s; {figures['times_amc']:.0f} times as many as AMC's released code\n"
        f"{figures['distinct_policies']} distinct policies, {figures['given_up']} given up early; "
        f"total {figures['search_s']:.0f} s"
    )
    print("ms of it: " + ", ".join(f"{name} {ms:.1f}" for name, ms in figures["part_ms"].items()))
    print(
        f"statistics {figures['collect_s']:.1f} s, clamp {figures['clamp_ms']:.0f} ms, "
        f"replaying the whole log {figures['replay_s']:.1f} s"
    )
    print(f"\n{'accuracy before fine-tuning':36}{'%':>8}")
    for name, value in accuracy.items():
        print(f"{name.replace('_', ' '):36}{100 * value:8.2f}")
    print(
        f"best: episode {figures['best_episode']} ({figures['best_source']}), {figures['best_ms']:.3f} ms, "
        f"{','.join(map(str, figures['best_counts']))}"
    )
    print(f"uniform: {figures['uniform_ms']:.3f} ms, {','.join(map(str, figures['uniform_counts']))}")


def main() -> None:
    """Read the options and run."""
    parser = parser_of(__doc__, json=True)
    parser.add_argument("--episodes", default="100+300", help="warm-up + learned")
    parser.add_argument("--images", type=int, default=1000, help="held-back images that are scored")
    parser.add_argument("--calibration", type=int, default=512, help="train images for the refit's statistics")
    parser.add_argument("--recalibration", type=int, default=256, help="those of them that batch norm sees")
    parser.add_argument("--speedup", type=float, default=2.0, help="the target, as a share of the uncut network")
    parser.add_argument("--random", type=int, default=0, help="random policies; as many as episodes unless set")
    parser.add_argument("--model", default=BUNDLED, help="`bundled`, or a checkpoint on Fashion-MNIST")
    parser.add_argument("--lut", type=Path, help="a latency table (.tsv)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="5 + 5 episodes on 200 images, to see that it runs")
    options = parser.parse_args()
    if options.quick:
        options.episodes, options.images, options.calibration = "5+5", 200, 128
    try:
        figures = run(options)
    except UserError as error:
        sys.exit(f"error: {error}")
    print(json.dumps(figures)) if options.json else show(figures)


if __name__ == "__main__":
    main()
