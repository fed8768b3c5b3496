"""Ours beside what one would use instead, on real tasks, at equal measured milliseconds.

    python -m benchmarks.rivals --task tiny_imagenet --data tiny-imagenet-200 [--networks mobilenet_v1,...] [--quick]
    python -m benchmarks.rivals --task trashnet --data dataset-resized
    python -m benchmarks.rivals --task bundled
    python -m benchmarks.rivals --report          the tables of what there is

Each network is trained first, or taken from ImageNet's weights to the photos' classes, and its latency table is built.
Then each rival cuts it until the exported file takes the wanted share of the uncut network's milliseconds, within 2 %
as measured in the same rounds, by bisection of the rival's own knob; and each is fine-tuned alike, to the last epoch,
by the uncut network's teaching, at the best of three rates (told by held-back images). Rows go to `cuts.csv` and
`finetuned.csv`; what is there is not done again, so stop it when you like.

There is one trained network a task: seeds are those of the search and of fine-tuning. Sizes of the full form are such
that all tables take about six hours of two cores; `--quick` takes about ten minutes a task. While it times, nothing
else should run on that core: `--timing-core` names one that the rest of this run keeps off.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

from amc_latency.arguments.names import find
from amc_latency.errors import JobError, UserError
from benchmarks.common import csv_of, machine, parser_of, versions
from benchmarks.rivals.report import report
from benchmarks.rivals.tasks import TASKS, Sizes, checkpoint_of, task_of


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """An option for each size; unset is what the task says."""
    for field in fields(Sizes):
        kind = type(field.default)
        if isinstance(field.default, tuple):
            kind = csv_of(str if field.name in ("networks", "rivals") else float)
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, help=field.metadata["help"])


def sizes_of(options: argparse.Namespace) -> Sizes:
    """The task's sizes, and what the options say of them."""
    task = task_of(options.task)
    given = {field.name: getattr(options, field.name) for field in fields(Sizes)}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    return replace(task.quick if options.quick else task.full, **{k: v for k, v in given.items() if v is not None})


def check_settings(path: Path, sizes: Sizes, **more: float) -> None:
    """Rows of other settings don't belong in one table. Raises UserError for them."""
    in_rows = ("networks", "rivals", "shares", "seeds", "rates", "goal")
    own = {name: value for name, value in asdict(sizes).items() if name not in in_rows}
    settings = json.loads(json.dumps({**own, **more}))
    if path.exists() and (known := json.loads(path.read_text())) != settings:
        raise UserError(f"{path} says that the rows there are of {known}: the same settings, or another --out")
    path.write_text(json.dumps(settings))


def main() -> None:
    """Read the options and run."""
    parser = parser_of(__doc__)
    parser.add_argument("--task", default="bundled", help=", ".join(TASKS))
    parser.add_argument("--data", type=Path, help="the folder of the task's images")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("runs/rivals"))
    parser.add_argument("--threads", type=int, default=1, help="that train and judge")
    parser.add_argument("--timing-core", type=int, help="that networks are timed on; one that this process may use")
    parser.add_argument("--timing-rounds", type=int, help="of each timing, as the latency table's unless set")
    parser.add_argument("--report", action="store_true", help="print the tables of what there is")
    add_sizes(parser)
    options = parser.parse_args()
    try:
        out = options.out / (f"{options.task}-quick" if options.quick else options.task)
        if not options.report:
            _run(options, out)
    except (UserError, JobError) as error:
        sys.exit(f"error: {error}")
    report(out)


def _run(options: argparse.Namespace, out: Path) -> None:
    import torch

    from benchmarks.rivals.methods import RIVALS
    from benchmarks.rivals.runs import run
    from benchmarks.rivals.subject import opened

    torch.set_num_threads(options.threads)
    sizes, task = sizes_of(options), task_of(options.task)
    names = list(sizes.rivals) or [name for name, rival in RIVALS.items() if rival.is_installed]
    for name in names:
        find(RIVALS, name, "rival").check(name)
    if missing := [name for name in RIVALS if not sizes.rivals and not RIVALS[name].is_installed]:
        print(f"left out, as their packages are not installed: {', '.join(missing)}")
    out.mkdir(parents=True, exist_ok=True)
    check_settings(out / "settings.json", sizes)
    print(f"{machine()}; {versions('torch', 'ai-edge-litert')}; {sizes}", flush=True)
    for name in sizes.networks:
        checkpoint, source = checkpoint_of(task, name, options.data, out, sizes)
        timing = (options.timing_rounds, options.timing_core)
        with opened(options.task, name, checkpoint, source, sizes, out, *timing) as subject:
            run(subject, names, out)


if __name__ == "__main__":
    main()
