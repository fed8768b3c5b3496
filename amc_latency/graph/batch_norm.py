"""What a batch norm in eval mode is: a factor and a summand for each channel, which a layer before it can take up."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def scale_and_shift(
    norm: Any, mean: Tensor | None = None, variance: Tensor | None = None, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """What `norm` multiplies by and adds, [channels] each, with these statistics, or else its own.

    In `dtype`, its own unless set. Raises ValueError for a norm that keeps no statistics and is given none.
    """
    mean = norm.running_mean if mean is None else mean
    variance = norm.running_var if variance is None else variance
    if mean is None or variance is None:
        raise ValueError("a batch norm without running statistics is another factor for each batch")
    mean, variance = mean.to(dtype or mean.dtype), variance.to(dtype or variance.dtype)
    scale = torch.rsqrt(variance + norm.eps)
    if norm.weight is not None:
        scale = norm.weight.to(scale.dtype) * scale
    shift = -mean * scale if norm.bias is None else norm.bias.to(scale.dtype) - mean * scale
    return scale, shift
