"""PyTorch module, or the arguments of a function -> layer shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import fx, nn

from amc_latency.errors import UserError
from lut.shape import LayerShape, ShapeError

Size = tuple[int, ...]
"""Of a tensor without the batch: channels, height and width, or features alone."""
Pad = tuple[int, int]
"""Zeros at the top and left, and beyond as many at the bottom and right."""
NO_PAD = (0, 0)

MAX_POOL_ARGUMENTS = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
AVG_POOL_ARGUMENTS = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
INTERPOLATE_ARGUMENTS = ("size", "scale_factor", "mode", "align_corners", "recompute_scale_factor", "antialias")


def conv_shape(name: str, conv: nn.Conv2d, size: Size, pad: Pad) -> LayerShape:
    """A convolution's shape for an input of `size`, which `pad` zeros were put around first. Raises `UserError`."""
    if conv.padding_mode != "zeros":
        raise UserError(f"{name}: padding other than with zeros is not supported")
    kernel, stride, dilation = (single(name, key, getattr(conv, key)) for key in ("kernel_size", "stride", "dilation"))
    start, end = pad
    if conv.padding == "same":
        # PyTorch puts the odd zero at the end, as TensorFlow does; it has "same" for stride 1 only.
        total = dilation * (kernel - 1)
        start, end = start + total // 2, end + total % 2
    elif conv.padding != "valid":
        start += single(name, "padding", conv.padding)
    kind, per_group = "conv", 0
    if conv.groups > 1:
        if conv.in_channels != conv.out_channels:
            raise UserError(
                f"{name}: {conv.groups} groups from {conv.in_channels} to {conv.out_channels} channels are not "
                "supported; a grouped or depthwise convolution must have as many channels out as in"
            )
        kind = "depthwise" if conv.groups == conv.in_channels else "grouped"
        per_group = 0 if kind == "depthwise" else conv.in_channels // conv.groups
    window = {"kernel": kernel, "stride": stride, "padding": start, "end": end, "dilation": dilation}
    return _shape(name, kind, size, conv.out_channels, **window, per_group=per_group)


def pool_shape(name: str, pool: nn.MaxPool2d | nn.AvgPool2d, size: Size, out: Size, pad: Pad) -> LayerShape:
    """A pool's shape for an input of `size` and an output of `out`, ceil_mode as padding at the end.

    Raises `UserError`.
    """
    kernel, stride, padding = (single(name, key, getattr(pool, key)) for key in ("kernel_size", "stride", "padding"))
    plain = isinstance(pool, nn.AvgPool2d) or (
        not pool.return_indices and pad == NO_PAD and single(name, "dilation", pool.dilation) == 1
    )
    if not plain:
        raise UserError(f"{name}: max pooling that is dilated, returns indices or follows zeros is not supported")
    start, end = padding + pad[0], pad[1]
    ends = {(there - 1) * stride + kernel - here - 2 * start for here, there in zip(size[1:], out[1:], strict=True)}
    if max(ends) > end:
        end = max(ends)
        if len(ends) > 1 or (isinstance(pool, nn.AvgPool2d) and start):
            raise UserError(f"{name}: ceil_mode is not supported here: height and width, or the padding, differ")
    if isinstance(pool, nn.AvgPool2d):
        has_border = start > 0 and not pool.count_include_pad
        if pool.divisor_override is not None or has_border or pad[1]:
            raise UserError(f"{name}: divisor_override and count_include_pad=False are not supported")
    kind = "max_pool" if isinstance(pool, nn.MaxPool2d) else "avg_pool"
    return _shape(name, kind, size, size[0], kernel=kernel, stride=stride, padding=start, end=end)


def plain_shape(name: str, kind: str, size: Size, **rest: Any) -> LayerShape:
    """A layer without a window that keeps its channels: `rest` are further fields. Raises `UserError`."""
    return _shape(name, kind, size, size[0], **rest)


def slice_shape(name: str, size: Size, channels: int) -> LayerShape:
    """Taking neighbouring channels. Raises `UserError`."""
    return _shape(name, "slice", size, channels)


def single(name: str, key: str, value: int | str | Sequence[int]) -> int:
    """The one number of a setting that PyTorch keeps for each dimension. Raises `UserError`."""
    values = {value} if isinstance(value, (int, str)) else set(value)
    if len(values) != 1 or not isinstance(number := values.pop(), int):
        raise UserError(f"{name}: {key} {value} is not supported; it must be one number for height and width")
    return number


def settings(node: fx.Node, names: Sequence[str]) -> dict[str, Any]:
    """The arguments of a function after the tensor, by name."""
    return {**dict(zip(names, node.args[1:], strict=False)), **{k: v for k, v in node.kwargs.items() if k in names}}


def zeros_of(name: str, sides: Sequence[int] | int, value: float | None) -> Pad:
    """PyTorch's (left, right, top, bottom). Raises `UserError` for what no window can take in."""
    left, right, top, bottom, *others = [sides] * 4 if isinstance(sides, int) else [*sides, 0, 0]
    if (left, right) != (top, bottom) or not 0 <= left <= right or any(others) or value:
        raise UserError(
            f"{name}: pads by {sides}; only zeros, alike in height and width, and no fewer at the end, are supported"
        )
    return (left, right - left)


def _shape(name: str, kind: str, size: Size, c_out: int, **rest: int | str) -> LayerShape:
    if len(size) not in (1, 3):
        raise UserError(f"{name}: reads {size}; only [N, channels, height, width] and [N, features] are supported")
    h, w = size[1:] or (1, 1)
    try:
        return LayerShape(kind, size[0], c_out, h, w, **rest)  # type: ignore[arg-type]
    except ShapeError as error:
        raise UserError(f"{name}: {error}") from error
