"""What the uncut network is worth, before anything is searched: at chance, every figure after it means nothing."""

from __future__ import annotations

import torch

from amc_latency.console import Console
from amc_latency.data import ImageData, Split
from amc_latency.data.logits import classes_of
from amc_latency.errors import UserError
from amc_latency.models.load import Network
from amc_latency.training.causes import CAUSES, TRIED, fitting
from amc_latency.training.intervals import interval_pct
from amc_latency.training.outcome import Outcome, accuracy_line, outcome

ENOUGH = 100
"""Images of which no more right than by chance is no bad luck."""


def check_original(
    network: Network, data: ImageData, images: int, min_accuracy_pct: float | None, console: Console
) -> Outcome | None:
    """Say how the network does on the first `images` held-back images, and return it; `UserError` for one at chance.

    Chance is what the same answers would get if they had nothing to do with the images (Cohen's kappa of 0): for a
    network that always says one class, that class's share. With `min_accuracy_pct` that much is asked for in its place.
    Before it is refused the usual causes are tried, and what would fit is said. None for images without labels, which
    it always gets right.
    """
    if data.unlabelled:
        _check_unlabelled(data, min_accuracy_pct)
        return None
    split = data.held_back.take(images)
    found = outcome(network.model, split, network.spec.input[1:])
    line = accuracy_line(found)
    console.say(line)
    accuracy_pct = found.accuracy_pct
    chance_pct = _chance_pct(found)
    if min_accuracy_pct is not None:
        if accuracy_pct < min_accuracy_pct:
            cause = _cause(network, split, found, chance_pct, console)
            raise UserError(f"{line}. That is less than `min_accuracy` {min_accuracy_pct:g}; {cause}")
        return found
    low, high = interval_pct(accuracy_pct, len(found))
    if low > chance_pct:
        return found
    cause = _cause(network, split, found, chance_pct, console)
    text = f"{line}. The same answers in any order would get {chance_pct:.1f} %. {cause}"
    if high <= chance_pct or (round(accuracy_pct, 9) <= chance_pct and len(found) >= ENOUGH):
        raise UserError(f"{text}; `min_accuracy=0` goes on all the same")
    console.warn(f"warning, that may be chance: {text}")
    return found


def _chance_pct(found: Outcome) -> float:
    both = (found.said, found.labels)
    classes = int(max(each.max() for each in both)) + 1
    said, meant = (each.bincount(minlength=classes).double() / len(found) for each in both)
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


def _cause(network: Network, split: Split, found: Outcome, chance_pct: float, console: Console) -> str:
    """What would fit, or that the usual causes don't explain it."""
    console.say("that is no more than chance, or less than was asked for: the usual causes are tried")
    spec = network.spec
    fit = fitting(network.model, split, spec.input[1:], found, classes_of(spec.classes), chance_pct)
    if fit is None:
        return f"{CAUSES}. {TRIED}"
    return f"{fit.text[0].upper()}{fit.text[1:]} it is right on {fit.accuracy_pct:.1f} % of {fit.images:,} images"
