"""Transposed convolutions without groups and dilation, whose weights are [in, out, height, width]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from amc_latency.errors import UserError
from amc_latency.graph.kind import Call, Channels, Made, Plain, TorchKind
from amc_latency.graph.kinds.convolutions import rows_under_windows
from amc_latency.graph.layers.layer_list import Value, check_inputs
from amc_latency.graph.layers.layer_shapes import shaped, single, window


def _visit(call: Call) -> Value:
    module: Any = call.module
    found, name, x = call.found, call.name, call.x
    if module.groups != 1 or module.dilation != (1, 1):
        raise UserError(f"{name}: a transposed convolution with groups or with dilation is not supported")
    if len(call.node.args) + len(call.node.kwargs) > 1:
        raise UserError(f"{name}: a transposed convolution that is given its output's size is not supported")
    check_inputs(name, x, module.in_channels)
    stride, end = single(name, "stride", module.stride), single(name, "output_padding", module.output_padding)
    sides = window(module.kernel_size, module.padding)
    shape = shaped(name, "transposed", x.size, module.out_channels, stride=stride, end=end, **sides)
    found.called(name)
    found.labels.use(name, "consumer", x.labels)
    return found.add(call, shape, found.labels.make(name, module.out_channels), flat=(1, 1))


def _rows(module: Any, x: Tensor, points: int, generator: torch.Generator) -> Tensor:
    """As of a convolution, its kernel turned by 180 degrees, of the input with zeros between the pixels."""
    n, c, h, w = x.shape
    down, across = module.stride
    spread = x.new_zeros(n, c, (h - 1) * down + 1, (w - 1) * across + 1)
    spread[:, :, ::down, ::across] = x
    top, left = (kernel - 1 - padding for kernel, padding in zip(module.kernel_size, module.padding, strict=True))
    below, right = module.output_padding
    padded = functional.pad(spread, (left, left + right, top, top + below))
    rows = rows_under_windows(padded, module.kernel_size, (1, 1), points, generator)
    return rows.view(-1, c, *module.kernel_size).flip(2, 3).flatten(1)


def _plain(old: nn.Module, tensors: Mapping[str, Any], settings: Mapping[str, Any]) -> nn.Module:
    weight, has_bias = tensors["weight"], tensors["bias"] is not None
    channels, size = weight.shape[1] * settings.get("groups", 1), tuple(weight.shape[2:])
    return nn.ConvTranspose2d(weight.shape[0], channels, size, bias=has_bias, device="meta", **settings)


KINDS = (
    TorchKind(
        "transposed convolution",
        _visit,
        (nn.ConvTranspose2d,),
        plain=Plain(
            functional.conv_transpose2d,
            ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"),
            _plain,
        ),
        channels=Channels("out_channels", "in_channels", weight_dims=(1, 0), bound="conv", rows=_rows),
        made={"transposed": Made(fuses=True, weight_axes=(0, 2, 3, 1))},
    ),
)
