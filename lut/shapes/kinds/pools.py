"""Average and max pools, and the average of a whole feature map."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amc_latency.lut.shapes.kind import Extra, Kind, Log, Work, Writing
from amc_latency.lut.tflite.window import Sides, Windows, pair, windows

if TYPE_CHECKING:
    from amc_latency.lut.shapes.shape import LayerShape
    from amc_latency.lut.tflite.writer import TfliteGraph

_LOWEST = -(2.0 - 2.0**-23) * 2.0**127
"""of float32"""


def avg_pool(
    graph: TfliteGraph,
    x: int,
    kernel: Sides,
    stride: int,
    padding: Sides = 0,
    activation: str = "none",
    end: int = 0,
    count_include_pad: bool = True,
) -> int:
    """An average pool; `padding` counts as zeros if `count_include_pad`, and `end` never counts: as in PyTorch."""
    import numpy as np

    sides = windows(kernel, stride, padding, end)
    counted = [window.counted(size, count_include_pad) for window, size in zip(sides, graph.shape(x)[1:3], strict=True)]
    if all((pixels == window.kernel).all() for window, pixels in zip(sides, counted, strict=True)):
        return _pooled(graph, "AVERAGE_POOL_2D", graph.pad(x, sides), sides, "VALID", activation)
    if not (count_include_pad and any(pair(padding))) and graph.is_same(x, sides):
        return _pooled(graph, "AVERAGE_POOL_2D", x, sides, "SAME", activation)
    pooled = _pooled(graph, "AVERAGE_POOL_2D", graph.pad(x, sides), sides, "VALID", "none")
    share = sides[0].kernel * sides[1].kernel / np.multiply.outer(*counted)[None, :, :, None]
    return graph.mul(pooled, graph.constant("share", share.astype(np.float32)), activation)


def max_pool(
    graph: TfliteGraph,
    x: int,
    kernel: Sides,
    stride: int,
    padding: Sides = 0,
    activation: str = "none",
    end: int = 0,
) -> int:
    """A max pool; padding never wins, as in PyTorch."""
    # XNNPACK takes PAD, which fills with zeros, but not PADV2; where nothing below zero is left they agree.
    zeros_lose = graph.is_non_negative(x) or activation != "none"
    sides = windows(kernel, stride, padding, end)
    x, mode = graph.padded(x, sides, 0.0 if zeros_lose else _LOWEST)
    return _pooled(graph, "MAX_POOL_2D", x, sides, mode, activation)


def _pooled(graph: TfliteGraph, name: str, x: int, sides: Windows, mode: str, activation: str) -> int:
    return graph.operator(
        name,
        [x],
        graph.window_output(x, sides, mode),
        "Pool2DOptions",
        "keeps",
        padding=mode,
        strideH=sides[0].stride,
        strideW=sides[1].stride,
        filterHeight=sides[0].kernel,
        filterWidth=sides[1].kernel,
        fusedActivationFunction=activation,
    )


def _write_avg(to: Writing) -> int:
    shape = to.shape
    window = (shape.kernel_hw, shape.stride, shape.padding_hw, shape.activation, shape.end)
    return avg_pool(to.graph, to.x, *window, count_include_pad=shape.kind == "avg_pool")


def _write_max(to: Writing) -> int:
    shape = to.shape
    return max_pool(to.graph, to.x, shape.kernel_hw, shape.stride, shape.padding_hw, shape.activation, shape.end)


def _work(shape: LayerShape, cache_bytes: float) -> Work:
    return {"pooled": shape.taps * shape.h_out * shape.w_out * shape.c_out}


def _border(shape: LayerShape) -> Extra | None:
    """An average that doesn't count its border may be one that does, times how much of it there is."""
    return Extra("mul", may_be_next=True) if any(shape.padding_hw) or shape.end > 0 else None


def _avg(name: str) -> Kind:
    log = Log({name: ("AVERAGE_POOL_2D", "Average Pooling")}, extra=_border)
    return Kind(name, _write_avg, log, window=True, on_maps=True, takes_activation=True, work=_work, int8_scale="input")


def _max(name: str, reads_non_negative: bool) -> Kind:
    log = Log({name: ("MAX_POOL_2D", "Max Pooling")})
    # Padding by zeros, which XNNPACK takes, is right for a max pool where nothing is below zero.
    return Kind(
        name,
        _write_max,
        log,
        window=True,
        on_maps=True,
        takes_activation=True,
        reads_non_negative=reads_non_negative,
        work=_work,
        # PADV2, with which another fills its border, has no int8.
        int8_scale="input" if reads_non_negative else None,
    )


KINDS = (
    _avg("avg_pool"),
    # Averages what lies inside the image alone: its padding doesn't count.
    _avg("inner_avg_pool"),
    _max("max_pool", reads_non_negative=True),
    # Has padding, and reads what may be below zero.
    _max("signed_max_pool", reads_non_negative=False),
    Kind(
        "global_pool",
        lambda to: to.graph.global_pool(to.x, keep_dims=bool(to.argument)),
        Log({"global_pool": ("MEAN", "AVERAGE_POOL_2D", "Average Pooling", "Global Average Pooling", "Mean")}),
        on_maps=True,
        output=lambda shape, size, kernel, padding: 1,
        work=lambda shape, cache_bytes: {"pooled": shape.c_in * shape.h * shape.w},
    ),
)
