"""What fine-tuning does to cut networks: recipes beside each other, over policies, speedups and seeds.

    python -m benchmarks.finetune [--speedups 2,4] [--policies uniform,dp,iterated] [--recipes ...] [--seeds 5]
                                  [--epochs 6] [--table lut/tables/host-epyc-zen4.tsv] [--out runs/finetune]
    python -m benchmarks.finetune --report      the tables of what there is

A run is a cut network, a recipe and a seed: fine-tune to the last epoch, judge by the held-back images and by the test
images. It adds a row to `finetune.csv`; a run that is there is not done again, so stop it when you like. Cut networks
are made once, by the latency table named; nothing is timed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.common import BUNDLED_TABLE, append_row, csv_of, parser_of, read_rows

POLICIES = ("uniform", "dp", "iterated")
RECIPES: dict[str, dict[str, float]] = {
    "default": {},
    "labels": {"distillation": 0.0},
    "labels-0.002": {"learning_rate": 0.002, "distillation": 0.0},
    "labels-0.0005": {"learning_rate": 0.0005, "distillation": 0.0},
    "teacher-0.002": {"learning_rate": 0.002},
    "teacher-0.01": {"learning_rate": 0.01},
    "teacher-0.02": {"learning_rate": 0.02},
    "teacher-only": {"distillation": 1.0},
    "teacher-only-0.02": {"distillation": 1.0, "learning_rate": 0.02},
}
"""What each changes of what a search does; `labels` have no teacher."""


@dataclass(frozen=True)
class Result:
    """A row of the CSV; accuracies in percent."""

    model: str
    speedup: float
    policy: str
    recipe: str
    seed: int
    epochs: int
    images: int
    """trained on"""
    held_back_before: float
    held_back: float
    trained: float
    """of the held-back images, by the last epoch's weights"""
    losses: str
    """on the held-back images: before, and at the end of each of `finetune.SHARES`"""
    accuracies: str
    """likewise"""
    share: float
    """of the way from the cut to those, where it ends"""
    test_before: float
    test_trained: float
    test: float
    seconds: float
    counts: str


def key(row: dict[str, str] | Result) -> tuple[str, ...]:
    """What tells runs apart."""
    values = row if isinstance(row, dict) else asdict(row)
    names = ("model", "policy", "recipe", "seed", "epochs", "images")
    return (f"{float(values['speedup']):g}", *(str(values[name]) for name in names))


def cut_networks(options: argparse.Namespace) -> Iterator[tuple[float, str, object, object]]:
    """Speedup, policy, the judge and the policy's counts; what has to be searched is kept in `--out`."""
    from amc_latency.lut.prediction.predict import Predictor
    from amc_latency.lut.table.table import LatencyTable

    from amc_latency.data import data_for
    from amc_latency.measuring.profiling import Grid
    from amc_latency.models.load import NetworkOptions, load_network
    from amc_latency.search.costs.clamp import Clamp
    from amc_latency.search.costs.costs import predicted_costs
    from amc_latency.search.episodes.problem import AgentOptions, Problem
    from amc_latency.search.judge.config import JudgeConfig
    from amc_latency.search.judge.judge import Judge
    from amc_latency.search.judge.rewards import make_reward
    from amc_latency.search.steps.methods import choose, search_episodes

    network = load_network(NetworkOptions(options.model))
    data = data_for(network, "bundled")
    predictor = Predictor(LatencyTable.open(options.table))
    costs = predicted_costs(network.graph.architecture, Grid().choices(network), predictor)
    judge = Judge(network, data, JudgeConfig(), options.out / f"{Path(options.model).stem}.scores.jsonl")
    for speedup in options.speedups:
        clamp = Clamp(costs, costs.full_ms / speedup)
        problem = Problem(clamp, judge, make_reward("loss", costs), 0, 0.2)
        for policy in options.policies:
            if policy == "iterated":
                records = search_episodes(problem, AgentOptions("dp", episodes=100))
                counts = judge.choose(records, clamp.target_ms, problem.reward).counts
            else:
                counts = choose(problem, policy, 0).counts
            yield speedup, policy, judge, counts


def run(options: argparse.Namespace) -> None:
    """Run what is left, a row each: seed by seed, so that whatever is there at any time covers all networks."""
    import torch

    from amc_latency.training.finetune import finetune_config, settle
    from amc_latency.training.loop import accuracy, fit, judged

    torch.set_num_threads(options.threads)
    path, images = options.out / "finetune.csv", options.images

    def score(network):
        scores.append(judged(network, data.held_back, size))
        return scores[-1]

    done = {key(row) for row in read_rows(path)}
    networks = list(cut_networks(options))
    before: dict[tuple[float, str], tuple[float, float]] = {}
    for seed in range(options.seeds):
        for recipe in options.recipes:
            for speedup, policy, judge, counts in networks:
                name = Path(options.model).stem
                if (f"{speedup:g}", name, policy, recipe, str(seed), *map(str, (options.epochs, images))) in done:
                    continue
                train = judge.data.train.take(images)
                data, size = judge.data, judge.image_size
                tests = data.test.take(options.test_images)
                model = judge.network(counts)
                if (speedup, policy) not in before:
                    before[speedup, policy] = (accuracy(model, data.held_back, size), accuracy(model, tests, size))
                held_back, test = before[speedup, policy]
                config = replace(finetune_config(options.epochs, size, seed), **RECIPES[recipe])
                teacher = judge.original.model if config.distillation != 0.0 else None
                began = time.monotonic()
                start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
                fit(model, train, config, teacher=teacher)
                seconds = time.monotonic() - began
                test_trained = accuracy(model, tests, size)
                scores: list[tuple[float, float]] = []
                settled = settle(model, start, score)
                test_after = accuracy(model, tests, size)
                row = Result(
                    name,
                    speedup,
                    policy,
                    recipe,
                    seed,
                    options.epochs,
                    len(train),
                    held_back,
                    settled.after,
                    settled.trained,
                    " ".join(f"{loss:.4f}" for _, loss in scores),
                    " ".join(f"{correct:.2f}" for correct, _ in scores),
                    settled.share,
                    test,
                    test_trained,
                    test_after,
                    round(seconds, 1),
                    ",".join(map(str, counts)),
                )
                append_row(path, asdict(row))
                print(
                    f"{speedup:g}x {policy} {recipe} seed {seed}: held back {held_back:.2f} -> {settled.after:.2f} %, "
                    f"at {settled.share} of the way, {settled.trained:.2f} % at its end; test {test:.2f} -> "
                    f"{test_after:.2f} %, {test_trained:.2f} % at its end; {seconds:.0f} s",
                    flush=True,
                )


def report(path: Path) -> None:
    """A line for each cut network and recipe: changes of accuracy in points, over seeds."""
    changes: dict[tuple[str, ...], list[tuple[float, ...]]] = defaultdict(list)
    starts: dict[tuple[str, ...], float] = {}
    for row in read_rows(path):
        group = (row["model"], row["speedup"], row["policy"], row["recipe"], row["epochs"], row["images"])
        starts[group] = float(row["held_back_before"])
        changes[group].append(
            (
                float(row["held_back"]) - float(row["held_back_before"]),
                float(row["trained"]) - float(row["held_back_before"]),
                float(row["test"]) - float(row["test_before"]),
                float(row["test_trained"]) - float(row["test_before"]),
            )
        )
    print(
        "network, speedup, policy, recipe, epochs, images, seeds; held back before; changes in points: mean, sd, worst"
    )
    for group, several in sorted(changes.items()):
        figures = []
        for values in zip(*several, strict=True):
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            figures.append(f"{statistics.mean(values):+.2f} {spread:.2f} {min(values):+.2f}")
        print(
            f"{' '.join(group)} {len(several)}; {starts[group]:.2f}; held back {figures[0]}, "
            f"last epoch {figures[1]}, test {figures[2]}, last epoch {figures[3]}"
        )


def main() -> None:
    """Read the options and run."""
    parser = parser_of(__doc__)
    parser.add_argument("--model", default="bundled", help="or a checkpoint")
    parser.add_argument("--table", type=Path, default=BUNDLED_TABLE)
    parser.add_argument("--speedups", type=csv_of(float), default=[2.0, 4.0])
    parser.add_argument("--policies", type=csv_of(str), default=list(POLICIES))
    parser.add_argument("--recipes", type=csv_of(str), default=list(RECIPES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--images", type=int, default=8000, help="to train on")
    parser.add_argument("--test-images", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/finetune"))
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    if unknown := set(options.recipes) - set(RECIPES):
        sys.exit(f"error: there is no recipe {', '.join(sorted(unknown))}; there are {', '.join(RECIPES)}")
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.report:
        run(options)
    report(options.out / "finetune.csv")


if __name__ == "__main__":
    main()
