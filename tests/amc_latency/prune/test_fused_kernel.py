"""The fused convolution, whose kernel is private to PyTorch, against PyTorch's own at random shapes."""

from __future__ import annotations

import os
import random

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from amc_latency.closeness import close
from amc_latency.prune.fused import _packed, is_miscomputed

CASES = int(os.environ.get("FUSED_KERNEL_CASES", "200"))
ACTIVATIONS = {"none": lambda x: x, "relu": torch.relu, "relu6": functional.relu6}


def convolution(rng: random.Random) -> tuple[nn.Conv2d, Tensor] | None:
    """A convolution and its input; every other one as large as its map. None where they don't fit."""
    kernel = (rng.choice([1, 2, 3, 5, 7, 8]), rng.choice([1, 2, 3, 5, 7, 8]))
    size = kernel if rng.random() < 0.5 else (rng.choice([3, 4, 7, 8, 14]), rng.choice([3, 4, 7, 8, 14]))
    stride, padding, dilation = rng.choice([1, 1, 2, 3]), rng.choice([0, 0, 1, 2]), rng.choice([1, 1, 2])
    groups = rng.choice([1, 1, 1, 2, 12])
    c_in, c_out = (12, 12) if groups == 12 else (2 * rng.choice([1, 3, 8, 16]), groups * rng.choice([1, 1, 2, 8, 17]))
    windows = [dilation * (k - 1) + 1 for k in kernel]
    # PyTorch's own kernel crashes too where a window lies in the padding altogether.
    if any(s + 2 * padding < w or padding >= w for s, w in zip(size, windows, strict=True)):
        return None
    conv = nn.Conv2d(c_in, c_out, kernel, stride, padding, dilation, groups, bias=rng.random() < 0.7)
    x = torch.randn(rng.choice([1, 2, 5, 20]), c_in, *size)
    return conv, x.contiguous(memory_format=rng.choice([torch.channels_last, torch.contiguous_format]))


@torch.no_grad()
def test_a_fused_convolution_is_pytorchs_in_float64() -> None:
    torch.manual_seed(0)
    rng, tried = random.Random(0), 0
    while tried < CASES:
        if (drawn := convolution(rng)) is None:
            continue
        conv, x = drawn
        tried += 1
        name = rng.choice(list(ACTIVATIONS))
        got = _packed(conv, conv.weight, conv.bias, name, x)(x)
        expected = ACTIVATIONS[name](conv.double()(x.double()))
        assert close(got, expected, 1e-4), (conv, name, x.shape, x.stride())


@pytest.mark.parametrize(
    ("conv", "size", "is_wrong"),
    [
        (nn.Conv2d(16, 1, 8), 8, True),
        (nn.Conv2d(16, 1, 6), 6, True),
        (nn.Conv2d(16, 1, 4, dilation=2), 7, True),  # 7 = 2 * 3 + 1
        (nn.Conv2d(16, 1, 8, padding=1), 6, True),
        (nn.Conv2d(16, 2, 8), 8, False),
        (nn.Conv2d(16, 1, 8), 9, False),
        (nn.Conv2d(16, 16, 8, groups=16), 8, False),
        (nn.Conv2d(16, 8, 1, 2, 1), 8, True),  # the first window is of padding alone
        (nn.Conv2d(16, 8, 3, 2, 1), 8, False),
    ],
)
def test_shapes_that_the_kernel_is_wrong_for_are_left_to_pytorch(conv: nn.Conv2d, size: int, is_wrong: bool) -> None:
    x = torch.randn(2, 16, size, size)
    assert is_miscomputed(conv, x) is is_wrong
    packed = _packed(conv, conv.weight.detach(), conv.bias, "none", x)
    assert not (is_wrong and packed.weight.is_mkldnn)
    with torch.no_grad():
        assert close(
            packed(x),
            functional.conv2d(
                x.double(),
                conv.weight.double(),
                conv.bias.double(),
                conv.stride,
                conv.padding,
                conv.dilation,
                conv.groups,
            ),
            1e-4,
        )
