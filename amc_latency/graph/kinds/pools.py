"""Max and average pools of a fixed window."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from amc_latency.errors import UserError
from amc_latency.graph.kind import Call, Made, TorchKind
from amc_latency.graph.layer_list import Value
from amc_latency.graph.layer_shapes import NO_PAD, Pad, Size, pair, settings, shaped, single, window
from amc_latency.lut.shapes.shape import LayerShape

MAX_POOL_ARGUMENTS = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
AVG_POOL_ARGUMENTS = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")


def pool_shape(name: str, pool: nn.MaxPool2d | nn.AvgPool2d, size: Size, out: Size, pad: Pad) -> LayerShape:
    """A pool's shape for an input of `size` and an output of `out`, ceil_mode as padding at the end.

    Raises `UserError`.
    """
    stride = single(name, "stride", pool.stride)
    kernel, (down, across) = pair(pool.kernel_size), pair(pool.padding)
    plain = isinstance(pool, nn.AvgPool2d) or (
        not pool.return_indices and pad == NO_PAD and single(name, "dilation", pool.dilation) == 1
    )
    if not plain:
        raise UserError(f"{name}: max pooling that is dilated, returns indices or follows zeros is not supported")
    start, end = (down + pad[0], across + pad[0]), pad[1]
    sides = zip(size[1:], out[1:], kernel, start, strict=True)
    ends = {(there - 1) * stride + side - here - 2 * zeros for here, there, side, zeros in sides}
    if max(ends) > end:
        end = max(ends)
        if len(ends) > 1 or (isinstance(pool, nn.AvgPool2d) and any(start)):
            raise UserError(f"{name}: ceil_mode is not supported here: height and width, or the padding, differ")
    kind = "max_pool"
    if isinstance(pool, nn.AvgPool2d):
        # What an earlier layer put around the image counts; what the pool itself does need not.
        is_inner = any((down, across)) and not pool.count_include_pad
        kind = "inner_avg_pool" if is_inner else "avg_pool"
        if pool.divisor_override is not None or pad[1] or (is_inner and pad[0]):
            raise UserError(f"{name}: divisor_override, and zeros around the image before it, are not supported")
    return shaped(name, kind, size, size[0], stride=stride, end=end, **window(kernel, start))


def _average(call: Call) -> Value:
    pool: Any = call.module or nn.AvgPool2d(**settings(call.node, AVG_POOL_ARGUMENTS))
    return call.found.add(call, pool_shape(call.name, pool, call.x.size, call.size, call.x.pad), call.x.labels)


def _max(call: Call) -> Value:
    pool: Any = call.module or nn.MaxPool2d(**settings(call.node, MAX_POOL_ARGUMENTS))
    shape = pool_shape(call.name, pool, call.x.size, call.size, call.x.pad)
    if (any(shape.padding_hw) or shape.end) and not call.x.non_negative:
        shape = replace(shape, kind="signed_max_pool")
    return call.found.add(call, shape, call.x.labels)


KINDS = (
    TorchKind(
        "average pool",
        _average,
        (nn.AvgPool2d,),
        (functional.avg_pool2d,),
        takes_pad=True,
        made={"avg_pool": Made(fuses=True), "inner_avg_pool": Made(fuses=True)},
    ),
    TorchKind(
        "max pool",
        _max,
        (nn.MaxPool2d,),
        (functional.max_pool2d, torch.max_pool2d),
        takes_pad=True,
        made={
            "max_pool": Made(fuses=True),
            # What ends in a ReLU may pad with zeros: they win over nothing that is left.
            "signed_max_pool": Made(fuses=True, rectified="max_pool"),
        },
    ),
)
