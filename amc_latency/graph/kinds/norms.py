"""Batch norm: in the layer before it where that can take it in, else a layer of its own."""

from __future__ import annotations

from typing import Any

from amc_latency.errors import UserError
from amc_latency.graph.kinds.record import Call, Channels, TorchKind
from amc_latency.graph.layer_list import Value, check_no_pixels
from amc_latency.graph.layer_shapes import plain_shape
from amc_latency.graph.operations import BATCH_NORMS


def _visit(call: Call) -> Value:
    norm: Any = call.module
    found, name, x = call.found, call.name, call.x
    if norm.running_mean is None or norm.weight is None:
        raise UserError(f"{name}: a batch norm without weights or without running statistics is not supported")
    if name in found.modules:
        raise UserError(f"{name}: a batch norm that is called twice is not supported")
    found.called(name)
    found.labels.use(name, "batch_norm", x.labels)
    if found.takes_in_norm(call.node, name, x):
        return x
    check_no_pixels(name, x, "a batch norm")
    # On its own it is a depthwise convolution of one pixel.
    return found.add(call, plain_shape(name, "depthwise", x.size), x.labels)


KINDS = (TorchKind("batch norm", _visit, BATCH_NORMS, channels=Channels("num_features")),)
