"""Max and average pools of a fixed window, means over all pixels, and adaptive pools."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from amc_latency.errors import UserError
from amc_latency.graph.kind import Call, Made, TorchKind
from amc_latency.graph.kinds.resizing import upsampled
from amc_latency.graph.layers.layer_list import Value
from amc_latency.graph.layers.layer_shapes import NO_PAD, Pad, Size, pair, plain_shape, settings, shaped, single, window
from amc_latency.graph.operations import is_spatial_mean
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


def _mean(call: Call) -> Value | None:
    return _global_pool(call) if is_spatial_mean(call.node) else None


def _global_pool(call: Call) -> Value:
    """A mean over all pixels, or an adaptive pool to a size that divides, or is a multiple."""
    found, name, x, size = call.found, call.name, call.x, call.size
    if x.size == size:
        return replace(x, layer=None)
    if size in (x.size[:1], (x.size[0], 1, 1)):
        shape = plain_shape(name, "global_pool", x.size)
        # What is flattened next needs no height and width.
        users = call.node.users
        made = [getattr(user.meta["tensor_meta"], "shape", ()) for user in users if "tensor_meta" in user.meta]
        keeps = len(size) == 3 and any(len(shape) != 2 for shape in made)
        return replace(found.add(call, shape, x.labels, size=(x.size[0], 1, 1), argument=keeps), size=size)
    if len(size) == 3 and (factor := size[1] // x.size[1]) > 1 and size[1:] == tuple(factor * n for n in x.size[1:]):
        # Each pixel of the input alone is the mean of several of the output: VGG's 7x7 of a small image's 1x1.
        return upsampled(call, "nearest")
    kernel = x.size[1] // size[1]
    if len(size) != 3 or x.size[1:] != (size[1] * kernel, size[2] * kernel):
        raise UserError(f"{name}: pools {x.size} to {size}; only sizes that divide the input's are supported")
    return found.add(call, plain_shape(name, "avg_pool", x.size, kernel=kernel, stride=kernel), x.labels)


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
    TorchKind(
        "adaptive pool",
        _global_pool,
        (nn.AdaptiveAvgPool2d,),
        (functional.adaptive_avg_pool2d,),
        made={"global_pool": Made()},
    ),
    TorchKind("mean", _mean, functions=(torch.mean, "mean")),
)
