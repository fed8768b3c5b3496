"""Activations: in the layer before it where TFLite has it so, else on their own."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from amc_latency.errors import UserError
from amc_latency.graph.kind import Call, Channels, Made, TorchKind
from amc_latency.graph.layers.layer_list import Value, check_no_pixels
from amc_latency.graph.layers.layer_shapes import plain_shape, settings
from amc_latency.graph.operations import ACTIVATION_FUNCTIONS, ACTIVATION_MODULES, CLAMPS, activation_of
from amc_latency.lut.shapes.shape import FUSED_ACTIVATIONS, LayerShape

_ALPHAS = {"leaky_relu": ("negative_slope", 0.01), "elu": ("alpha", 1.0)}
"""Their setting, and what it is unless set."""


def _visit(call: Call) -> Value | None:
    activation = activation_of(call.node, call.found.traced)
    return None if activation is None else _activated(call, activation)


def _hardtanh(call: Call) -> Value | None:
    module: Any = call.module
    return _activated(call, "relu6") if (module.min_val, module.max_val) == (0, 6) else None


def _activated(call: Call, activation: str) -> Value:
    found, name, x, module = call.found, call.name, call.x, call.module
    if activation in FUSED_ACTIVATIONS and (fused := found.ends_in(call.node, x, activation)) is not None:
        return fused
    if activation == "gelu" and getattr(module, "approximate", call.node.kwargs.get("approximate", "none")) != "none":
        raise UserError(f"{name}: GELU's tanh approximation is not supported")
    slopes = 0
    if activation == "prelu":
        found.called(name)
        slopes = 1 if module is None else len(module.get_parameter("weight"))
        if slopes > 1:
            check_no_pixels(name, x, "a PReLU with a slope a channel")
            found.labels.use(name, "prelu", x.labels)
    alpha = 0.0
    if activation in _ALPHAS:
        key, unset = _ALPHAS[activation]
        alpha = getattr(module, key) if module is not None else settings(call.node, (key,)).get(key, unset)
    if activation == "elu" and alpha != 1:
        raise UserError(f"{name}: ELU with alpha {alpha} is not supported; only with 1")
    shape = plain_shape(name, "activation", x.size, activation=activation)
    # One slope for all channels is written for each anew, and each call may have other channels.
    return found.add(call, shape, x.labels, argument=alpha, shares=slopes != 1)


def _slopes(module: nn.Module | None, shape: LayerShape, argument: float) -> list[np.ndarray]:
    if shape.activation != "prelu" or module is None:
        return []
    return [module.get_parameter("weight").detach().numpy()]


_PLAIN = tuple(module for module in ACTIVATION_MODULES if module is not nn.PReLU)
KINDS = (
    TorchKind(
        "activation",
        _visit,
        _PLAIN,
        (*ACTIVATION_FUNCTIONS, *CLAMPS),
        made={"activation": Made(constants=_slopes)},
    ),
    TorchKind("prelu", _visit, (nn.PReLU,), channels=Channels("num_parameters")),
    TorchKind("hard tanh", _hardtanh, (nn.Hardtanh,)),
)
