"""Upsampling by a whole factor."""

from __future__ import annotations

from torch import nn
from torch.nn import functional

from amc_latency.errors import UserError
from amc_latency.graph.kind import Call, Made, TorchKind
from amc_latency.graph.layers.layer_list import Value
from amc_latency.graph.layers.layer_shapes import plain_shape, settings

_INTERPOLATE_ARGUMENTS = ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor", "antialias")


def _upsample(call: Call) -> Value:
    if isinstance(call.module, nn.Upsample):
        return upsampled(call, call.module.mode, bool(call.module.align_corners))
    given = settings(call.node, _INTERPOLATE_ARGUMENTS)
    if given.get("antialias"):
        raise UserError(f"{call.name}: antialiasing is not supported")
    return upsampled(call, given.get("mode", "nearest"), bool(given.get("align_corners")))


def upsampled(call: Call, mode: str, align_corners: bool = False) -> Value:
    """Nearest or bilinear enlargement by a whole factor."""
    x, size = call.x, call.size
    factor = size[1] // x.size[1]
    if size[1:] != (x.size[1] * factor, x.size[2] * factor) or mode not in ("nearest", "bilinear") or align_corners:
        raise UserError(
            f"{call.name}: {mode} from {x.size} to {size} is not supported; only nearest and bilinear (without "
            "align_corners) by a whole factor"
        )
    return call.found.add(call, plain_shape(call.name, mode, x.size, stride=factor), x.labels)


KINDS = (
    TorchKind(
        "upsampling",
        _upsample,
        (nn.Upsample,),
        (functional.interpolate,),
        made={"nearest": Made(), "bilinear": Made()},
    ),
)
