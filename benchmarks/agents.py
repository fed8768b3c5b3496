"""What agents learn: the mean reward of their last episodes and the best, over seeds, beside random policies.

    python -m benchmarks.agents [--agents random,ddpg,ppo] [--speedups 2,4] [--seeds 5] [--episodes 400] [--workers 2]
                                [--reward error] [--whole] [--model bundled --lut TABLE] [--out runs/agents] [--report]

Cold searches on the bundled network under a share of the milliseconds of its shipped table: nothing is fine-tuned,
nothing is timed. The first quarter of the episodes is random (`warmup`), the rest is learned; `random` learns nothing.
A run is an agent, a speed-up and a seed. Each has a file of its own in `--out`, an episode a line; a run that is whole
is not made again, so stop it when you like. `--report` prints the table of what there is and runs nothing.

`iterated`, what a search does by default, is there to compare: its policies are few, so its mean is that of all of
them, and its best counts.
"""

from __future__ import annotations

import csv
import multiprocessing
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.common import BUNDLED_TABLE, machine, parser_of, read_rows, versions

FIELDS = ("episode", "source", "reward", "accuracy", "loss", "images", "predicted_ms", "counts", "seconds")
LAST = 50
"""Episodes at the end whose mean says what an agent has learned."""


@dataclass(frozen=True)
class Job:
    """One run; a `speedup` of 0 is no budget at all."""

    agent: str
    speedup: float
    seed: int


@dataclass(frozen=True)
class Options:
    """What all runs share."""

    out: Path
    model: str
    lut: Path
    episodes: int
    images: int
    reward: str
    whole: bool

    def path(self, job: Job) -> Path:
        """The file of a run's episodes."""
        reward = f"{self.reward}-whole" if self.whole else self.reward
        return self.out / f"{job.agent}-{reward}-{job.speedup:g}x-{self.episodes}-seed{job.seed}.csv"


def run(options: Options, job: Job) -> float:
    """Make one run; return its seconds. Its file is there when it is whole, and not before."""
    import torch
    from amc_latency.lut.prediction.predict import Predictor
    from amc_latency.lut.table.table import LatencyTable

    from amc_latency.data import load_data
    from amc_latency.measuring.profiling import Grid
    from amc_latency.models.load import NetworkOptions, load_network
    from amc_latency.search.costs.clamp import Clamp
    from amc_latency.search.costs.costs import predicted_costs
    from amc_latency.search.episodes.problem import AgentOptions, Problem
    from amc_latency.search.judge.config import JudgeConfig
    from amc_latency.search.judge.judge import Judge
    from amc_latency.search.judge.rewards import make_reward
    from amc_latency.search.steps.methods import search_episodes

    torch.set_num_threads(1)
    began = time.monotonic()
    network = load_network(NetworkOptions(options.model))
    predictor = Predictor(LatencyTable.open(options.lut))
    costs = predicted_costs(network.graph.architecture, Grid().choices(network), predictor)
    target_ms = costs.full_ms / job.speedup if job.speedup else float("inf")
    judge = Judge(network, load_data("bundled"), JudgeConfig(options.images))
    reward = make_reward(options.reward, costs)
    if options.whole:
        # Only `negative_error` itself may be given a score by the first images.
        reward = partial(reward)
    problem = Problem(Clamp(costs, target_ms), judge, reward, job.seed, 0.2)
    if job.agent == "iterated":
        agent = AgentOptions("dp", True, 0, 100)
    else:
        agent = AgentOptions(job.agent, False, options.episodes // 4, options.episodes)
    records = search_episodes(problem, agent)
    path = options.path(job)
    unfinished = path.with_suffix(".partial")
    with unfinished.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(FIELDS)
        for record in records:
            row = [getattr(record, name) for name in FIELDS]
            row[FIELDS.index("counts")] = " ".join(map(str, record.counts))
            writer.writerow(row)
    unfinished.rename(path)
    return time.monotonic() - began


def report(options: Options, jobs: list[Job]) -> None:
    """A line an agent and speed-up: the mean over seeds, and the spread, of each seed's last episodes and best."""
    print(f"{machine()}; {versions('torch')}; reward {options.reward}")
    print(f"{'':20}{f'mean of the last {LAST}':>20}{'best':>18}{'seeds':>7}{'policies':>10}{'s a run':>9}")
    for agent, speedup in dict.fromkeys((job.agent, job.speedup) for job in jobs):
        paths = [options.path(job) for job in jobs if (job.agent, job.speedup) == (agent, speedup)]
        runs = [read_rows(path) for path in paths if path.exists()]
        if not runs:
            continue
        rewards = [[float(row["reward"]) for row in rows] for rows in runs]
        last, best = [statistics.fmean(each[-LAST:]) for each in rewards], [max(each) for each in rewards]
        policies = statistics.fmean(len({row["counts"] for row in rows}) for rows in runs)
        seconds = statistics.fmean(sum(float(row["seconds"]) for row in rows) for rows in runs)
        name = f"{agent} {speedup:g}x" if speedup else f"{agent}, no budget"
        print(f"{name:20}{spread(last):>20}{spread(best):>18}{len(runs):7}{policies:10.0f}{seconds:9.0f}")
        print(f"{'':20}by seed: {', '.join(f'{value:.3f}' for value in last)}")


def spread(numbers: list[float]) -> str:
    """Mean and standard deviation."""
    deviation = f" ({statistics.stdev(numbers):.4f})" if len(numbers) > 1 else ""
    return f"{statistics.fmean(numbers):.4f}{deviation}"


def main() -> None:
    """Read the options, run what is left, print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--agents", default="random,ddpg,ppo,iterated")
    parser.add_argument("--speedups", default="2,4", help="0: no budget")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=400, help="a quarter of them random")
    parser.add_argument("--images", type=int, default=1000, help="held-back images that judge an episode")
    parser.add_argument("--reward", default="error")
    parser.add_argument("--whole", action="store_true", help="judge hopeless policies by all images too")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--lut", type=Path, default=BUNDLED_TABLE)
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread")
    parser.add_argument("--out", type=Path, default=Path("runs/agents"))
    parser.add_argument("--report", action="store_true", help="the table of what there is")
    given = parser.parse_args()
    options = Options(given.out, given.model, given.lut, given.episodes, given.images, given.reward, given.whole)
    seeds, speedups = range(given.seeds), [float(text) for text in given.speedups.split(",")]
    jobs = [Job(agent, speedup, seed) for seed in seeds for speedup in speedups for agent in given.agents.split(",")]
    left = [] if given.report else [job for job in jobs if not options.path(job).exists()]
    if left:
        given.out.mkdir(parents=True, exist_ok=True)
        os.environ["OMP_NUM_THREADS"] = "1"
        with ProcessPoolExecutor(given.workers, multiprocessing.get_context("spawn")) as pool:
            running = {pool.submit(run, options, job): job for job in left}
            for count, future in enumerate(as_completed(running), start=1):
                print(f"{count}/{len(left)} {running[future]}: {future.result():.0f} s", flush=True)
    report(options, jobs)


if __name__ == "__main__":
    main()
