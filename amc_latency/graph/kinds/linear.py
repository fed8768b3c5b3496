"""Linear layers, and softmax over what they make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from amc_latency.errors import UserError
from amc_latency.graph.in_file import as_vector
from amc_latency.graph.kind import Call, Channels, Made, Plain, TorchKind
from amc_latency.graph.layers.layer_list import Value, check_inputs, check_no_pixels, place
from amc_latency.graph.layers.layer_shapes import plain_shape, settings
from amc_latency.lut.shapes.shape import LayerShape


def _visit(call: Call) -> Value:
    """Of features alone."""
    module: Any = call.module
    found, name, x = call.found, call.name, call.x
    if len(x.size) != 1:
        raise UserError(f"{name}: a linear layer takes [N, features]; flatten before it")
    check_inputs(name, x, module.in_features)
    found.called(name)
    found.labels.use(name, "consumer", x.labels)
    shape = LayerShape("linear", module.in_features, module.out_features)
    return found.add(call, shape, found.labels.make(name, module.out_features), flat=(1, 1))


def _rows(module: nn.Module, x: Tensor, points: int, generator: torch.Generator) -> Tensor:
    return x


def _plain(old: nn.Module, tensors: Mapping[str, Any], settings: Mapping[str, Any]) -> nn.Module:
    outputs, inputs = tensors["weight"].shape
    return nn.Linear(inputs, outputs, bias=tensors["bias"] is not None, device="meta")


def _softmax(call: Call) -> Value:
    """Probabilities of features: each depends on all of them, so none is cut."""
    found, node, name, x = call.found, call.node, call.name, call.x
    dim = call.module.dim if isinstance(call.module, nn.Softmax) else settings(node, ("dim",)).get("dim")
    if len(x.size) != 1 or dim not in (1, -1):
        raise UserError(f"{name}: softmax is supported on [N, classes] alone, over the classes")
    check_no_pixels(name, x, "a softmax")
    where = name if call.module is not None else place(node)
    found.labels.keep(x.labels, f"a softmax, {where}, mixes all of them")
    return found.add(call, plain_shape(name, "softmax", x.size), x.labels)


KINDS = (
    TorchKind(
        "linear",
        _visit,
        (nn.Linear,),
        plain=Plain(functional.linear, ("input", "weight", "bias"), _plain),
        channels=Channels("out_features", "in_features", bound="linear", rows=_rows),
        made={"linear": Made(fuses=True, weight_axes=(0, 1))},
    ),
    TorchKind(
        "softmax",
        _softmax,
        (nn.Softmax,),
        (functional.softmax, torch.softmax, "softmax"),
        made={"softmax": Made(inputs=lambda file, sources, shape: [as_vector(file, sources[0])])},
    ),
)
