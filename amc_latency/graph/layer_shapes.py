"""PyTorch module, or the arguments of a function -> layer shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import fx, nn

from amc_latency.errors import UserError
from amc_latency.lut.shapes.shape import LayerShape, ShapeError

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
    stride, dilation = (single(name, key, getattr(conv, key)) for key in ("stride", "dilation"))
    start, end = pad
    padding = (0, 0)
    if conv.padding == "same":
        # PyTorch puts the odd zero at the end, as TensorFlow does; it has "same" for stride 1 only.
        down, across = (dilation * (side - 1) for side in conv.kernel_size)
        padding, end = (down // 2, across // 2), end + single(name, "padding at the end", (down % 2, across % 2))
    elif not isinstance(conv.padding, str):
        padding = conv.padding[0], conv.padding[1]
    window = _window(conv.kernel_size, (start + padding[0], start + padding[1]))
    kind, per_group = "conv", 0
    if conv.groups > 1:
        kind = "depthwise" if conv.groups == conv.in_channels == conv.out_channels else "grouped"
        per_group = 0 if kind == "depthwise" else conv.in_channels // conv.groups
    return _shape(
        name, kind, size, conv.out_channels, stride=stride, end=end, dilation=dilation, per_group=per_group, **window
    )


def pool_shape(name: str, pool: nn.MaxPool2d | nn.AvgPool2d, size: Size, out: Size, pad: Pad) -> LayerShape:
    """A pool's shape for an input of `size` and an output of `out`, ceil_mode as padding at the end.

    Raises `UserError`.
    """
    stride = single(name, "stride", pool.stride)
    kernel, (down, across) = _pair(pool.kernel_size), _pair(pool.padding)
    plain = isinstance(pool, nn.AvgPool2d) or (
        not pool.return_indices and pad == NO_PAD and single(name, "dilation", pool.dilation) == 1
    )
    if not plain:
        raise UserError(f"{name}: max pooling that is dilated, returns indices or follows zeros is not supported")
    start, end = (down + pad[0], across + pad[0]), pad[1]
    sides = zip(size[1:], out[1:], kernel, start, strict=True)
    ends = {(there - 1) * stride + window - here - 2 * zeros for here, there, window, zeros in sides}
    if max(ends) > end:
        end = max(ends)
        if len(ends) > 1 or (isinstance(pool, nn.AvgPool2d) and any(start)):
            raise UserError(f"{name}: ceil_mode is not supported here: height and width, or the padding, differ")
    kind = "max_pool"
    if isinstance(pool, nn.AvgPool2d):
        # What an earlier layer put around the image counts; what the pool itself does need not.
        is_inner = any((down, across)) and not pool.count_include_pad
        kind = "inner_avg_pool" if is_inner else "avg_pool"
        if pool.divisor_override is not None or pad[1] or (is_inner and pad[0]):
            raise UserError(f"{name}: divisor_override, and zeros around the image before it, are not supported")
    return _shape(name, kind, size, size[0], stride=stride, end=end, **_window(kernel, start))


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


def _pair(sides: int | Sequence[int]) -> tuple[int, int]:
    return (sides, sides) if isinstance(sides, int) else (sides[0], sides[1])


def _window(kernel: Sequence[int], padding: tuple[int, int]) -> dict[str, int]:
    """The fields of a window: its width is told where it, or the padding that goes with it, isn't the height's."""
    square = {"kernel": kernel[0], "padding": padding[0]}
    is_square = len({*kernel}) == len({*padding}) == 1
    return square if is_square else {**square, "kernel_w": kernel[1], "padding_w": padding[1]}


def _shape(name: str, kind: str, size: Size, c_out: int, **rest: int | str) -> LayerShape:
    if len(size) not in (1, 3):
        raise UserError(f"{name}: reads {size}; only [N, channels, height, width] and [N, features] are supported")
    h, w = size[1:] or (1, 1)
    try:
        return LayerShape(kind, size[0], c_out, h, w, **rest)  # type: ignore[arg-type]
    except ShapeError as error:
        raise UserError(f"{name}: {error}") from error
