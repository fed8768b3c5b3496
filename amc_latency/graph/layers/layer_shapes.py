"""PyTorch module, or the arguments of a function -> layer shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import fx

from amc_latency.errors import UserError
from amc_latency.lut.shapes.shape import LayerShape, ShapeError

Size = tuple[int, ...]
"""Of a tensor without the batch: channels, height and width, or features alone."""
Pad = tuple[int, int]
"""Zeros at the top and left, and beyond as many at the bottom and right."""
NO_PAD = (0, 0)


def plain_shape(name: str, kind: str, size: Size, **rest: Any) -> LayerShape:
    """A layer without a window that keeps its channels: `rest` are further fields. Raises `UserError`."""
    return shaped(name, kind, size, size[0], **rest)


def slice_shape(name: str, size: Size, channels: int) -> LayerShape:
    """Taking neighbouring channels. Raises `UserError`."""
    return shaped(name, "slice", size, channels)


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


def pair(sides: int | Sequence[int]) -> tuple[int, int]:
    """Of height and width, of which PyTorch keeps one number where they are alike."""
    return (sides, sides) if isinstance(sides, int) else (sides[0], sides[1])


def window(kernel: Sequence[int], padding: tuple[int, int]) -> dict[str, int]:
    """The fields of a window: its width is told where it, or the padding that goes with it, isn't the height's."""
    square = {"kernel": kernel[0], "padding": padding[0]}
    is_square = len({*kernel}) == len({*padding}) == 1
    return square if is_square else {**square, "kernel_w": kernel[1], "padding_w": padding[1]}


def shaped(name: str, kind: str, size: Size, c_out: int, **rest: int | str) -> LayerShape:
    """The shape of a layer that reads `size`; `rest` are further fields. Raises `UserError`."""
    if len(size) not in (1, 3):
        raise UserError(f"{name}: reads {size}; only [N, channels, height, width] and [N, features] are supported")
    h, w = size[1:] or (1, 1)
    try:
        return LayerShape(kind, size[0], c_out, h, w, **rest)  # type: ignore[arg-type]
    except ShapeError as error:
        raise UserError(f"{name}: {error}") from error
