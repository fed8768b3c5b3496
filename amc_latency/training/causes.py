"""Why a trained network may be at chance on images: the usual causes, each tried, and what would fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from amc_latency.data import Split
from amc_latency.pixels import NORMALISATIONS, Normalisation, parse_normalisation
from amc_latency.training.intervals import interval_pct
from amc_latency.training.outcome import Outcome, outcome

CAUSES = (
    "usual causes: classes in another order than the data's (folders: sorted by name), pixels normalised by other "
    "figures (`normalisation`), BGR for RGB, weights of another network"
)
TRIED = (
    "Another normalisation, BGR and another order of the classes were tried, and none of them fits: are these the "
    "weights of this network and of these classes?"
)
SCREENED = 200
"""Images that each way to take pixels is tried on; what does best is then tried on all."""
_ENOUGH = 0.25
"""Of the way from chance to all right, that what fits must surely go: some twenty ways are tried."""
_SHOWN = 4
_A_CLASS = 5
"""Images of each class from which an order of the classes is worked out."""


@dataclass(frozen=True)
class Fit:
    """Something else that the network gets more right with."""

    accuracy_pct: float
    images: int
    text: str
    """in words: "with `normalisation='half'`" """

    @property
    def low_pct(self) -> float:
        """Lower end of the 95 % interval."""
        return interval_pct(self.accuracy_pct, self.images)[0]


class Repixelled(nn.Module):
    """A network that is shown its input [N, C, H, W], normalised by `given`, as if normalised by `wanted`."""

    def __init__(self, model: nn.Module, given: Normalisation, wanted: Normalisation, is_bgr: bool) -> None:
        super().__init__()
        self.model = model
        self.is_bgr = is_bgr
        figures = (given.mean, given.std, wanted.mean, wanted.std)
        self.figures = [torch.tensor(each, dtype=torch.float32).view(-1, 1, 1) for each in figures]

    def forward(self, x: Tensor) -> Tensor:
        """What the network says of it."""
        mean, std, wanted_mean, wanted_std = (each.to(x.device) for each in self.figures)
        x = (x * std + mean - wanted_mean) / wanted_std
        return self.model(x.flip(1) if self.is_bgr else x)


def fitting(
    model: nn.Module, split: Split, size: tuple[int, int], found: Outcome, classes: int, chance_pct: float
) -> Fit | None:
    """What would fit better than `found`, the outcome of `split` as it is; None where nothing does beyond chance.

    `classes` is how many the network tells apart.
    """
    best = max(_tries(model, split, size, found, classes), key=lambda fit: fit.low_pct, default=None)
    high_pct = interval_pct(found.accuracy_pct, len(found))[1]
    enough_pct = chance_pct + _ENOUGH * (100 - chance_pct)
    return best if best is not None and best.low_pct > max(high_pct, enough_pct) else None


def _tries(model: nn.Module, split: Split, size: tuple[int, int], found: Outcome, classes: int) -> Iterator[Fit]:
    orders = _orders(classes)
    yield from _by_order(found, "", orders)
    matched = _matched(found.said, found.labels)
    if matched is not None:
        yield matched
    few = split.take(SCREENED).kept()
    shown = dict(_pixels(model, few, size))
    screened = {}
    for text, network in shown.items():
        fits = _by_order(outcome(network, few, size), text, orders)
        screened[text] = max(fit.accuracy_pct for fit in fits)
    best = max(screened, key=lambda text: screened[text])
    yield from _by_order(outcome(shown[best], split, size), best, orders)


def _pixels(model: nn.Module, split: Split, size: tuple[int, int]) -> Iterator[tuple[str, nn.Module]]:
    """The network under every known normalisation, and with the channels turned round, each in words."""
    given = split.normalisation
    channels = len(given.mean)
    wanted = {f"`normalisation={name!r}`": parse_normalisation(name, channels) for name in NORMALISATIONS}
    own = _own_figures(split, size)
    wanted |= {f"`normalisation={own.text!r}`": own}
    for text, figures in {"": given, **wanted}.items():
        if len(figures.mean) != channels or min(figures.std) <= 0 or (text and figures == given):
            continue
        if text:
            yield f"with {text}", Repixelled(model, given, figures, is_bgr=False)
        if channels == 3:
            also = f"with {text} and " if text else "with "
            yield f"{also}the channels as BGR", Repixelled(model, given, figures, is_bgr=True)


def _own_figures(split: Split, size: tuple[int, int]) -> Normalisation:
    """Mean and standard deviation of the images themselves, to four digits."""
    given = split.normalisation
    x = split.inputs(size)
    mean, std = (each.double().tolist() for each in (x.mean((0, 2, 3)), x.std((0, 2, 3))))
    means = tuple(round(m * s + g, 4) for m, s, g in zip(mean, given.std, given.mean, strict=True))
    return Normalisation(means, tuple(round(s * g, 4) for s, g in zip(std, given.std, strict=True)))


Orders = list[tuple[str, Callable[[Tensor], Tensor]]]


def _orders(classes: int) -> Orders:
    """Ways to number classes: each in words, and which label a class that the network says then means."""
    as_text = sorted(range(classes), key=str)
    by_text = torch.tensor(as_text)
    by_number = torch.empty_like(by_text)
    by_number[by_text] = torch.arange(classes)
    orders: Orders = [
        ("", lambda said: said),
        ("its classes numbered from 1 (a background class first, as in 1001-class networks)", lambda said: said - 1),
        (
            "its classes numbered one lower (the data's first class is one that the network has not)",
            lambda said: said + 1,
        ),
    ]
    if as_text != sorted(as_text):
        orders += [
            ("its classes sorted as text (0, 1, 10, 11, ...) and the data's by number", lambda said: by_text[said]),
            (
                "the data's classes sorted as text (0, 1, 10, 11, ...) and its own by number",
                lambda said: by_number[said],
            ),
        ]
    return orders


def _by_order(found: Outcome, pixels: str, orders: Orders) -> Iterator[Fit]:
    """A fit for each order of classes, but for everything as it is."""
    for order, meant in orders:
        if pixels or order:
            right_pct = 100 * int((meant(found.said) == found.labels).sum()) / len(found)
            taken = f"with {order}" if order else ""
            yield Fit(right_pct, len(found), " and ".join(filter(None, (pixels, taken))))


def _matched(said: Tensor, labels: Tensor) -> Fit | None:
    """The order of the classes that fits best: found on each half of the images, it is tried on the other.

    An order that was fitted to the very images that it is judged by would always look good. None for too few images.
    """
    if len(labels) < _A_CLASS * len(labels.unique()):
        return None
    half, right = _halves(labels), 0
    for is_first in (True, False):
        meant = _assigned(said[half == is_first], labels[half == is_first])
        pairs = zip(said[half != is_first].tolist(), labels[half != is_first].tolist(), strict=True)
        right += sum(meant.get(one) == label for one, label in pairs)
    renumbered = [(label, one) for one, label in _assigned(said, labels).items() if one != label]
    shown = ", ".join(f"{one} for {label}" for label, one in sorted(renumbered)[:_SHOWN])
    more = ", ..." if len(renumbered) > _SHOWN else ""
    text = f"with its classes renumbered ({shown}{more}; folders are sorted by name)"
    return Fit(100 * right / len(labels), len(labels), text)


def _halves(labels: Tensor) -> Tensor:
    """Every other image of each label, bool [N]."""
    by_label = labels.argsort(stable=True)
    first = torch.searchsorted(labels[by_label], labels[by_label])
    half = torch.empty_like(labels, dtype=torch.bool)
    half[by_label] = (torch.arange(len(labels), device=labels.device) - first) % 2 == 0
    return half


def _assigned(said: Tensor, labels: Tensor) -> dict[int, int]:
    """Which label each class that is said then means, so that as many images as can be are right (Hungarian method)."""
    from scipy.optimize import linear_sum_assignment

    classes = int(max(labels.max(), said.max())) + 1
    together = torch.bincount(said * classes + labels, minlength=classes**2).view(classes, classes)
    rows, columns = linear_sum_assignment(together.numpy(), maximize=True)
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return {one: label for one, label in pairs if together[one, label]}
