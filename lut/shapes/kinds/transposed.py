"""Transposed convolutions: each pixel in adds its own patch to the output, as in a decoder that enlarges.

Output padding, PyTorch's word for rows at the bottom and columns on the right that few patches reach, is `end`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amc_latency.lut.shapes.kind import Extra, Kind, Log, Work, Writing
from amc_latency.lut.shapes.kinds.convolutions import any_sign
from amc_latency.lut.shapes.work import product

if TYPE_CHECKING:
    from amc_latency.lut.shapes.shape import LayerShape


def _output(shape: LayerShape, size: int, kernel: int, padding: int) -> int:
    """PyTorch's formula: `(n - 1) s - 2p + k + output padding`."""
    return (size - 1) * shape.stride - 2 * padding + kernel + shape.end


def _fits(shape: LayerShape) -> str | None:
    if shape.dilation != 1:
        return "a transposed convolution has no dilation"
    if shape.end >= shape.stride and shape.end:
        return "a transposed convolution's output padding is smaller than its stride"
    if any(padding >= kernel for padding, kernel in zip(shape.padding_hw, shape.kernel_hw, strict=True)):
        return "padding must be smaller than the kernel"
    if min(shape.h_out, shape.w_out) < 1:
        return "the padding leaves nothing of the output"
    return None


def _is_same(shape: LayerShape) -> bool:
    """Whether TFLite's SAME leaves out just the rows and columns that PyTorch does.

    SAME wants `ceil(out / s)` pixels in, and leaves out what is over: the smaller half, rounded down, at the start.
    XNNPACK takes it only where patches leave no gaps.
    """
    sides = zip((shape.h, shape.w), (shape.h_out, shape.w_out), shape.kernel_hw, shape.padding_hw, strict=True)
    for size, out, kernel, padding in sides:
        over = max(0, (size - 1) * shape.stride + kernel - out)
        if kernel < shape.stride or -(-out // shape.stride) != size or over // 2 != padding:
            return False
    return True


def _is_cropped(shape: LayerShape) -> bool:
    """Whether the whole sum of patches is made, and a SLICE takes what is not padding."""
    return any(shape.padding_hw) and not _is_same(shape)


def _write(to: Writing) -> int:
    graph, shape = to.graph, to.shape
    weight, bias = to.constants
    out = (1, shape.h_out, shape.w_out, shape.c_out)
    made, starts = out, (0, *shape.padding_hw, 0)
    if _is_cropped(shape):
        sides = zip((shape.h, shape.w), shape.kernel_hw, shape.padding_hw, strict=True)
        # Output padding may reach beyond all patches: there the bias stands alone.
        h, w = ((size - 1) * shape.stride + kernel + max(0, shape.end - padding) for size, kernel, padding in sides)
        made = (1, h, w, shape.c_out)
    whole = graph.operator(
        "TRANSPOSE_CONV",
        [graph.sizes("output_shape", made), graph.constant("weight", weight), to.x, graph.constant("bias", bias)],
        made,
        "TransposeConvOptions",
        # It has a bias since version 3, and an activation since 4; an older runtime would leave out what it can't do.
        version=3 if shape.activation == "none" else 4,
        padding="SAME" if any(shape.padding_hw) and made == out else "VALID",
        strideH=shape.stride,
        strideW=shape.stride,
        fusedActivationFunction=shape.activation,
    )
    if made == out:
        return whole
    window = [graph.sizes("begin", starts), graph.sizes("size", out)]
    return graph.operator("SLICE", [whole, *window], out, "SliceOptions", sign="keeps")


def _work(shape: LayerShape, cache_bytes: float) -> Work:
    """A product that makes each pixel's patch, which are then added up."""
    return product(shape.h * shape.w, shape.c_in, shape.taps * shape.c_out, patches=False)


KINDS = (
    Kind(
        "transposed",
        _write,
        Log(
            {"transposed": ("TRANSPOSE_CONV", "Deconvolution")},
            extra=lambda shape: Extra("slice") if _is_cropped(shape) else None,
        ),
        changes_channels=True,
        two_figures=True,
        window=True,
        on_maps=True,
        takes_activation=True,
        sign=any_sign,
        fits=_fits,
        output=_output,
        weights=lambda shape: shape.taps * shape.c_in * shape.c_out,
        uses_of_weight=lambda shape: shape.h * shape.w,
        work=_work,
        constants=lambda shape: ((shape.c_out, *shape.kernel_hw, shape.c_in), (shape.c_out,)),
    ),
)
