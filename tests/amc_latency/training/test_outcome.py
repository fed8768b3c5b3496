"""Top-1, top-5 and loss, image by image, against torch.topk and torch's own mean."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from amc_latency.data import InMemory
from amc_latency.pixels import Normalisation
from amc_latency.training.outcome import accuracy_line, among_first, outcome, outcome_of


@pytest.mark.parametrize("classes", [11, 37, 1000])
def test_top_5_is_what_topk_says(classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(300, classes, generator=generator)
    labels = torch.randint(0, classes, (300,), generator=generator)
    found = outcome_of(zip(logits.split(70), labels.split(70), strict=True))
    expected = (logits.topk(5).indices == labels[:, None]).any(1)
    assert found.top5 is not None
    assert torch.equal(found.top5, expected)
    assert found.top5_pct == pytest.approx(100 * float(expected.float().mean()))
    assert torch.equal(found.right, logits.argmax(1) == labels)
    assert torch.equal(among_first(logits, labels, 1), found.right)
    assert torch.equal(found.labels, labels)
    assert found.loss == pytest.approx(float(functional.cross_entropy(logits, labels)), rel=1e-5)


def test_ten_classes_have_no_top_5() -> None:
    found = outcome_of([(torch.eye(10), torch.arange(10))])
    assert (found.accuracy_pct, found.top5, found.top5_pct) == (100, None, None)
    assert "top-5" not in accuracy_line(found)


def test_what_is_no_number_is_not_among_the_first() -> None:
    labels = torch.zeros(1, dtype=torch.int64)
    assert not bool(among_first(torch.full((1, 12), torch.nan), labels))
    own = torch.full((1, 12), torch.nan).index_fill(1, labels, 1.0)
    assert not bool(among_first(own, labels))


def test_of_equal_logits_the_first_five_are_first() -> None:
    assert among_first(torch.zeros(12, 12), torch.arange(12)).tolist() == [True] * 5 + [False] * 7


def test_a_network_is_asked_about_every_image() -> None:
    class Mean(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return functional.one_hot((x.mean((1, 2, 3)) * 255).round().long(), 12).float()

    labels = torch.arange(7)
    images = labels.to(torch.uint8)[:, None, None, None].expand(-1, 1, 8, 8)
    split = InMemory(images, labels.where(labels != 3, 11), Normalisation((0.0,), (1.0,)))
    found = outcome(Mean(), split, (8, 8), batch_size=3)
    assert found.said.tolist() == list(range(7))
    assert found.right.tolist() == [True] * 3 + [False] + [True] * 3
    # Class 3 first, then 0, 1, 2 and 4, which are equal: 11 is not among them.
    assert found.top5 is not None
    assert found.top5.tolist() == found.right.tolist()
    # 6 of 7 by Wilson: 48.7 to 97.4.
    assert accuracy_line(found) == (
        "before anything is done the network gets 6 of 7 held-back images right: 85.71 % (95 % between 48.7 and 97.4), "
        "top-5 85.71 %"
    )
