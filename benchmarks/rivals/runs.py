"""Cuts and fine-tunes, a row each; what is there is not done again."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import nn

from amc_latency.errors import JobError, UserError
from benchmarks.common import append_row, read_rows
from benchmarks.rivals.equal import equalised
from benchmarks.rivals.methods import RIVALS, Candidate
from benchmarks.rivals.rows import ORIGINAL, Row, key, of_run, rates_left
from benchmarks.rivals.subject import Share, Subject


@dataclass(frozen=True)
class Cut:
    """A row of `cuts.csv`: a network at the share wanted, before fine-tuning. Accuracies in percent."""

    task: str
    network: str
    share: float
    rival: str
    seed: int
    """of the cut; 0 where it has none"""
    knob: float
    knob_means: str
    measured: float
    """share of the uncut network's milliseconds, in the same rounds"""
    measured_low: float
    measured_high: float
    before: float
    """of the test images"""
    held_back_before: float
    evaluations: int
    seconds: float
    counts: str


@dataclass(frozen=True)
class Finetuned:
    """A row of `finetuned.csv`."""

    task: str
    network: str
    share: float
    rival: str
    seed: int
    rate: float
    knob: float
    measured: float
    measured_low: float
    measured_high: float
    before: float
    held_back: float
    after: float
    """of the test images, by the last epoch's weights"""
    test_images: int
    epochs: int
    train_images: int
    seconds: float
    """of the cut and of this fine-tuning"""


def run(subject: Subject, rivals: Sequence[str], out: Path) -> None:
    """All rivals at all shares, seed by seed, so that whatever is there at any time covers all rivals.

    Each at the best of the rates: the first seed is fine-tuned at all, the others at the one that did best on
    held-back images.
    """
    original_row(subject, out / "cuts.csv")
    for seed in range(subject.sizes.seeds):
        for share in subject.sizes.shares:
            for name in rivals:
                done = of_run(read_rows(out / "finetuned.csv"), subject.task, subject.name, share, name)
                left = rates_left(done, seed, subject.sizes.rates)
                if not left:
                    continue
                try:
                    row, model = cut(subject, share, name, seed if RIVALS[name].has_seed else 0, out / "cuts.csv")
                except UserError as error:
                    print(f"{subject.name} {share:g} {name} seed {seed}: {error}", flush=True)
                    continue
                for rate in left:
                    finetune(subject, row, model, seed, rate, out / "finetuned.csv")


def original_row(subject: Subject, path: Path) -> None:
    """The uncut network's accuracies, as a cut of nothing."""
    if any(key(row)[:2] == (subject.task, subject.name) and row["rival"] == ORIGINAL for row in read_rows(path)):
        return
    model, full = subject.network.model, subject.costs.full
    candidate = Candidate(model, full)
    append_row(path, asdict(_cut_row(subject, 1.0, ORIGINAL, 0, 1.0, "", candidate, (1.0, 1.0, 1.0), 0.0)))


def cut(subject: Subject, share: float, name: str, seed: int, path: Path) -> tuple[Cut, nn.Module]:
    """The rival's network at `share` of the measured milliseconds. Raises UserError where it has none."""
    rival = RIVALS[name]
    for row in read_rows(path):
        if key(row) == (subject.task, subject.name, share, name, seed):
            known = _known(row)
            return known, rival.again(subject, seed, known.knob, tuple(map(int, known.counts.split())))
    began = time.monotonic()
    shares: dict[tuple[int, ...], Share] = {}
    make = rival.make(subject, seed)

    def measure(candidate: Candidate) -> float:
        if candidate.counts not in shares:
            shares[candidate.counts] = subject.timer.share(candidate.model)
        print(f"  {name}: {shares[candidate.counts][0]:.4f} of the ms, {share:g} wanted", flush=True)
        return shares[candidate.counts][0]

    found = equalised(make, measure, share)
    seconds = time.monotonic() - began
    measured = shares[found.network.counts]
    row = _cut_row(subject, share, name, seed, found.knob, rival.knob, found.network, measured, seconds)
    append_row(path, asdict(row))
    print(
        f"{subject.name} {share:g} {name} cut {seed}: {row.measured:.4f} of the ms ({row.measured_low:.4f} to "
        f"{row.measured_high:.4f}), {row.before:.2f} % before fine-tuning, {seconds:.0f} s",
        flush=True,
    )
    return row, found.network.model


def _cut_row(
    subject: Subject,
    share: float,
    name: str,
    seed: int,
    knob: float,
    meaning: str,
    candidate: Candidate,
    measured: Share,
    seconds: float,
) -> Cut:
    return Cut(
        task=subject.task,
        network=subject.name,
        share=share,
        rival=name,
        seed=seed,
        knob=knob,
        knob_means=meaning,
        measured=measured[0],
        measured_low=measured[1],
        measured_high=measured[2],
        before=subject.judge.test_pct(candidate.model),
        held_back_before=subject.held_back_pct(candidate.model),
        evaluations=candidate.evaluations,
        seconds=round(seconds, 1),
        counts=" ".join(map(str, candidate.counts)),
    )


def _known(row: Row) -> Cut:
    kinds = {"seed": int, "evaluations": int}
    text = ("task", "network", "rival", "knob_means", "counts")
    return Cut(**{name: value if name in text else kinds.get(name, float)(value) for name, value in row.items()})


def finetune(subject: Subject, cut_row: Cut, model: nn.Module, seed: int, rate: float, path: Path) -> None:
    """One fine-tuning of a copy of a cut network; where it diverges, what it was before counts."""
    began = time.monotonic()
    model, before = copy.deepcopy(model), model
    try:
        subject.finetune(model, seed, rate)
    except JobError as error:
        print(f"{subject.name} {cut_row.share:g} {cut_row.rival} seed {seed} rate {rate:g}: {error}", flush=True)
        model = before
    data, sizes = subject.judge.data, subject.sizes
    row = Finetuned(
        task=subject.task,
        network=subject.name,
        share=cut_row.share,
        rival=cut_row.rival,
        seed=seed,
        rate=rate,
        knob=cut_row.knob,
        measured=cut_row.measured,
        measured_low=cut_row.measured_low,
        measured_high=cut_row.measured_high,
        before=cut_row.before,
        held_back=subject.held_back_pct(model),
        after=subject.judge.test_pct(model),
        test_images=len(data.test),
        epochs=sizes.epochs,
        train_images=min(sizes.train_images or len(data.train), len(data.train)),
        seconds=round(cut_row.seconds + time.monotonic() - began, 1),
    )
    append_row(path, asdict(row))
    print(
        f"{subject.name} {row.share:g} {row.rival} seed {seed} rate {rate:g}: test {row.before:.2f} -> "
        f"{row.after:.2f} %, held back {row.held_back:.2f} %",
        flush=True,
    )
