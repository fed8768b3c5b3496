"""Average and max pools, and the average of a whole feature map."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amc_latency.lut.shapes.kind import Extra, Kind, Log, Work, Writing

if TYPE_CHECKING:
    from amc_latency.lut.shapes.shape import LayerShape


def _write_avg(to: Writing) -> int:
    window = (to.shape.kernel_hw, to.shape.stride, to.shape.padding_hw, to.shape.activation, to.shape.end)
    return to.graph.avg_pool(to.x, *window, count_include_pad=to.shape.kind == "avg_pool")


def _write_max(to: Writing) -> int:
    window = (to.shape.kernel_hw, to.shape.stride, to.shape.padding_hw, to.shape.activation, to.shape.end)
    return to.graph.max_pool(to.x, *window)


def _work(shape: LayerShape, cache_bytes: float) -> Work:
    return {"pooled": shape.taps * shape.h_out * shape.w_out * shape.c_out}


def _border(shape: LayerShape) -> Extra | None:
    """An average that doesn't count its border may be one that does, times how much of it there is."""
    return Extra("mul", may_be_next=True) if any(shape.padding_hw) or shape.end > 0 else None


def _avg(name: str) -> Kind:
    log = Log({name: ("AVERAGE_POOL_2D", "Average Pooling")}, extra=_border)
    return Kind(name, _write_avg, log, window=True, on_maps=True, work=_work)


def _max(name: str, reads_non_negative: bool) -> Kind:
    log = Log({name: ("MAX_POOL_2D", "Max Pooling")})
    # Padding by zeros, which XNNPACK takes, is right for a max pool where nothing is below zero.
    return Kind(name, _write_max, log, window=True, on_maps=True, reads_non_negative=reads_non_negative, work=_work)


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
        takes_activation=False,
        output=lambda shape, size, kernel, padding: 1,
        work=lambda shape, cache_bytes: {"pooled": shape.c_in * shape.h * shape.w},
    ),
)
