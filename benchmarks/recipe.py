"""What each default of training is worth: accuracy with and without it, over seeds.

    python -m benchmarks.recipe [--tasks cut,few,train] [--only "NAME;..."] [--seeds 3] [--quick] [--out runs/recipe]
    python -m benchmarks.recipe --report      the tables of what there is

`cut` fine-tunes the bundled network after three quarters of its channels went, `few` a trained network of one's own on
227 images by two epochs, `train` begins with random weights. A run adds a row to `recipe.csv`; one that is there is not
done again, so stop it when you like. `--quick` takes about ten minutes of one core. Nothing is chosen by the test
images.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.common import append_row, csv_of, parser_of, read_rows

PHOTOS = 227
SIZE = (64, 64)
SMALL = (32, 32)
FINE_TUNING: dict[str, dict[str, Any]] = {
    "default": {},
    "no distillation": {"distillation": 0.0},
    "distillation alone": {"distillation": 1.0},
    "temperature 2": {"temperature": 2.0},
    "temperature 4": {"temperature": 4.0},
    "feature matching": {"feature_matching": 1.0},
    "EMA 0.99": {"ema_decay": 0.99},
    "no augmentation": {"augment": False},
    "a quarter of the rate": {"rate": 0.25},
    "four times the rate": {"rate": 4.0},
    "adamw": {"optimizer": "adamw"},
    "each image once an epoch": {"epoch_steps": 1},
    "64 steps an epoch": {"epoch_steps": 64},
    "clipped at 1": {"clip_norm": 1.0},
    "no smoothing": {"label_smoothing": 0.0},
    "constant rate": {"schedule": "constant"},
    "no warm-up": {"warmup_epochs": 0.0},
}
"""What each changes of what `search` and `finetune` do."""
FEW = {name: FINE_TUNING[name] for name in ("default", "no distillation", "no augmentation", "four times the rate")}
FEW |= {"64 steps an epoch": {"epoch_steps": 64}, "distillation 0.9": {"distillation": 0.9}}
FROM_SCRATCH: dict[str, dict[str, Any]] = {
    "default": {},
    "EMA 0.99": {"ema_decay": 0.99},
    "no augmentation": {"augment": False},
    "no smoothing": {"label_smoothing": 0.0},
    "a quarter of the rate": {"rate": 0.25},
    "four times the rate": {"rate": 4.0},
    "adamw": {"optimizer": "adamw"},
    "clipped at 1": {"clip_norm": 1.0},
    "no warm-up": {"warmup_epochs": 0.0},
    "linear": {"schedule": "linear"},
}
"""What each changes of what `train` does."""
TASKS = {"cut": FINE_TUNING, "few": FEW, "train": FROM_SCRATCH}


@dataclass(frozen=True)
class Result:
    """A row of the CSV; accuracies in percent."""

    task: str
    recipe: str
    seed: int
    images: int
    epochs: int
    held_back_before: float
    held_back_trained: float
    """by the last epoch's weights"""
    held_back: float
    """where fine-tuning ends, on the line between both"""
    test_before: float
    test_trained: float
    test: float
    seconds: float
    """of training"""


@dataclass(frozen=True)
class Sizes:
    """How much is done."""

    images: int
    """of `cut` and `train`"""
    epochs: int
    """of `cut`"""
    train_epochs: int
    held_back: int
    tests: int


QUICK, FULL = Sizes(640, 2, 4, 500, 1500), Sizes(8000, 6, 16, 2000, 10_000)


@cache
def bundled_data() -> Any:
    """The bundled images."""
    from amc_latency.data import load_data

    return load_data("bundled")


@cache
def cut_network() -> tuple[Any, Any]:
    """The bundled network with a quarter of its channels, refitted; and the uncut one."""
    from amc_latency.models.load import NetworkOptions, load_network
    from amc_latency.search.judge.config import JudgeConfig
    from amc_latency.search.judge.judge import Judge

    network = load_network(NetworkOptions("bundled"))
    full = network.graph.architecture.group_channels
    judge = Judge(network, bundled_data(), JudgeConfig())
    return judge.network(tuple(max(8, count // 32 * 8) for count in full)), network.model


@cache
def own_network(out: Path) -> tuple[Any, Any]:
    """A network that somebody has trained on their few images: the case that got worse. Its state is kept in `out`."""
    import torch

    from amc_latency.training.loop import fit
    from amc_latency.training.recipe import TrainConfig

    torch.manual_seed(0)
    model = small_network()
    config = TrainConfig(epochs=40, image_size=SIZE, low_resolution_epochs=0)
    fit(model, bundled_data().train.take(PHOTOS), config, out / "own.safetensors")
    return model, copy.deepcopy(model)


def small_network() -> Any:
    """Six convolutions, for 64x64 images of one channel."""
    from torch import nn

    channels = (1, 16, 32, 32, 64, 64, 128)
    layers: list[nn.Module] = []
    for i, (inputs, outputs) in enumerate(pairwise(channels)):
        layers += [nn.Conv2d(inputs, outputs, 3, 1 + (i % 2 == 0), 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


def random_network() -> tuple[Any, None]:
    """Random weights, for images of 32x32."""
    return small_network(), None


def run(task: str, recipe: str, seed: int, sizes: Sizes, out: Path) -> Result:
    """Train once."""
    import torch

    from amc_latency.training.finetune import finetune_config, own_distillation, settle
    from amc_latency.training.loop import fit, judged
    from amc_latency.training.recipe import TrainConfig

    data, changes = bundled_data(), dict(TASKS[task][recipe])
    torch.manual_seed(seed)
    makers: dict[str, Callable[[], tuple[Any, Any]]] = {
        "cut": cut_network,
        "few": lambda: own_network(out),
        "train": random_network,
    }
    made, teacher = makers[task]()
    model, size = copy.deepcopy(made), SMALL if task == "train" else SIZE
    train = data.train.take(PHOTOS if task == "few" else sizes.images)
    config = finetune_config(2 if task == "few" else sizes.epochs, size, seed)
    if task == "train":
        config = TrainConfig(epochs=sizes.train_epochs, image_size=size, low_resolution_epochs=0, seed=seed)
    if task == "few":
        share = own_distillation(judged(model, data.held_back.take(500), size)[0])
        config = replace(config, distillation=share, epoch_steps=1)
    factor = changes.pop("rate", 1.0)
    config = replace(config, **changes)
    config = replace(config, learning_rate=factor * config.rate(len(train)))
    tests, held_back = data.test.take(sizes.tests), data.held_back.take(sizes.held_back)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    test_before = judged(model, tests, size)[0]
    began = time.monotonic()
    fit(model, train, config, teacher=teacher)
    seconds = time.monotonic() - began
    test_trained = judged(model, tests, size)[0]
    if task == "train":
        (after, _), before = judged(model, held_back, size), 0.0
        trained, test = after, test_trained
    else:
        settled = settle(model, start, lambda network: judged(network, held_back, size))
        before, trained, after, test = settled.before, settled.trained, settled.after, judged(model, tests, size)[0]
    return Result(
        task,
        recipe,
        seed,
        len(train),
        config.epochs,
        before,
        trained,
        after,
        test_before,
        test_trained,
        test,
        round(seconds, 1),
    )


def report(path: Path) -> None:
    """A line for each recipe: the test accuracy, and how far it is from the default's with the same seed."""
    runs: dict[tuple[str, ...], dict[str, dict[str, dict[str, str]]]] = defaultdict(lambda: defaultdict(dict))
    for row in read_rows(path):
        runs[row["task"], row["images"], row["epochs"]][row["recipe"]][row["seed"]] = row
    for (task, images, epochs), recipes in runs.items():
        before = next(float(row["test_before"]) for by_seed in recipes.values() for row in by_seed.values())
        print(f"\n{task}: {images} images, {epochs} epochs; test accuracy before {before:.2f} %")
        print(f"{'':24}{'seeds':>6}{'test %':>16}{'last epoch %':>14}{'less the default':>18}{'s':>8}")
        for recipe, by_seed in recipes.items():
            ends, last = ([float(row[name]) for row in by_seed.values()] for name in ("test", "test_trained"))
            both = [seed for seed in by_seed if seed in recipes.get("default", {})]
            less = [float(by_seed[seed]["test"]) - float(recipes["default"][seed]["test"]) for seed in both]
            seconds = statistics.mean(float(row["seconds"]) for row in by_seed.values())
            shown = f"{statistics.mean(less):+.2f} ({spread(less):.2f})" if less and recipe != "default" else ""
            print(
                f"{recipe:24}{len(by_seed):6}{f'{statistics.mean(ends):.2f} ({spread(ends):.2f})':>16}"
                f"{statistics.mean(last):14.2f}{shown:>18}{seconds:8.1f}"
            )


def spread(values: list[float]) -> float:
    """Their standard deviation; 0 of one."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def main() -> None:
    """Read the options and run."""
    import torch

    parser = parser_of(__doc__)
    parser.add_argument("--tasks", type=csv_of(str), default=list(TASKS))
    parser.add_argument("--only", type=lambda text: text.split(";"), help="names of recipes, by semicolons")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--images", type=int, help="in place of 8,000, or of 640 with --quick; `few` has 227")
    parser.add_argument("--epochs", type=int, help="of `cut`, in place of 6, or of 2 with --quick")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/recipe"))
    parser.add_argument("--report", action="store_true")
    options: argparse.Namespace = parser.parse_args()
    if unknown := set(options.tasks) - set(TASKS):
        sys.exit(f"error: there is no task {', '.join(sorted(unknown))}; there are {', '.join(TASKS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    path, sizes = options.out / "recipe.csv", QUICK if options.quick else FULL
    sizes = replace(sizes, images=options.images or sizes.images, epochs=options.epochs or sizes.epochs)
    torch.set_num_threads(options.threads)
    names = ("task", "recipe", "seed", "images")
    done = {tuple(row[name] for name in names) for row in read_rows(path)}
    for seed in range(0 if options.report else options.seeds):
        for task in options.tasks:
            for recipe in TASKS[task]:
                images = PHOTOS if task == "few" else min(sizes.images, len(bundled_data().train))
                is_left_out = options.only is not None and recipe not in options.only
                if is_left_out or (task, recipe, str(seed), str(images)) in done:
                    continue
                row = run(task, recipe, seed, sizes, options.out)
                append_row(path, asdict(row))
                print(
                    f"{task}, {recipe}, seed {seed}: test {row.test_before:.2f} -> {row.test:.2f} %, "
                    f"{row.test_trained:.2f} % at its end; {row.seconds:.0f} s",
                    flush=True,
                )
    report(path)


if __name__ == "__main__":
    main()
