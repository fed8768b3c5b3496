"""Ranking of channels, on weights small enough to sum by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from amc_latency.graph.trace import trace
from amc_latency.prune.rank import consumer_l1, keep_indices


def test_importance_is_the_weight_that_reads_a_channel() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 2, bias=False), nn.Flatten(), nn.Linear(8, 1))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([1.0, -2.0, 3.0, 4.0, 0, 0, 0, -1, 5, 0, 0, 0, 0, 1, 1, 0]).view(2, 2, 2, 2))
        model[3].weight.copy_(torch.tensor([[1.0, 2, 3, 4, -5, -6, -7, -8]]))
    first, second = consumer_l1(model, trace(model, (1, 3, 3)))
    assert first.tolist() == [1 + 2 + 3 + 4 + 5, 1 + 1 + 1]
    assert second.tolist() == [1 + 2 + 3 + 4, 5 + 6 + 7 + 8]  # two 2x2 maps flattened


def test_importance_sums_over_all_consumers() -> None:
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.left, self.right = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 1, 1), nn.Conv2d(2, 1, 1)
            self.flatten = nn.Flatten()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            return self.flatten(self.left(x) + self.right(x))

    model = Fork()
    with torch.no_grad():
        model.left.weight.copy_(torch.tensor([1.0, -2.0]).view(1, 2, 1, 1))
        model.right.weight.copy_(torch.tensor([-10.0, 20.0]).view(1, 2, 1, 1))
    assert [i.tolist() for i in consumer_l1(model, trace(model, (1, 1, 1)))] == [[11, 22]]


def test_the_most_important_stay_in_ascending_order() -> None:
    assert keep_indices(torch.tensor([1.0, 9.0, 3.0, 7.0]), 2).tolist() == [1, 3]


def test_of_equals_the_lower_index_stays() -> None:
    assert keep_indices(torch.tensor([5.0, 1.0, 5.0, 5.0, 9.0]), 3).tolist() == [0, 2, 4]
    assert keep_indices(torch.ones(1000), 400).tolist() == list(range(400))


@pytest.mark.parametrize("count", [0, 3])
def test_an_impossible_count_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"can't keep {count} of 2 channels"):
        keep_indices(torch.ones(2), count)
