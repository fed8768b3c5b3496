"""What the uncut network is worth, before anything is searched: at chance, every figure after it means nothing."""

from __future__ import annotations

import torch

from amc_latency.console import Console
from amc_latency.data import ImageData
from amc_latency.errors import UserError
from amc_latency.models.load import Network
from amc_latency.training.intervals import interval_pct
from amc_latency.training.outcome import Outcome, accuracy_line, outcome

ENOUGH = 100
"""Images of which no more right than by chance is no bad luck."""
_SHOWN = 4
CAUSES = (
    "usual causes: classes in another order than the data's (folders: sorted by name), pixels normalised by other "
    "figures (`normalisation`), BGR for RGB, weights of another network"
)


def check_original(
    network: Network, data: ImageData, images: int, min_accuracy_pct: float | None, console: Console
) -> None:
    """Say how the network does on the first `images` held-back images; `UserError` for one at chance.

    Chance is what the same answers would get if they had nothing to do with the images (Cohen's kappa of 0): for a
    network that always says one class, that class's share. With `min_accuracy_pct` that much is asked for in its place.
    """
    if data.unlabelled:
        _check_unlabelled(data, min_accuracy_pct)
        return
    split = data.held_back.take(images).kept()
    found = outcome(network.model, split, network.spec.input[1:])
    line = accuracy_line(found)
    console.say(line)
    accuracy_pct = found.accuracy_pct
    if min_accuracy_pct is not None:
        if accuracy_pct < min_accuracy_pct:
            raise UserError(f"{line}. That is less than `min_accuracy` {min_accuracy_pct:g}; {CAUSES}")
        return
    low, high = interval_pct(accuracy_pct, len(found))
    chance_pct = _chance_pct(found, split.labels)
    if low > chance_pct:
        return
    hint = _hint(found, split.labels, chance_pct)
    text = f"{line}. The same answers in any order would get {chance_pct:.1f} %. {hint}"
    if high <= chance_pct or (round(accuracy_pct, 9) <= chance_pct and len(found) >= ENOUGH):
        raise UserError(f"{text}; `min_accuracy=0` searches all the same")
    console.warn(f"warning, that may be chance: {text}")


def _chance_pct(found: Outcome, labels: torch.Tensor) -> float:
    classes = int(max(labels.max(), found.said.max())) + 1
    said, meant = (each.bincount(minlength=classes).double() / len(labels) for each in (found.said, labels))
    # Rounded, so that the share of a single class is the same figure on both sides.
    return round(100 * float(said @ meant), 9)


def _check_unlabelled(data: ImageData, min_accuracy_pct: float | None) -> None:
    """Agreement with a network that says one class of everything is 100 % for every other such network."""
    said = torch.cat([split.labels for split in data.splits])
    if min_accuracy_pct is None and bool((said == said[0]).all()):
        raise UserError(
            f"the network says class {int(said[0])} of all {len(said):,} images, so agreement with it means nothing: "
            "are pixels normalised as it expects (`normalisation`), and are these images of its kind?"
        )


def _hint(found: Outcome, labels: torch.Tensor, chance_pct: float) -> str:
    """The cause, if another numbering of the classes explains it; or else what it usually is."""
    from scipy.optimize import linear_sum_assignment

    classes = int(max(labels.max(), found.said.max())) + 1
    together = torch.bincount(labels * classes + found.said, minlength=classes**2).view(classes, classes)
    meant, said = linear_sum_assignment(together.numpy(), maximize=True)
    best_pct = 100 * int(together[meant, said].sum()) / len(labels)
    told = [(int(a), int(b)) for a, b in zip(said, meant, strict=True) if a != b and together[b, a]]
    if best_pct < max(50, 2 * chance_pct) or len(labels) < 5 * len(labels.unique()):
        return CAUSES
    shown = ", ".join(f"{a} for {b}" for a, b in told[:_SHOWN])
    return (
        f"With its classes renumbered ({shown}{', ...' if len(told) > _SHOWN else ''}) it would get {best_pct:.1f} %: "
        "they are in another order than the data's (folders: sorted by name)"
    )
