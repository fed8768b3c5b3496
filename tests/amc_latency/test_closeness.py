"""What counts as the same outputs: a share of their range, and something for a sum that comes out near 0."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from amc_latency.closeness import ABSOLUTE, allowed, close, difference, output_range


def test_a_share_of_the_range_with_0_counted_in_and_an_absolute_figure() -> None:
    assert output_range(torch.tensor([[2.0, 5.0]])) == 5
    assert output_range(np.array([-2.0, 5.0])) == 7
    assert output_range(torch.tensor([-3.0])) == 3
    assert allowed(torch.tensor([[-2.0, 5.0]]), 0.01, 0.5) == pytest.approx(0.07 + 0.5)
    assert allowed(torch.zeros(1), 0.01) == ABSOLUTE


def test_one_number_may_be_off_by_rounding_whatever_it_is() -> None:
    for value in (0.0, 1e-4, 0.3, -70.0):
        expected = torch.tensor([[value]])
        assert close(expected + 1e-6, expected, 1e-4)
        assert close(np.array([[value + 1e-6]]), expected, 1e-4)
        assert not close(expected + 0.01, expected, 1e-5)


def test_what_is_no_number_or_of_another_shape_is_never_close() -> None:
    numbers = torch.tensor([1.0, 2.0])
    for odd in (math.nan, math.inf):
        other = torch.tensor([1.0, odd])
        assert not close(numbers, other, 1.0)
        assert not close(other, numbers, 1.0)
        assert not close(other, other, 1.0)
        assert math.isnan(allowed(other, 1.0))
    assert not close(numbers[None], numbers, 1.0)
    assert difference(torch.tensor([1.0, 4.0]), numbers) == 2
