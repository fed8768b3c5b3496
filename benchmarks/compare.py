"""Every way to choose a policy beside every other, at equal predicted milliseconds, over seeds.

    python -m benchmarks.compare [--networks bundled,resnet20] [--shares 0.5,0.35,0.25] [--methods ...] [--seeds 5]
                                 [--evaluations 200] [--epochs 3] [--workers 2] [--out runs/compare] [--quick]
    python -m benchmarks.compare --measure      times the exported networks on this computer: run nothing else meanwhile
    python -m benchmarks.compare --report       tables and a plot of what there is

A run is a network, a share of its milliseconds, a method and a seed: choose a policy, cut, refit, fine-tune (the same
for all), judge by the 10,000 test images, export. It adds a row to `compare.csv`; a run that is there is not done
again, so stop it when you like. `--quick` takes minutes. `iterated` is dynamic programming around its own result,
`-warm` starts from it, `-loss` has the cross entropy as its reward, `macs` is ddpg-warm under that share of MACs.

A network that is not bundled is trained first (`amc-latency train`), and its table built (`amc-latency profile`), in
the `--out` folder. The seed is that of the agent and of fine-tuning; images and the trained network are the same.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks import compare_report
from benchmarks.common import BUNDLED_TABLE, ROOT, append_row, csv_of, parser_of, read_rows

TRAINED = {
    "resnet20": ["--model", "resnet20", "--image-size", "32", "--width", "1.0", "--epochs", "12"],
    "plain20": ["--model", "plain20", "--image-size", "32", "--width", "1.0", "--epochs", "12"],
    "mobilenet_v2": ["--model", "mobilenet_v2", "--image-size", "64", "--width", "0.5", "--epochs", "12"],
}
METHODS = (
    "uniform", "shallow", "deep", "random", "hill", "netadapt", "dp",
    "iterated", "ddpg", "ddpg-warm", "ddpg-warm-loss", "ppo-warm", "hill-warm", "hill-warm-loss", "macs",
)  # fmt: skip
FINETUNE_IMAGES = 8000
NETADAPT_STEPS = 10


@dataclass(frozen=True)
class Options:
    """What all runs share."""

    out: str
    evaluations: int
    epochs: int
    images: int
    networks: dict[str, tuple[str, str]]
    """checkpoint and table, by name"""
    shares: tuple[float, ...] = ()
    """all of them: NetAdapt goes through them in one run"""


@dataclass(frozen=True)
class Job:
    """Runs of one method and seed: NetAdapt goes through all shares in one go, others have a share each."""

    network: str
    method: str
    seed: int
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Result:
    """A row of the CSV."""

    network: str
    share: float
    method: str
    seed: int
    evaluations: int
    predicted_ms: float
    reward: float
    """accuracy on the episodes' images, what the search saw"""
    loss: float
    """cross entropy on the same images"""
    held_back: float
    """percent of all held-back images, before fine-tuning"""
    before: float
    """percent of the test images, before fine-tuning"""
    after: float
    """percent of the test images, after it"""
    search_minutes: float
    minutes: float
    macs: int
    counts: str
    file: str


def key(row: dict[str, str] | Result) -> tuple[str, float, str, int]:
    """What tells runs apart."""
    values = row if isinstance(row, dict) else asdict(row)
    return values["network"], float(values["share"]), values["method"], int(values["seed"])


class Worker:
    """One process: networks, tables and judges are made once."""

    def __init__(self, options: Options) -> None:
        import torch

        torch.set_num_threads(1)
        self.options = options
        self._made: dict[str, tuple] = {}

    def run(self, job: Job) -> Iterator[Result]:
        """The rows of a job."""
        from amc_latency.errors import UserError
        from amc_latency.search.costs.clamp import Clamp
        from amc_latency.search.episodes.problem import Problem
        from amc_latency.search.judge.rewards import make_reward

        judge, costs = self.network(job.network)
        for share in job.shares:
            began = time.monotonic()
            clamp = Clamp(costs, share * costs.full_ms)
            problem = Problem(clamp, judge, make_reward("error", costs), job.seed, 0.2)
            try:
                if job.method == "netadapt":
                    counts, evaluations, model = self._netadapt(job, problem)
                else:
                    counts, evaluations = self._choose(job.method, share, problem)
                    model = judge.network(counts)
            except UserError as error:
                print(f"{job.network} {share:g} {job.method} seed {job.seed}: {error}", flush=True)
                continue
            search_minutes = (time.monotonic() - began) / 60
            yield self._finished(job, share, costs, judge, counts, evaluations, model, search_minutes, began)

    def network(self, name: str):
        """Judge and costs of a network."""
        from amc_latency.lut.prediction.predict import Predictor
        from amc_latency.lut.table.table import LatencyTable

        from amc_latency.data import load_data
        from amc_latency.measuring.profiling import Grid
        from amc_latency.models.load import NetworkOptions, load_network
        from amc_latency.search.costs.costs import predicted_costs
        from amc_latency.search.judge.config import JudgeConfig
        from amc_latency.search.judge.judge import Judge

        if name not in self._made:
            checkpoint, table = self.options.networks[name]
            network = load_network(NetworkOptions(checkpoint))
            choices = Grid().choices(network)
            costs = predicted_costs(network.graph.architecture, choices, Predictor(LatencyTable.open(Path(table))))
            self._made[name] = (Judge(network, load_data(), JudgeConfig(self.options.images)), costs)
        return self._made[name]

    def _choose(self, method: str, share: float, problem):
        from amc_latency.search.costs.clamp import Budget, Clamp
        from amc_latency.search.costs.sizes import macs_costs
        from amc_latency.search.episodes.problem import AgentOptions
        from amc_latency.search.judge.rewards import make_reward
        from amc_latency.search.records import BASELINES
        from amc_latency.search.steps.methods import choose, search_episodes

        if method in BASELINES:
            choice = choose(problem, method, self.options.evaluations)
            return choice.counts, choice.evaluations
        costs = problem.clamp.costs
        if method.endswith("-loss"):
            problem = replace(problem, reward=make_reward("loss", costs))
        name = {"macs": "ddpg", "iterated": "dp"}.get(method, method.split("-")[0])
        warm = "-warm" in method or method in ("macs", "iterated")
        if method == "macs":
            macs = macs_costs(costs.architecture, costs.choices)
            budget = Budget("MACs", macs, int(share * macs.of(costs.full)))
            problem = replace(problem, clamp=Clamp(costs, float("inf"), [budget]))
        warmup = 0 if warm else self.options.evaluations // 4
        options = AgentOptions(name, warm, warmup, self.options.evaluations)
        with problem.judge.counting() as asked:
            records = search_episodes(problem, options)
        best = problem.judge.choose(records, problem.clamp.target_ms, problem.reward)
        return best.counts, len(asked)

    def _netadapt(self, job: Job, problem):
        from amc_latency.models.files.checkpoint import load_checkpoint
        from amc_latency.search.solvers.netadapt import NetAdaptConfig, briefly_trained, netadapt, reached, winner_path

        judge, costs = problem.judge, problem.clamp.costs
        config = NetAdaptConfig(steps=NETADAPT_STEPS, seed=job.seed)
        folder = Path(self.options.out) / "netadapt" / f"{job.network}-seed{job.seed}"
        folder.mkdir(parents=True, exist_ok=True)
        propose = briefly_trained(judge.data.train, judge.data.held_back.take(self.options.images), config)
        targets = [share * costs.full_ms for share in self.options.shares]
        iterations = netadapt(judge.base, costs, targets, propose, config, folder)
        winner = reached(iterations, problem.clamp.target_ms)
        model, _, _ = load_checkpoint(winner_path(folder, winner.iteration))
        return winner.counts, winner.evaluations, model

    def _finished(self, job, share, costs, judge, counts, evaluations, model, search_minutes, began) -> Result:
        from amc_latency.export.export import export
        from amc_latency.training.finetune import finetune_config
        from amc_latency.training.loop import fit

        size, data = judge.image_size, judge.data
        seen, final = judge(counts), judge.final(counts)
        before = judge.test_pct(model)
        if self.options.epochs:
            fit(model, data.train.take(FINETUNE_IMAGES), finetune_config(self.options.epochs, size, job.seed))
        file = f"files/{job.network}-{'-'.join(map(str, counts))}.tflite"
        path = Path(self.options.out) / file
        path.parent.mkdir(parents=True, exist_ok=True)
        report = export(model, judge.base.spec.input, path)
        return Result(
            network=job.network,
            share=share,
            method=job.method,
            seed=job.seed,
            evaluations=evaluations,
            predicted_ms=costs.ms(counts),
            reward=seen.accuracy,
            loss=seen.loss,
            held_back=100 * final.accuracy,
            before=before,
            after=judge.test_pct(model),
            search_minutes=search_minutes,
            minutes=(time.monotonic() - began) / 60,
            macs=report.macs,
            counts=",".join(map(str, counts)),
            file=file,
        )


_worker: list[Worker] = []


def start_worker(options: Options) -> None:
    """In each process, once."""
    _worker[:] = [Worker(options)]


def run_job(job: Job) -> list[Result]:
    """In a process."""
    return list(_worker[0].run(job))


def jobs_left(options: argparse.Namespace, done: set[tuple[str, float, str, int]]) -> list[Job]:
    """What is still to be run: seed by seed, so that whatever is there at any time covers all methods."""
    jobs = []
    for seed in range(options.seeds):
        for network in options.networks:
            for method in options.methods:
                left = [share for share in options.shares if (network, share, method, seed) not in done]
                groups = [tuple(left)] if method == "netadapt" and left else [(share,) for share in left]
                jobs += [Job(network, method, seed, shares) for shares in groups]
    return jobs


def prepare(name: str, out: Path) -> tuple[str, str]:
    """The network's checkpoint and table; what isn't there is made, which may take half an hour."""
    if name == "bundled":
        return "bundled", str(BUNDLED_TABLE)
    if name not in TRAINED:
        sys.exit(f"error: there is no network '{name}'; there are bundled, {', '.join(TRAINED)}")
    checkpoint, table = out / f"{name}.safetensors", out / f"{name}.tsv"
    command = [sys.executable, "-c", "from amc_latency.cli.main import main; main()"]
    if not checkpoint.exists():
        subprocess.run([*command, "train", *TRAINED[name], "--out", str(checkpoint)], check=True, cwd=ROOT)
    if not table.exists():
        subprocess.run([*command, "profile", "--model", str(checkpoint), "--lut", str(table)], check=True, cwd=ROOT)
    return str(checkpoint), str(table)


def compare(options: argparse.Namespace) -> None:
    """Run what is left, a row each."""
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    path = out / "compare.csv"
    check_settings(out / "settings.json", options)
    networks = {name: prepare(name, out) for name in options.networks}
    shared = Options(str(out), options.evaluations, options.epochs, options.images, networks, tuple(options.shares))
    done = {key(row) for row in read_rows(path)}
    jobs = jobs_left(options, done)
    print(f"{len(done)} runs are there; {len(jobs)} jobs are left", flush=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    began = time.monotonic()
    with ProcessPoolExecutor(options.workers, context, start_worker, (shared,)) as pool:
        running = [pool.submit(run_job, job) for job in jobs]
        for count, future in enumerate(as_completed(running), start=1):
            for result in future.result():
                append_row(path, asdict(result))
                left_s = (time.monotonic() - began) / count * (len(jobs) - count)
                print(
                    f"{result.network} {result.share:g} {result.method} seed {result.seed}: "
                    f"{result.predicted_ms:.4f} ms, {result.before:.2f} -> {result.after:.2f} %, "
                    f"{result.evaluations} evaluations, "
                    f"{result.minutes:.1f} min; about {left_s / 60:.0f} min left",
                    flush=True,
                )


def check_settings(path: Path, options: argparse.Namespace) -> None:
    """Rows of other settings don't belong in one table."""
    settings = {name: getattr(options, name) for name in ("evaluations", "epochs", "images")}
    if path.exists() and json.loads(path.read_text()) != settings:
        sys.exit(f"error: {path.parent} holds runs with {path.read_text()}: the same settings, or another --out")
    path.write_text(json.dumps(settings))


def measure(out: Path, rounds: int) -> None:
    """Time every exported network on this computer, in the same rounds, into `measured.csv`."""
    from amc_latency.device.kinds import PhoneOptions
    from amc_latency.device.rounds.measure import measure_many

    from amc_latency.console import Console
    from amc_latency.measuring.opening import open_device

    files = sorted({row["file"] for row in read_rows(out / "compare.csv")})
    with open_device("host", None, PhoneOptions(), Console()) as device:
        protocol = replace(device.protocol, rounds=rounds)
        measured = measure_many(device, {file: out / file for file in files}, protocol)
    with (out / "measured.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "measured_ms"])
        writer.writerows([name, measured[name].latency_ms] for name in files)


def main() -> None:
    """Read the options and run."""
    parser = parser_of(__doc__)
    parser.add_argument("--networks", type=csv_of(str), default=["bundled", "resnet20"])
    parser.add_argument("--shares", type=csv_of(float), default=[0.5, 0.35, 0.25], help="of the uncut network's ms")
    parser.add_argument("--methods", type=csv_of(str), default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--evaluations", type=int, default=200, help="of every method that searches")
    parser.add_argument("--epochs", type=int, default=3, help=f"of fine-tuning, on {FINETUNE_IMAGES:,} images")
    parser.add_argument("--images", type=int, default=1000, help="held-back images that judge an episode")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread")
    parser.add_argument("--out", type=Path, default=Path("runs/compare"))
    parser.add_argument("--quick", action="store_true", help="the bundled network, one share, two seeds, few of all")
    parser.add_argument("--measure", action="store_true", help="time what was exported")
    parser.add_argument("--rounds", type=int, default=9, help="of timing")
    parser.add_argument("--ours", default="iterated", help="the method that others are compared with")
    parser.add_argument("--report", action="store_true", help="tables and a plot of what there is")
    options = parser.parse_args()
    if options.quick:
        options.networks, options.shares, options.seeds = ["bundled"], [0.35], 2
        options.evaluations, options.epochs, options.images = 20, 1, 500
        options.methods = ["uniform", "random", "hill", "dp", "iterated", "ddpg", "ddpg-warm"]
        options.out = options.out.with_name(options.out.name + "-quick")
    if unknown := set(options.methods) - set(METHODS):
        sys.exit(f"error: there is no method {', '.join(sorted(unknown))}; there are {', '.join(METHODS)}")
    if options.measure:
        measure(options.out, options.rounds)
    elif not options.report:
        compare(options)
    compare_report.report(options.out, options.ours)


if __name__ == "__main__":
    main()
