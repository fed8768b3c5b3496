"""Upsampling, means over all pixels, and adaptive pools to a size that divides the input's or is a multiple."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional

from amc_latency.errors import UserError
from amc_latency.graph.kind import Call, Made, TorchKind
from amc_latency.graph.layer_list import Value
from amc_latency.graph.layer_shapes import plain_shape, settings
from amc_latency.graph.operations import is_spatial_mean

_INTERPOLATE_ARGUMENTS = ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor", "antialias")


def _upsample(call: Call) -> Value:
    if isinstance(call.module, nn.Upsample):
        return _upsampled(call, call.module.mode, bool(call.module.align_corners))
    given = settings(call.node, _INTERPOLATE_ARGUMENTS)
    if given.get("antialias"):
        raise UserError(f"{call.name}: antialiasing is not supported")
    return _upsampled(call, given.get("mode", "nearest"), bool(given.get("align_corners")))


def _upsampled(call: Call, mode: str, align_corners: bool = False) -> Value:
    """Nearest or bilinear enlargement by a whole factor."""
    x, size = call.x, call.size
    factor = size[1] // x.size[1]
    if size[1:] != (x.size[1] * factor, x.size[2] * factor) or mode not in ("nearest", "bilinear") or align_corners:
        raise UserError(
            f"{call.name}: {mode} from {x.size} to {size} is not supported; only nearest and bilinear (without "
            "align_corners) by a whole factor"
        )
    return call.found.add(call, plain_shape(call.name, mode, x.size, stride=factor), x.labels)


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
        return _upsampled(call, "nearest")
    kernel = x.size[1] // size[1]
    if len(size) != 3 or x.size[1:] != (size[1] * kernel, size[2] * kernel):
        raise UserError(f"{name}: pools {x.size} to {size}; only sizes that divide the input's are supported")
    return found.add(call, plain_shape(name, "avg_pool", x.size, kernel=kernel, stride=kernel), x.labels)


KINDS = (
    TorchKind(
        "upsampling",
        _upsample,
        (nn.Upsample,),
        (functional.interpolate,),
        made={"nearest": Made(), "bilinear": Made()},
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
