"""A network's code as a graph: what is traced, and where it can't be."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from amc_latency.graph.tracing import EXAMPLE_READ, UntraceableError, symbolic


class Gate(nn.Module):
    """Looks at the values that pass."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class AsksForSizes(nn.Module):
    """Pads and splits by what it is given, and has a second argument."""

    def forward(self, x: Tensor, scale: float = 2.0) -> Tensor:
        batch, channels, height, width = x.size()
        if height % 2:
            x = nn.functional.pad(x, [0, 0, 0, 1])
        left, right = x.chunk(2, dim=1)
        assert left.dim() == 4
        assert x.shape[3] == width
        return (scale * left + right).reshape(batch, channels // 2, -1)


class Grows(nn.Module):
    """Goes on filling a list that it has handed out, and asks for a size at last."""

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for _ in range(3):
            features.append(torch.cat(features, 1))
        return features[-1] * features[-1].shape[1]


def test_where_code_looks_at_values_is_said() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(Gate()))
    with pytest.raises(UntraceableError) as error:
        symbolic(model)
    line = Gate.forward.__code__.co_firstlineno + 1
    assert f"test_tracing.py:{line}, in 1.0 (Gate): " in str(error.value)
    assert "control flow" in str(error.value)


@pytest.mark.parametrize("height", [5, 6])
def test_sizes_are_numbers_but_for_the_batch(height: int) -> None:
    model = AsksForSizes()
    traced = symbolic(model, torch.empty(65521, 4, height, 3, device="meta"))
    assert traced.meta[EXAMPLE_READ]
    for batch in (1, 3):
        x = torch.randn(batch, 4, height, 3)
        assert torch.equal(traced(x), model(x))


def test_what_is_handed_out_is_what_it_was_then() -> None:
    traced = symbolic(Grows(), torch.empty(65521, 2, 3, 3, device="meta"))
    # 2, then 2, 2 + 2 and 2 + 2 + 4 channels.
    assert traced(torch.ones(1, 2, 3, 3)).unique().tolist() == [8.0]


def test_without_an_example_sizes_stay_open() -> None:
    with pytest.raises(UntraceableError, match="control flow"):
        symbolic(AsksForSizes())


def test_what_asks_for_no_size_is_traced_as_it_is() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten()).eval()
    traced = symbolic(model, torch.empty(65521, 3, 8, 8, device="meta"))
    assert [node.target for node in traced.graph.nodes] == ["input", "0", "1", "2", "output"]
    assert not traced.meta[EXAMPLE_READ]
    assert not traced.training
