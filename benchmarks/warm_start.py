"""How many episodes a warm-started agent needs for what a cold one reaches in 400.

    python -m benchmarks.warm_start [--networks bundled,resnet20] [--share 0.35] [--seeds 5] [--agent ddpg]
                                    [--cold 400] [--warm 40] [--out runs/compare] [--quick]

Cold is AMC's protocol: a quarter of the episodes random, then the agent. The final reward is the best that an episode
got, and beside it the mean of the last 20 episodes, what the agent itself has learnt to do. Networks are those of
`compare.py`, made in its folder if they aren't there. A seed of a network is a line, printed when it is done.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks import compare
from benchmarks.common import csv_of, parser_of

LAST = 20


@dataclass(frozen=True)
class Run:
    """One network and seed, cold and warm; rewards are accuracies less 1."""

    network: str
    seed: int
    cold_best: float
    cold_last: float
    warm_best: float
    warm_last: float
    reached: int | None
    """warm episodes until the cold one's best was reached; None if they were too few"""
    cold_s: float
    warm_s: float


def run(task: tuple[argparse.Namespace, str, tuple[str, str], int]) -> Run:
    """In a process of one thread."""
    from amc_latency.search.costs.clamp import Clamp
    from amc_latency.search.episodes.problem import AgentOptions, Problem
    from amc_latency.search.judge.rewards import make_reward
    from amc_latency.search.steps.methods import search_episodes

    options, name, files, seed = task
    worker = compare.Worker(compare.Options(str(options.out), 0, 0, options.images, {name: files}))
    judge, costs = worker.network(name)
    problem = Problem(Clamp(costs, options.share * costs.full_ms), judge, make_reward("error", costs), seed, 0.2)
    rewards, seconds = {}, {}
    for warm, episodes in ((False, options.cold), (True, options.warm)):
        began = time.monotonic()
        agent = AgentOptions(options.agent, warm, 0 if warm else episodes // 4, episodes)
        rewards[warm] = [record.reward for record in search_episodes(problem, agent)]
        seconds[warm] = time.monotonic() - began
    cold, warm_ones = rewards[False], rewards[True]
    return Run(
        name,
        seed,
        max(cold),
        statistics.fmean(cold[-LAST:]),
        max(warm_ones),
        statistics.fmean(warm_ones[-LAST:]),
        next((i + 1 for i, reward in enumerate(warm_ones) if reward >= max(cold)), None),
        seconds[False],
        seconds[True],
    )


def main() -> None:
    """Read the options and run."""
    parser = parser_of(__doc__)
    parser.add_argument("--networks", type=csv_of(str), default=["bundled", "resnet20"])
    parser.add_argument("--share", type=float, default=0.35, help="the target, of the uncut network's ms")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--agent", default="ddpg", choices=["ddpg", "ppo"])
    parser.add_argument("--cold", type=int, default=400)
    parser.add_argument("--warm", type=int, default=40)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/compare"))
    parser.add_argument(
        "--quick", action="store_true", help="the bundled network, one seed, 20 cold and 8 warm episodes"
    )
    options = parser.parse_args()
    if options.quick:
        options.networks, options.seeds, options.cold, options.warm, options.images = ["bundled"], 1, 20, 8, 200
    tasks = [
        (options, name, compare.prepare(name, options.out), seed)
        for name in options.networks
        for seed in range(options.seeds)
    ]
    print(f"{options.agent}, {options.cold} cold episodes and {options.warm} warm ones at {options.share:g} of the ms")
    print(
        f"{'':12}{'seed':>5}{'cold best':>11}{'last 20':>9}{'warm best':>11}{'last 20':>9}{'reached at':>12}{'s':>12}"
    )
    runs: list[Run] = []
    with ProcessPoolExecutor(options.workers, multiprocessing.get_context("spawn")) as pool:
        for done in pool.map(run, tasks):
            runs.append(done)
            print(
                f"{done.network:12}{done.seed:5}{done.cold_best:11.4f}{done.cold_last:9.4f}{done.warm_best:11.4f}"
                f"{done.warm_last:9.4f}{done.reached or 'not':>12}{done.cold_s:7.0f}+{done.warm_s:.0f}",
                flush=True,
            )
    for name in options.networks:
        own = [each for each in runs if each.network == name]
        cold, warm = (
            statistics.median(values) for values in zip(*((r.cold_best, r.warm_best) for r in own), strict=True)
        )
        reached = sum(each.reached is not None for each in own)
        print(f"{name}: median of the best {cold:.4f} cold, {warm:.4f} warm; {reached} of {len(own)} seeds reached it")


if __name__ == "__main__":
    main()
