"""Accuracy and loss of logits, by arithmetic and by PyTorch's own functions."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from amc_latency.data.logits import classes_of, correct, labels_of, loss_of
from amc_latency.training.outcome import outcome_of

LOGITS = torch.tensor([[2.0], [-1.0], [0.0], [0.5]])
LABELS = torch.tensor([1, 1, 0, 0])


def test_one_output_says_1_above_0() -> None:
    assert classes_of(1) == 2
    assert labels_of(LOGITS).tolist() == [1, 0, 0, 1]
    assert labels_of(LOGITS).dtype == torch.int64
    assert correct(LOGITS, LABELS) == 2


def test_one_outputs_loss_is_binary_cross_entropy() -> None:
    by_hand = [math.log1p(math.exp(-2)), math.log1p(math.e), math.log(2), math.log1p(math.exp(0.5))]
    assert float(loss_of(LOGITS, LABELS, "sum")) == pytest.approx(sum(by_hand), rel=1e-6)
    assert float(loss_of(LOGITS, LABELS)) == pytest.approx(sum(by_hand) / 4, rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_one_output_is_worth_what_two_with_a_constant_one_are(smoothing: float) -> None:
    # The sigmoid of x is the softmax of (0, x): every figure must be that of the two outputs, slopes included.
    torch.manual_seed(0)
    for _ in range(20):
        one = torch.randn(30, 1, dtype=torch.float64, requires_grad=True)
        labels = torch.randint(0, 2, (30,))
        two = torch.cat([torch.zeros_like(one), one], 1)
        assert labels_of(one).tolist() == labels_of(two).tolist()
        losses = [loss_of(logits, labels, label_smoothing=smoothing) for logits in (one, two)]
        torch.testing.assert_close(losses[0], losses[1])
        slopes = [torch.autograd.grad(loss, one, retain_graph=True)[0] for loss in losses]
        torch.testing.assert_close(slopes[0], slopes[1])


def test_two_outputs_and_more_are_as_pytorch_has_them_to_the_bit() -> None:
    torch.manual_seed(0)
    for classes in (2, 3, 10):
        logits, labels = torch.randn(50, classes), torch.randint(0, classes, (50,))
        assert classes_of(classes) == classes
        assert torch.equal(labels_of(logits), logits.argmax(1))
        assert correct(logits, labels) == int((logits.argmax(1) == labels).sum())
        for reduction in ("sum", "mean"):
            expected = functional.cross_entropy(logits, labels, reduction=reduction)
            assert torch.equal(loss_of(logits, labels, reduction), expected)
        assert torch.equal(
            loss_of(logits, labels, label_smoothing=0.05),
            functional.cross_entropy(logits, labels, label_smoothing=0.05),
        )


@pytest.mark.parametrize("label", [-1, 2, 7])
def test_a_label_that_one_output_cannot_mean_is_refused(label: int) -> None:
    with pytest.raises(ValueError, match="label 0 from label 1"):
        loss_of(LOGITS, torch.tensor([0, 1, label, 0]))


@pytest.mark.parametrize("outputs", [1, 2, 12])
def test_a_network_that_says_nan_is_never_right(outputs: int) -> None:
    logits, labels = torch.zeros(3, outputs), torch.zeros(3, dtype=torch.long)
    logits[1, -1] = logits[2] = math.nan
    assert correct(logits, labels) == 1
    assert outcome_of([(logits, labels)]).right.tolist() == [True, False, False]


def test_shares_of_classes_are_labels_too() -> None:
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    # Of the first three classes alone: the others are told apart, and never meant.
    whole = functional.one_hot(labels, 3).float()
    for smoothing in (0.0, 0.1):
        assert loss_of(logits, whole, label_smoothing=smoothing) == pytest.approx(
            float(loss_of(logits, labels, label_smoothing=smoothing))
        )
    half = 0.5 * whole + 0.5 * whole.roll(1, 0)
    expected = (loss_of(logits, labels) + loss_of(logits, labels.roll(1))) / 2
    torch.testing.assert_close(loss_of(logits, half), expected)
    assert correct(logits, whole) == correct(logits, labels)
    one = logits[:, :1]
    binary = torch.tensor([0, 1, 1, 0, 1, 0])
    torch.testing.assert_close(loss_of(one, functional.one_hot(binary, 2).float()), loss_of(one, binary))
    assert correct(one, functional.one_hot(binary, 2).float()) == correct(one, binary)
    with pytest.raises(ValueError, match="3 classes for 2 outputs"):
        loss_of(logits[:, :2], whole)
