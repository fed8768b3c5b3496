"""Activations: in the layer before it where TFLite has it so, else on their own."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from amc_latency.errors import UserError
from amc_latency.graph.kind import Call, Channels, Made, TorchKind
from amc_latency.graph.layers.layer_list import Value, check_no_pixels
from amc_latency.graph.layers.layer_shapes import plain_shape, settings
from amc_latency.graph.operations import ACTIVATION_FUNCTIONS, ACTIVATION_MODULES, ACTIVATIONS, CLAMPS, activation_of
from amc_latency.lut.shapes.activations import ACTIVATIONS as RECORDS
from amc_latency.lut.shapes.shape import FUSED_ACTIVATIONS, LayerShape


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
    slopes, setting = 0, _setting(call, activation)
    if (why := ACTIVATIONS[activation].wrong(setting)) is not None:
        raise UserError(f"{name}: {why}")
    if RECORDS[activation].has_slopes:
        found.called(name)
        slopes = 1 if module is None else len(module.get_parameter("weight"))
        if slopes > 1:
            check_no_pixels(name, x, "a PReLU with a slope a channel")
            found.labels.use(name, "prelu", x.labels)
    shape = plain_shape(name, "activation", x.size, activation=activation)
    # One slope for all channels is written for each anew, and each call may have other channels.
    argument = setting if isinstance(setting, int | float) else 0.0
    return found.add(call, shape, x.labels, argument=argument, shares=slopes != 1)


def _setting(call: Call, activation: str) -> Any:
    """The value of the activation's setting, if it has one."""
    key, unset = ACTIVATIONS[activation].setting, ACTIVATIONS[activation].unset
    if key is None:
        return None
    return getattr(call.module, key) if call.module is not None else settings(call.node, (key,)).get(key, unset)


def _slopes(module: nn.Module | None, shape: LayerShape, argument: float) -> list[np.ndarray]:
    if not RECORDS[shape.activation].has_slopes or module is None:
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
