"""Networks at chance for a known cause: the cause is named, with what the network gets right without it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from amc_latency.data import InMemory
from amc_latency.pixels import NORMALISATIONS, Normalisation, parse_normalisation
from amc_latency.training.causes import Fit, fitting
from amc_latency.training.outcome import outcome

LABELS = torch.arange(240) % 12


class FirstChannel(nn.Module):
    """Says of [N, C, H, W] which of 12 levels the first channel has, if pixels are normalised by `own`; else class 0.

    `order` is the class that it says of each level.
    """

    def __init__(self, own: Normalisation, order: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.own, self.order = own, order

    def forward(self, x: Tensor) -> Tensor:
        level = (x[:, 0].mean((1, 2)) * self.own.std[0] + self.own.mean[0]) * 255 / 20
        told = level.round().long()
        told = told.where((told >= 0) & (told < 12) & ((level - told).abs() < 0.1), 0)
        return nn.functional.one_hot(self.order[told], 14).float()


def found(
    shown: Normalisation,
    own: Normalisation | None = None,
    order: Tensor | None = None,
    channels: int = 3,
    is_bgr: bool = False,
    labels: Tensor = LABELS,
) -> Fit | None:
    """What fits a network that expects `own`, and gives its classes in `order`, shown images normalised by `shown`."""
    images = torch.full((len(LABELS), channels, 4, 4), 77, dtype=torch.uint8)
    images[:, channels - 1 if is_bgr else 0] = (20 * LABELS).to(torch.uint8)[:, None, None]
    split = InMemory(images, labels, shown)
    network = FirstChannel(own or shown, torch.arange(12) if order is None else order)
    before = outcome(network, split, (4, 4))
    return fitting(network, split, (4, 4), before, classes=14, chance_pct=100 / 12)


@pytest.mark.parametrize("name", ["imagenet", "half", "raw", "cifar100"])
def test_another_normalisation_is_found(name: str) -> None:
    shown = parse_normalisation("none", 3)
    fit = found(shown, own=parse_normalisation(name, 3))
    assert fit is not None
    assert (fit.text, fit.accuracy_pct, fit.images) == (f"with `normalisation={name!r}`", 100, 240)


def test_a_grey_network_is_not_tried_in_colours() -> None:
    fit = found(parse_normalisation("none", 1), own=parse_normalisation("half", 1), channels=1)
    assert fit is not None
    assert fit.text == "with `normalisation='half'`"


def test_bgr_is_found_alone_and_with_another_normalisation() -> None:
    shown = parse_normalisation("none", 3)
    fit = found(shown, is_bgr=True)
    assert fit is not None
    assert (fit.text, fit.accuracy_pct) == ("with the channels as BGR", 100)
    fit = found(shown, own=parse_normalisation("raw", 3), is_bgr=True)
    assert fit is not None
    assert fit.text == "with `normalisation='raw'` and the channels as BGR"


def test_the_images_own_figures_are_tried_too() -> None:
    shown = parse_normalisation("raw", 1)
    # Of the 200 images that are looked at first.
    levels = LABELS[:200] * 20 / 255
    mean, std = round(float(levels.mean()), 4), round(float(levels.std(correction=0)), 3)
    fit = found(shown, own=Normalisation((mean,), (std,)), channels=1)
    assert fit is not None
    assert fit.text.startswith(f"with `normalisation='{mean}/{std}")
    assert fit.accuracy_pct == 100


def test_a_background_class_before_all_others_is_found() -> None:
    fit = found(parse_normalisation("none", 3), order=torch.arange(12) + 1)
    assert fit is not None
    assert fit.text.startswith("with its classes numbered from 1 (a background class first")
    assert fit.accuracy_pct == 100


def test_classes_sorted_as_text_are_found() -> None:
    # Folders 0 to 13 as their names sort: 0, 1, 10, 11, 12, 13, 2, ...
    as_text = sorted(range(14), key=str)
    labels = torch.tensor([as_text.index(label) for label in LABELS.tolist()])
    fit = found(parse_normalisation("none", 3), labels=labels)
    assert fit is not None
    assert fit.text.startswith("with the data's classes sorted as text")
    assert fit.accuracy_pct == 100
    back = found(parse_normalisation("none", 3), order=torch.tensor([as_text.index(i) for i in range(12)]))
    assert back is not None
    assert back.text.startswith("with its classes sorted as text")


def test_any_other_order_is_found_and_a_mistake_is_counted_by_images_that_it_was_not_made_from() -> None:
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    fit = found(parse_normalisation("none", 3), order=order)
    assert fit is not None
    assert fit.text.startswith(f"with its classes renumbered ({order[0]} for 0, ")
    assert fit.accuracy_pct == 100


@pytest.mark.parametrize("seed", range(5))
def test_answers_that_have_nothing_to_do_with_the_images_fit_nothing(seed: int) -> None:
    labels = LABELS[torch.randperm(240, generator=torch.Generator().manual_seed(seed))]
    assert found(parse_normalisation("none", 3), labels=labels) is None


def test_two_classes_the_other_way_round_are_found() -> None:
    labels = LABELS % 2
    images = labels.to(torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4)
    split = InMemory(images, labels, Normalisation((0.0,), (1.0,)))

    class Reversed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.one_hot(1 - (x[:, 0, 0, 0] > 0).long(), 2).float()

    network = Reversed()
    before = outcome(network, split, (4, 4))
    fit = fitting(network, split, (4, 4), before, classes=2, chance_pct=50.0)
    assert before.accuracy_pct == 0
    assert fit is not None
    assert (fit.text, fit.accuracy_pct) == (
        "with its classes renumbered (1 for 0, 0 for 1; folders are sorted by name)",
        100,
    )


@pytest.mark.parametrize("name", [name for name in NORMALISATIONS if name not in ("none", "fashion_mnist")])
def test_every_known_normalisation_is_tried(name: str) -> None:
    fit = found(parse_normalisation("none", 3), own=parse_normalisation(name, 3))
    assert fit is not None
    assert fit.accuracy_pct == 100
