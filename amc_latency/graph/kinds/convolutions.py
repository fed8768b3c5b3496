"""Convolutions of any groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from amc_latency.errors import UserError
from amc_latency.graph.kind import Call, Channels, Made, Plain, TorchKind
from amc_latency.graph.layers.layer_list import Value, check_inputs
from amc_latency.graph.layers.layer_shapes import Pad, Size, shaped, single, window
from amc_latency.lut.shapes.shape import LayerShape


def conv_shape(name: str, conv: nn.Conv2d, size: Size, pad: Pad) -> LayerShape:
    """A convolution's shape for an input of `size`, which `pad` zeros were put around first. Raises `UserError`."""
    if conv.padding_mode != "zeros":
        raise UserError(f"{name}: padding other than with zeros is not supported")
    stride, dilation = (single(name, key, getattr(conv, key)) for key in ("stride", "dilation"))
    start, end = pad
    padding = (0, 0)
    if conv.padding == "same":
        # PyTorch puts the odd zero at the end, as TensorFlow does; it has "same" for stride 1 only.
        down, across = (dilation * (side - 1) for side in conv.kernel_size)
        padding, end = (down // 2, across // 2), end + single(name, "padding at the end", (down % 2, across % 2))
    elif not isinstance(conv.padding, str):
        padding = conv.padding[0], conv.padding[1]
    sides = window(conv.kernel_size, (start + padding[0], start + padding[1]))
    kind, per_group = "conv", 0
    if conv.groups > 1:
        kind = "depthwise" if conv.groups == conv.in_channels == conv.out_channels else "grouped"
        per_group = 0 if kind == "depthwise" else conv.in_channels // conv.groups
    return shaped(
        name, kind, size, conv.out_channels, stride=stride, end=end, dilation=dilation, per_group=per_group, **sides
    )


def _visit(call: Call) -> Value:
    """Those that make other channels than they read, in groups, are left whole."""
    conv: Any = call.module
    found, name, x = call.found, call.name, call.x
    shape = conv_shape(name, conv, x.size, x.pad)
    check_inputs(name, x, conv.in_channels)
    found.called(name)
    if shape.kind == "conv":
        found.labels.use(name, "consumer", x.labels)
        return found.add(call, shape, found.labels.make(name, conv.out_channels), flat=(1, 1))
    if shape.c_in != shape.c_out:
        reason = f"{name} has groups, of other channels out than in"
        found.labels.keep(x.labels, reason)
        made = found.labels.make(name, shape.c_out)
        found.labels.keep(made, reason)
        return found.add(call, shape, made)
    if shape.kind == "grouped":
        in_groups = x.labels.reshape(-1, shape.per_group)
        for i in range(1, shape.per_group):
            found.labels.tie(in_groups[:, 0], in_groups[:, i], f"one group of {name}")
    found.labels.use(name, "depthwise", x.labels)
    return found.add(call, shape, x.labels)


def _resize(module: Any, count: str, size: int) -> None:
    if module.groups > 1:
        # A grouped or depthwise convolution loses whole groups.
        module.groups = module.groups * size // module.out_channels
        module.in_channels = module.out_channels = size
    else:
        setattr(module, count, size)


def rows_under_windows(x: Tensor, kernel: Any, stride: Any, points: int, generator: torch.Generator) -> Tensor:
    """What lies under a window at `points` random positions of each image, the same ones for the whole batch."""
    patches = x.unfold(2, kernel[0], stride[0]).unfold(3, kernel[1], stride[1])
    height, width = patches.shape[2:4]
    chosen = torch.arange(height * width)
    if len(chosen) > points:
        chosen = torch.randperm(height * width, generator=generator)[:points]
    picked = patches[:, :, chosen // width, chosen % width]
    return picked.permute(0, 2, 1, 3, 4).flatten(2).flatten(0, 1)


def _rows(module: Any, x: Tensor, points: int, generator: torch.Generator) -> Tensor:
    # Its padding as figures, which "same" is not.
    x = functional.pad(x, module._reversed_padding_repeated_twice)
    return rows_under_windows(x, module.kernel_size, module.stride, points, generator)


def _is_dense(module: Any) -> bool:
    return module.dilation == (1, 1)


def _plain(old: nn.Module, tensors: Mapping[str, Any], settings: Mapping[str, Any]) -> nn.Module:
    weight, has_bias = tensors["weight"], tensors["bias"] is not None
    channels, size = weight.shape[1] * settings.get("groups", 1), tuple(weight.shape[2:])
    return nn.Conv2d(channels, weight.shape[0], size, bias=has_bias, device="meta", **settings)


KINDS = (
    TorchKind(
        "convolution",
        _visit,
        (nn.Conv2d,),
        takes_pad=True,
        plain=Plain(functional.conv2d, ("input", "weight", "bias", "stride", "padding", "dilation", "groups"), _plain),
        channels=Channels("out_channels", "in_channels", resize=_resize, bound="conv", rows=_rows, refits=_is_dense),
        made={
            "conv": Made(fuses=True, weight_axes=(0, 2, 3, 1)),
            "grouped": Made(fuses=True, weight_axes=(0, 2, 3, 1)),
            "depthwise": Made(fuses=True, weight_axes=(1, 2, 3, 0)),
        },
    ),
)
