"""Which cheap signal ranks policies best: rank correlation with accuracy after fine-tuning, task by task.

    python -m benchmarks.signals --task tiny_imagenet --data tiny-imagenet-200 [--share 0.35] [--policies 40] [--quick]
    python -m benchmarks.signals --report         the tables of what there is

Policies at one share of the predicted milliseconds, the good ones that a search must tell apart among random ones:
the baselines' and steps away from them. Each is cut, refitted and recalibrated, asked for every signal, fine-tuned as
in `benchmarks.rivals`, and judged by test images. A row each goes to `signals.csv`; what is there is not done again.
Nothing is timed but the latency table.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from amc_latency.errors import JobError, UserError
from benchmarks.common import append_row, parser_of, read_rows
from benchmarks.compare_report import unique, values

FEW = 200
"""Held-back images of the cheapest signals."""
STEPS, BATCH = 20, 64
"""of the signal that trains."""
SIGNALS = {
    "damage_refit": -1,
    "damage_taylor": -1,
    "accuracy_few": 1,
    "loss_few": -1,
    "accuracy": 1,
    "loss": -1,
    "loss_all": -1,
    "kl_few": -1,
    "kl": -1,
    "logit_error": -1,
    "loss_after_steps": -1,
    "accuracy_after_steps": 1,
}
"""By column: 1 if more is better, -1 if less is."""
BOOTSTRAPS = 1000


@dataclass(frozen=True)
class Signals:
    """A row of the CSV."""

    task: str
    network: str
    share: float
    counts: str
    source: str
    """where the policy is from"""
    predicted: float
    """share of the milliseconds"""
    damage_refit: float
    """the sum that dynamic programming makes small: what least squares misses of the readers' outputs"""
    damage_taylor: float
    accuracy_few: float
    """of the first `FEW` held-back images; percent, here and below"""
    loss_few: float
    """nats, here and below"""
    accuracy: float
    """of the images that judge an episode"""
    loss: float
    loss_all: float
    """of all held-back images"""
    kl_few: float
    """from the uncut network's classes to the cut one's: no labels needed"""
    kl: float
    logit_error: float
    """squared difference of the logits over the uncut network's variance"""
    loss_after_steps: float
    """on the images that judge an episode, after 20 steps of distillation"""
    accuracy_after_steps: float
    after: float
    """of the test images, after fine-tuning"""
    held_back_after: float
    test_images: int
    steps_seconds: float
    """of those 20 steps"""
    seconds: float


def policies(subject, share: float, wanted: int) -> list[tuple[str, tuple[int, ...]]]:
    """Policies under one share, and where they are from: baselines, neighbours of these, random ones filled up."""
    from amc_latency.search.steps.methods import choose
    from benchmarks.rivals.methods import filled_policies, problem_of

    found: dict[tuple[int, ...], str] = {}
    for name, damage in (
        ("uniform", "refit"),
        ("shallow", "refit"),
        ("deep", "refit"),
        ("dp", "refit"),
        ("dp", "taylor"),
    ):
        problem = problem_of(subject, 0, share, damage, "loss")
        try:
            counts = choose(problem, name, 0).counts
        except UserError:
            continue
        found.setdefault(counts, f"{name}-{damage}" if name == "dp" else name)
    rng = np.random.default_rng(0)
    starts, clamp = list(found.items()), problem.clamp
    for number in range(10 * wanted):
        if len(found) >= wanted // 2:
            break
        counts, source = starts[number % len(starts)]
        found.setdefault(stepped(counts, clamp, rng), f"near {source}")
    for counts in filled_policies(clamp, 2 * wanted, 1):
        if len(found) >= wanted:
            break
        found.setdefault(counts, "random")
    return [(source, counts) for counts, source in found.items()]


def stepped(counts: tuple[int, ...], clamp, rng: np.random.Generator) -> tuple[int, ...]:
    """A policy under the same limit whose keep ratios are off by up to a fifth, and then clamped."""
    near: tuple[int, ...] = ()
    for count, full in zip(counts, clamp.costs.full, strict=True):
        near = (*near, clamp.nearest(near, min(1.0, count / full * float(rng.uniform(0.8, 1.25)))))
    return near


def signals_of(subject, share: float, source: str, counts: tuple[int, ...], rate: float, damages) -> Signals:
    """All signals of a policy, and what fine-tuning makes of it."""
    from amc_latency.training.finetune import finetune_config
    from amc_latency.training.loop import fit, judged

    began = time.monotonic()
    judge, sizes = subject.judge, subject.sizes
    held_back, size, teacher = judge.data.held_back, judge.image_size, judge.original.model
    episode = held_back.take(sizes.judge_images)
    model = judge.network(counts)
    few, many = judged(model, held_back.take(FEW), size), judged(model, episode, size)
    every = judged(model, held_back, size)
    kl_few, _ = distances(model, teacher, held_back.take(FEW), size)
    kl, logit_error = distances(model, teacher, episode, size)
    started, brief = time.monotonic(), copy.deepcopy(model)
    steps = finetune_config(1, size, 0, learning_rate=rate, batch_size=BATCH)
    fit(brief, judge.data.train.take(STEPS * BATCH), steps, teacher=teacher)
    steps_seconds = time.monotonic() - started
    after_steps = judged(brief, episode, size)
    subject.finetune(model, 0, rate)
    places = subject.costs.indices(counts)
    sums = {name: sum(float(group[at]) for group, at in zip(d, places, strict=True)) for name, d in damages.items()}
    return Signals(
        task=subject.task,
        network=subject.name,
        share=share,
        counts=" ".join(map(str, counts)),
        source=source,
        predicted=subject.costs.ms(counts) / subject.costs.full_ms,
        damage_refit=sums["refit"],
        damage_taylor=sums["taylor"],
        accuracy_few=few[0],
        loss_few=few[1],
        accuracy=many[0],
        loss=many[1],
        loss_all=every[1],
        kl_few=kl_few,
        kl=kl,
        logit_error=logit_error,
        loss_after_steps=after_steps[1],
        accuracy_after_steps=after_steps[0],
        after=judge.test_pct(model),
        held_back_after=subject.held_back_pct(model),
        test_images=len(judge.data.test),
        steps_seconds=round(steps_seconds, 2),
        seconds=round(time.monotonic() - began, 1),
    )


def distances(model, teacher, split, size) -> tuple[float, float]:
    """Mean Kullback-Leibler divergence in nats of what `model` says from `teacher`, and the logits' relative error."""
    import torch

    ours, theirs = [], []
    with torch.no_grad():
        for inputs, _ in split.parts(size):
            ours.append(model.eval()(inputs))
            theirs.append(teacher(inputs))
    one, other = torch.cat(ours), torch.cat(theirs)
    kl = torch.nn.functional.kl_div(one.log_softmax(1), other.log_softmax(1), reduction="batchmean", log_target=True)
    # Softmax does not see what is added to all logits.
    one, other = one - one.mean(1, keepdim=True), other - other.mean(1, keepdim=True)
    return float(kl), float((one - other).square().mean() / other.var())


def rank_correlation(ones: Sequence[float], others: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """Spearman's, and both ends of its 95 % interval by bootstrap; NaN where one never differs."""
    pair = np.array([ones, others])
    places = np.random.default_rng(seed).integers(0, pair.shape[1], (BOOTSTRAPS, pair.shape[1]))
    drawn = _spearman(pair[0][places], pair[1][places])
    low, high = np.nanquantile(drawn, (0.025, 0.975)) if np.isfinite(drawn).any() else (np.nan, np.nan)
    return float(_spearman(pair[:1], pair[1:])[0]), float(low), float(high)


def _spearman(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Of each row [n] of the first with that of the second; NaN where one never differs."""
    from scipy.stats import rankdata

    first, second = (ranks - ranks.mean(1, keepdims=True) for ranks in (rankdata(x, axis=1) for x in (ones, others)))
    with np.errstate(invalid="ignore"):
        return (first * second).sum(1) / np.sqrt((first**2).sum(1) * (second**2).sum(1))


def report(path: Path) -> None:
    """A table for each task, network and share: signals, the best first."""
    rows = read_rows(path)
    if not rows:
        print(f"{path} holds no policy yet")
    for task in unique(rows, "task"):
        of_task = [row for row in rows if row["task"] == task]
        for network in unique(of_task, "network"):
            own = [row for row in of_task if row["network"] == network]
            for share in unique(own, "share"):
                for line in table(task, network, [row for row in own if row["share"] == share]):
                    print(line)


def table(task: str, network: str, rows: Sequence[dict[str, str]]) -> list[str]:
    """The lines of one table."""
    after = values(rows, "after")
    lines = [
        "",
        f"{task}, {network}, {float(rows[0]['share']):g} of its predicted ms: {len(rows)} policies, after fine-tuning "
        f"{min(after):.2f} to {max(after):.2f} % of {int(rows[0]['test_images']):,} test images",
        f"{'signal':22}{'rank correlation, 95 %':>26}{'within the better half':>26}",
    ]
    median = float(np.median(after))
    better = [row for row in rows if float(row["after"]) >= median]
    found = []
    for name, sign in SIGNALS.items():
        of_all, of_better = (
            rank_correlation([sign * value for value in values(some, name)], values(some, "after"))
            for some in (rows, better)
        )
        found.append((of_all, of_better, name))
    for of_all, of_better, name in sorted(found, key=lambda each: -np.nan_to_num(each[0][0], nan=-2)):
        lines.append(f"{name:22}{_shown(of_all):>26}{_shown(of_better):>26}")
    steps_s, all_s = (float(np.mean(values(rows, column))) for column in ("steps_seconds", "seconds"))
    lines.append(f"{STEPS} steps take {steps_s:.1f} s, all of a policy {all_s:.0f} s")
    return lines


def _shown(found: tuple[float, float, float]) -> str:
    return f"{found[0]:.2f} ({found[1]:.2f} to {found[2]:.2f})"


def main() -> None:
    """Read the options and run."""
    from benchmarks.rivals.__main__ import add_sizes
    from benchmarks.rivals.tasks import TASKS

    parser = parser_of(__doc__)
    parser.add_argument("--task", default="bundled", help=", ".join(TASKS))
    parser.add_argument("--data", type=Path, help="the folder of the task's images")
    parser.add_argument("--share", type=float, default=0.35, help="of the uncut network's predicted milliseconds")
    parser.add_argument("--policies", type=int, default=40)
    parser.add_argument("--rate", type=float, default=0.02, help="of fine-tuning")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/rivals"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--timing-core", type=int)
    parser.add_argument("--report", action="store_true", help="print the tables of what there is")
    add_sizes(parser)
    options = parser.parse_args()
    out = options.out / (f"{options.task}-quick" if options.quick else options.task)
    try:
        if not options.report:
            _run(options, out)
    except (UserError, JobError) as error:
        sys.exit(f"error: {error}")
    report(out / "signals.csv")


def _run(options: argparse.Namespace, out: Path) -> None:
    import torch

    from benchmarks.rivals.__main__ import check_settings, sizes_of
    from benchmarks.rivals.subject import opened
    from benchmarks.rivals.tasks import checkpoint_of, task_of

    torch.set_num_threads(options.threads)
    sizes, task = sizes_of(options), task_of(options.task)
    out.mkdir(parents=True, exist_ok=True)
    check_settings(out / "signals.json", sizes, rate=options.rate)
    for name in sizes.networks:
        checkpoint, source = checkpoint_of(task, name, options.data, out, sizes)
        with opened(options.task, name, checkpoint, source, sizes, out, None, options.timing_core) as subject:
            done = {
                row["counts"]
                for row in read_rows(out / "signals.csv")
                if (row["task"], row["network"], float(row["share"])) == (options.task, name, options.share)
            }
            damages = {damage: subject.judge.damages(damage, subject.costs)[0] for damage in ("refit", "taylor")}
            for source_, counts in policies(subject, options.share, options.policies):
                if " ".join(map(str, counts)) in done:
                    continue
                row = signals_of(subject, options.share, source_, counts, options.rate, damages)
                append_row(out / "signals.csv", asdict(row))
                print(
                    f"{name} {source_}: loss {row.loss:.3f}, after 20 steps {row.loss_after_steps:.3f}, test "
                    f"{row.after:.2f} %, {row.seconds:.0f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
