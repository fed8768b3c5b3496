"""A batch norm as a factor and a summand: against PyTorch's own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from amc_latency.graph.batch_norm import scale_and_shift


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_it_is_what_pytorch_computes(affine: bool, dtype: torch.dtype | None) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(5, affine=affine)
    for tensor in (norm.running_mean, norm.running_var, *norm.parameters()):
        tensor.data = torch.rand(5) + 0.5
    x = torch.randn(2, 5, 3, 3)
    scale, shift = scale_and_shift(norm, dtype=dtype)
    assert scale.dtype == (dtype or torch.float32)
    ours = x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)
    assert torch.allclose(ours.float(), norm.eval()(x), atol=1e-6)


def test_other_statistics_take_the_place_of_its_own() -> None:
    norm = nn.BatchNorm1d(2, eps=0.0)
    # (x - 3) / 2 and (x - 5) / 4
    scale, shift = scale_and_shift(norm, torch.tensor([3.0, 5.0]), torch.tensor([4.0, 16.0]))
    assert scale.tolist() == [0.5, 0.25]
    assert shift.tolist() == [-1.5, -1.25]
    with pytest.raises(ValueError, match="without running statistics"):
        scale_and_shift(nn.BatchNorm1d(2, track_running_stats=False))
