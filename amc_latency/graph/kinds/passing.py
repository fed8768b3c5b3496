"""What hands its input on: dropout, identities, copies; and zeros that the window after them takes in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn
from torch.nn import functional

from amc_latency.errors import UserError
from amc_latency.graph.kind import Call, TorchKind
from amc_latency.graph.layers.layer_list import Value, check_no_pad
from amc_latency.graph.layers.layer_shapes import settings, zeros_of
from amc_latency.graph.operations import SAME


def _pad(call: Call) -> Value:
    name, node = call.name, call.node
    if isinstance(call.module, nn.ZeroPad2d):
        sides, value = call.module.padding, 0.0
    else:
        given: Any = settings(node, ("pad", "mode", "value"))
        if (mode := given.get("mode", "constant")) != "constant":
            raise UserError(f"{name}: padding by {mode} is not supported")
        sides, value = given["pad"], given.get("value", 0)
    zeros = zeros_of(name, sides, value)
    check_no_pad(name, call.x)
    return replace(call.x, pad=zeros, layer=None)


KINDS = (
    TorchKind("nothing", lambda call: call.x, (nn.Dropout, nn.Dropout2d, nn.Identity), SAME, takes_pad=True),
    TorchKind("zeros", _pad, (nn.ZeroPad2d,), (functional.pad,), takes_pad=True),
)
