"""Shapes of convolutions and pools, against the sizes that PyTorch's own modules make."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import fx, nn

from amc_latency.errors import UserError
from amc_latency.graph.kinds import pools
from amc_latency.graph.kinds.convolutions import conv_shape
from amc_latency.graph.kinds.pools import pool_shape
from amc_latency.graph.layers import layer_shapes
from amc_latency.graph.layers.layer_shapes import NO_PAD, single, zeros_of

sizes = st.integers(1, 24)


def made(module: nn.Module, channels: int, height: int, width: int, pad: tuple[int, int] = NO_PAD) -> tuple[int, ...]:
    """What PyTorch makes of an input with `pad` zeros around it; skips the example if it refuses."""
    start, end = pad
    x = torch.empty(1, channels, 2 * start + end + height, 2 * start + end + width, device="meta")
    try:
        return tuple(module(x).shape[1:])
    except RuntimeError:
        assume(False)
        raise


@given(
    sizes,
    sizes,
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(0, 3),
    st.integers(1, 3),
    st.sampled_from(["conv", "depthwise", "grouped"]),
    st.tuples(st.integers(0, 2), st.integers(0, 1)),
)
@settings(max_examples=150, deadline=None)
def test_a_convolution_makes_what_pytorch_says(
    h: int, w: int, kernel: int, stride: int, padding: int, dilation: int, kind: str, pad: tuple[int, int]
) -> None:
    reach = dilation * (kernel - 1) + 1
    assume(max(padding + pad[0], pad[1]) < reach)
    groups = {"conv": 1, "depthwise": 8, "grouped": 2}[kind]
    conv = nn.Conv2d(8, 8, kernel, stride, padding, dilation, groups, device="meta")
    expected = made(conv, 8, h, w, pad)
    shape = conv_shape("conv", conv, (8, h, w), pad)
    assert (shape.kind, shape.c_out, shape.h_out, shape.w_out) == (kind, *expected)
    assert shape.params == sum(p.numel() for p in conv.parameters())
    assert shape.per_group == (4 if kind == "grouped" else 0)


@given(sizes, sizes, st.integers(1, 6), st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_padding_same_makes_as_many_pixels_as_it_gets(h: int, w: int, kernel: int, dilation: int) -> None:
    conv = nn.Conv2d(3, 4, kernel, padding="same", dilation=dilation, device="meta")
    shape = conv_shape("conv", conv, (3, h, w), NO_PAD)
    assert (shape.h_out, shape.w_out) == (h, w)
    left, right, top, bottom = conv._reversed_padding_repeated_twice
    assert (shape.padding, shape.padding + shape.end) == (left, right) == (top, bottom)


@given(sizes, st.integers(1, 5), st.integers(1, 4), st.integers(0, 2), st.booleans(), st.sampled_from(["max", "avg"]))
@settings(max_examples=300, deadline=None)
def test_a_pool_makes_what_pytorch_says(
    size: int, kernel: int, stride: int, padding: int, ceil_mode: bool, kind: str
) -> None:
    assume(2 * padding <= kernel)
    pool = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}[kind]
    module = pool(kernel, stride, padding, ceil_mode=ceil_mode)
    expected = made(module, 2, size, size)
    is_longer = expected != made(pool(kernel, stride, padding), 2, size, size)
    if is_longer and padding and kind == "avg":
        # PyTorch counts the padding's zeros in the mean, but not what lies beyond them.
        with pytest.raises(UserError, match=r"^pool: ceil_mode is not supported here"):
            pool_shape("pool", module, (2, size, size), expected, NO_PAD)
        return
    shape = pool_shape("pool", module, (2, size, size), expected, NO_PAD)
    assert (shape.c_out, shape.h_out, shape.w_out) == expected
    assert (shape.end > 0) == is_longer


def test_ceil_mode_of_a_height_and_a_width_that_differ_is_refused() -> None:
    with pytest.raises(UserError, match=r"^pool: ceil_mode is not supported here"):
        pool_shape("pool", nn.MaxPool2d(2, ceil_mode=True), (2, 5, 6), (2, 3, 3), NO_PAD)


@pytest.mark.parametrize(
    ("sides", "pad"),
    [(2, (2, 0)), ((1, 1, 1, 1), (1, 0)), ((0, 1, 0, 1), (0, 1)), ((1, 3, 1, 3), (1, 2)), ((0, 0), (0, 0))],
)
def test_zeros_on_four_sides(sides: Any, pad: tuple[int, int]) -> None:
    assert zeros_of("pad", sides, 0.0) == pad


@pytest.mark.parametrize(
    ("sides", "value"),
    [
        ((1, 0, 1, 0), 0.0),
        ((0, 1, 0, 0), 0.0),
        ((1, 1), 0.0),
        ((-1, 1, -1, 1), 0.0),
        ((1, 1, 1, 1, 0, 1), 0.0),
        (1, 1.0),
    ],
)
def test_other_sides_are_refused(sides: Any, value: float) -> None:
    with pytest.raises(UserError, match=r"^pad: pads by "):
        zeros_of("pad", sides, value)


def test_one_number_for_height_and_width() -> None:
    assert single("conv", "stride", (2, 2)) == single("conv", "stride", 2) == 2
    for wrong in ((1, 2), "same"):
        with pytest.raises(UserError, match=r"^conv: stride .* must be one number"):
            single("conv", "stride", wrong)


def test_arguments_go_by_place_or_by_name() -> None:
    graph = fx.Graph()
    node = graph.call_function(nn.functional.max_pool2d, (graph.placeholder("x"), 3), {"ceil_mode": True, "other": 1})
    assert layer_shapes.settings(node, pools.MAX_POOL_ARGUMENTS) == {"kernel_size": 3, "ceil_mode": True}
