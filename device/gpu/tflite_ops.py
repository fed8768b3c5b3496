"""TFLite's operators as PyTorch's functions, with their constants in PyTorch's order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema
from amc_latency.device.tflite.tflite_file import Sign, TfliteFile, UnsupportedModelError
from torch import Tensor
from torch.nn import functional

Function = Callable[..., Tensor]
Source = int | np.ndarray | None
"""What an operator reads: a tensor of the file by its index, a constant, or nothing."""

_FUSED = schema.ActivationFunctionType
ACTIVATIONS: dict[int, Function | None] = {
    _FUSED.NONE: None,
    _FUSED.RELU: torch.relu_,
    _FUSED.RELU6: partial(functional.hardtanh_, min_val=0.0, max_val=6.0),
    _FUSED.RELU_N1_TO_1: partial(functional.hardtanh_, min_val=-1.0, max_val=1.0),
}
"""Fused into an operator; in place, since what they are applied to is nobody else's."""
_NCHW_AXIS = (0, 2, 3, 1)
_LOWEST = -1e38
"""A padding below this never wins a maximum."""

Built = tuple[Function, Sequence[Source]]
"""What computes an operator, and what it is to be given."""


def _conv(file: TfliteFile, operator: Any) -> Built:
    # OHWI in the file, OIHW here.
    weight = file.needed_constant(operator, 1).transpose(0, 3, 1, 2)
    groups = file.shape(int(operator.inputs[0]))[3] // weight.shape[1]
    return _convolution(file, operator, weight, groups)


def _depthwise(file: TfliteFile, operator: Any) -> Built:
    weight = file.needed_constant(operator, 1).transpose(3, 0, 1, 2)
    return _convolution(file, operator, weight, file.shape(int(operator.inputs[0]))[3])


def _convolution(file: TfliteFile, operator: Any, weight: np.ndarray, groups: int) -> Built:
    options = operator.builtinOptions
    dilation = (options.dilationHFactor, options.dilationWFactor)
    source, before, padding = _window(file, operator, weight.shape[2:], dilation, lambda fill, _: fill == 0.0)
    convolve = partial(functional.conv2d, stride=_stride(options), padding=padding, dilation=dilation, groups=groups)
    function: Function = convolve
    if before is not None:
        sides = before
        function = lambda x, weight, bias: convolve(functional.pad(x, sides), weight, bias)  # noqa: E731
    return function, [source, np.ascontiguousarray(weight), file.optional_constant(operator, 2)]


def _transpose_conv(file: TfliteFile, operator: Any) -> Built:
    out = file.shape(int(operator.outputs[0]))[1:3]
    whole = _patches(file, operator)
    over = [max(0, size - wanted) for size, wanted in zip(whole, out, strict=True)]
    if any(over) and operator.builtinOptions.padding == schema.Padding.VALID:
        raise UnsupportedModelError(f"it makes {list(out)} of {whole} without padding")
    # SAME leaves out what is over, the smaller half at the start.
    return _cropped_patches(file, operator, (over[0] // 2, over[1] // 2), out)


def _cropped_patches(file: TfliteFile, operator: Any, starts: tuple[int, int], out: Sequence[int]) -> Built:
    """A transposed convolution, of whose sum of patches `out` rows and columns from `starts` on are left."""
    # OHWI in the file, and PyTorch's transposed convolution has IOHW.
    weight = np.ascontiguousarray(file.needed_constant(operator, 1).transpose(3, 0, 1, 2))
    stride, (height, width), (top, left) = _stride(operator.builtinOptions), out, starts
    # What PyTorch leaves out at the end is as much as at the start, less its output padding.
    more = [n - size + 2 * start for n, size, start in zip(out, _patches(file, operator), starts, strict=True)]
    sources: list[Source] = [int(operator.inputs[2]), weight, file.optional_constant(operator, 3)]
    convolve = partial(functional.conv_transpose2d, stride=stride)
    if all(0 <= rest < step for rest, step in zip(more, stride, strict=True)):
        return partial(convolve, padding=starts, output_padding=tuple(more)), sources
    if any(rest - start > 0 for rest, start in zip(more, starts, strict=True)):
        raise UnsupportedModelError(f"it makes {list(out)}, more than its patches reach")

    def function(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return convolve(x, weight, bias)[:, :, top : top + height, left : left + width]

    return function, sources


def _patches(file: TfliteFile, operator: Any) -> list[int]:
    """Rows and columns of the whole sum of patches."""
    kernel, inputs = file.needed_constant(operator, 1).shape[1:3], file.shape(int(operator.inputs[2]))[1:3]
    stride = _stride(operator.builtinOptions)
    return [(n - 1) * step + side for n, step, side in zip(inputs, stride, kernel, strict=True)]


def _avg_pool(file: TfliteFile, operator: Any) -> Built:
    options = operator.builtinOptions
    kernel, stride = (options.filterHeight, options.filterWidth), _stride(options)
    source, before, padding = _window(
        file, operator, kernel, (1, 1), lambda fill, _: fill == 0.0 and _fits(file, operator, kernel)
    )
    pool = partial(functional.avg_pool2d, kernel_size=kernel, stride=stride)
    if options.padding == schema.Padding.VALID:
        # A PAD's zeros count, as they would in the file.
        return partial(pool, padding=padding, count_include_pad=True), [source]
    if before is None:
        return partial(pool, padding=padding, count_include_pad=False), [source]
    _, h, w, _ = file.shape(source)
    counted = pool(functional.pad(torch.ones(1, 1, h, w), before)).numpy()
    return lambda x, counted: pool(functional.pad(x, before)) / counted, [source, counted]


def _max_pool(file: TfliteFile, operator: Any) -> Built:
    options = operator.builtinOptions
    kernel, stride = (options.filterHeight, options.filterWidth), _stride(options)

    def folds(fill: float, source: int) -> bool:
        if not _fits(file, operator, kernel):
            return False
        return fill < _LOWEST or (fill == 0.0 and file.is_non_negative(source))

    source, before, padding = _window(file, operator, kernel, (1, 1), folds)
    pool = partial(functional.max_pool2d, kernel_size=kernel, stride=stride, padding=padding)
    if before is None:
        return pool, [source]
    return lambda x: pool(functional.pad(x, before, value=float("-inf"))), [source]


def _fits(file: TfliteFile, operator: Any, kernel: tuple[int, int]) -> bool:
    """Whether PyTorch's pools take the padding that is before this one: half a window at most."""
    _, sides = file.unpadded(int(operator.inputs[0]), lambda fill, source: True)
    return all(2 * side <= size for side, size in zip(sides, kernel, strict=True))


def _window(
    file: TfliteFile,
    operator: Any,
    kernel: Sequence[int],
    dilation: tuple[int, int],
    folds: Callable[[float, int], bool],
) -> tuple[int, list[int] | None, tuple[int, int]]:
    """What a window reads, what must be padded before it (as `functional.pad` takes it), and its own padding."""
    source, options = int(operator.inputs[0]), operator.builtinOptions
    if options.padding == schema.Padding.VALID:
        source, padding = file.unpadded(source, folds)
        return source, None, padding
    sides = []
    for size, window, step, spread in zip(file.shape(source)[1:3], kernel, _stride(options), dilation, strict=True):
        outputs = -(-size // step)
        total = max(0, (outputs - 1) * step + (window - 1) * spread + 1 - size)
        sides.append((total // 2, total - total // 2))
    (top, bottom), (left, right) = sides
    if top == bottom and left == right:
        return source, None, (top, left)
    return source, [left, right, top, bottom], (0, 0)


def _stride(options: Any) -> tuple[int, int]:
    if min(options.strideH, options.strideW) < 1:
        raise UnsupportedModelError(f"its stride is {options.strideH}x{options.strideW}")
    return options.strideH, options.strideW


def _linear(file: TfliteFile, operator: Any) -> Built:
    weight, source = file.needed_constant(operator, 1), int(operator.inputs[0])
    shape, out = file.shape(source), file.shape(int(operator.outputs[0]))
    if int(np.prod(shape[1:])) != weight.shape[1] or len(out) != 2:
        raise UnsupportedModelError(f"its input {list(shape)} is not a vector of {weight.shape[1]} for each image")

    def function(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return functional.linear(_as_in_file(x).flatten(1), weight, bias)

    return function, [source, weight, file.optional_constant(operator, 2)]


def _reshape(file: TfliteFile, operator: Any) -> Built:
    source = int(operator.inputs[0])
    shape, out = file.shape(source), file.shape(int(operator.outputs[0]))
    if not out or out[0] != shape[0] or int(np.prod(out)) != int(np.prod(shape)):
        raise UnsupportedModelError(f"from {list(shape)} to {list(out)} it does not keep the batch")

    def function(x: Tensor) -> Tensor:
        y = _as_in_file(x).reshape(len(x), *out[1:])
        return _as_here(y)

    return function, [source]


def _transpose(file: TfliteFile, operator: Any) -> Built:
    source, order = int(operator.inputs[0]), file.needed_constant(operator, 1).tolist()
    if order[0] != 0:
        raise UnsupportedModelError("it moves the batch")

    def function(x: Tensor) -> Tensor:
        return _as_here(_as_in_file(x).permute(order))

    return function, [source]


def _slice(file: TfliteFile, operator: Any) -> Built:
    source, out = int(operator.inputs[0]), file.shape(int(operator.outputs[0]))
    starts = file.needed_constant(operator, 1).tolist()
    if starts[0] != 0 or file.shape(source)[0] != out[0]:
        raise UnsupportedModelError("it takes some images only")
    name, maker = file.maker(source)
    if name == "TRANSPOSE_CONV" and (starts[3], out[3]) == (0, file.shape(source)[3]):
        # The padding of a transposed convolution, for which PyTorch makes no copy.
        whole, sources = _cropped_patches(file, maker, (starts[1], starts[2]), out[1:3])
        activation = ACTIVATIONS.get(maker.builtinOptions.fusedActivationFunction)
        return whole if activation is None else lambda *values: activation(whole(*values)), sources
    window = (slice(None), *(slice(start, start + size) for start, size in zip(starts[1:], out[1:], strict=True)))

    def function(x: Tensor) -> Tensor:
        return _as_here(_as_in_file(x)[window])

    return function, [source]


def _resize(mode: str) -> Callable[[TfliteFile, Any], Built]:
    def build(file: TfliteFile, operator: Any) -> Built:
        source, options = int(operator.inputs[0]), operator.builtinOptions
        before, after = file.shape(source)[1:3], file.shape(int(operator.outputs[0]))[1:3]
        whole = all(small > 0 and large % small == 0 for small, large in zip(before, after, strict=True))
        # Nearest neighbours of a whole factor are the same wherever a pixel's centre is.
        if options.alignCorners or not whole or (mode == "bilinear" and not options.halfPixelCenters):
            raise UnsupportedModelError("it enlarges otherwise than by a whole factor with half_pixel_centers")
        aligned = None if mode == "nearest" else False
        return partial(functional.interpolate, size=after, mode=mode, align_corners=aligned), [source]

    return build


def _leaky_relu(file: TfliteFile, operator: Any) -> Built:
    return partial(functional.leaky_relu, negative_slope=operator.builtinOptions.alpha), [int(operator.inputs[0])]


def _prelu(file: TfliteFile, operator: Any) -> Built:
    source, slopes = int(operator.inputs[0]), file.needed_constant(operator, 1)
    if slopes.size != slopes.shape[-1]:
        raise UnsupportedModelError(f"its slopes {list(slopes.shape)} differ between pixels")
    return functional.prelu, [source, np.ascontiguousarray(slopes.reshape(-1))]


def _gelu(file: TfliteFile, operator: Any) -> Built:
    how = "tanh" if operator.builtinOptions.approximate else "none"
    return partial(functional.gelu, approximate=how), [int(operator.inputs[0])]


def _as_here(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2) if x.dim() == 4 else x


def _as_in_file(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1) if x.dim() == 4 else x


def _binary(function: Function) -> Callable[[TfliteFile, Any], Built]:
    def build(file: TfliteFile, operator: Any) -> Built:
        rank = len(file.shape(int(operator.outputs[0])))
        sources: list[Source] = []
        for index in map(int, operator.inputs):
            values = file.constant(index)
            if values is None:
                if len(file.shape(index)) != rank:
                    raise UnsupportedModelError(f"its inputs have different ranks: {list(file.shape(index))}")
                sources.append(index)
                continue
            values = values.reshape((1,) * (rank - values.ndim) + values.shape)
            if rank and values.shape[0] != 1:
                raise UnsupportedModelError(f"its constant {list(values.shape)} differs between images")
            sources.append(np.ascontiguousarray(values.transpose(0, 3, 1, 2)) if rank == 4 else values)
        return function, sources

    return build


def _unary(function: Function) -> Callable[[TfliteFile, Any], Built]:
    return lambda file, operator: (function, [int(operator.inputs[0])])


def _pad(file: TfliteFile, operator: Any) -> Built:
    sides = file.needed_constant(operator, 1)
    if sides.shape != (4, 2) or sides[0].any():
        raise UnsupportedModelError("it pads something other than a feature map")
    # The last dimension first: width, height, channels.
    order = [int(side) for axis in (2, 1, 3) for side in sides[axis]]
    return partial(functional.pad, pad=order, value=file.fill(operator)), [int(operator.inputs[0])]


def _rank(file: TfliteFile, index: int) -> int:
    if not (rank := len(file.shape(index))):
        raise UnsupportedModelError("it has a tensor without dimensions")
    return rank


def _mean(file: TfliteFile, operator: Any) -> Built:
    source = int(operator.inputs[0])
    rank = _rank(file, source)
    axes = {int(axis) % rank for axis in file.needed_constant(operator, 1).reshape(-1)}
    if rank != 4 or axes != {1, 2}:
        raise UnsupportedModelError("it averages something other than height and width")
    return partial(torch.mean, dim=(2, 3), keepdim=bool(operator.builtinOptions.keepDims)), [source]


def _concatenation(file: TfliteFile, operator: Any) -> Built:
    rank = _rank(file, int(operator.outputs[0]))
    axis = operator.builtinOptions.axis % rank
    sources = [int(index) for index in operator.inputs]
    if axis == 0 or any(file.constant(index) is not None for index in sources):
        raise UnsupportedModelError("it joins images or constants")
    dim = _NCHW_AXIS[axis] if rank == 4 else axis
    return lambda *parts: torch.cat(parts, dim), sources


def _softmax(file: TfliteFile, operator: Any) -> Built:
    source, beta = int(operator.inputs[0]), operator.builtinOptions.beta
    dim = 1 if len(file.shape(source)) == 4 else -1
    return lambda x: torch.softmax(x if beta == 1.0 else beta * x, dim), [source]


@dataclass(frozen=True)
class Operator:
    """An operator of TFLite."""

    build: Callable[[TfliteFile, Any], Built]
    sign: Sign = "any"
    """what is known of its outputs, before a fused activation"""


OPERATORS: dict[str, Operator] = {
    "CONV_2D": Operator(_conv),
    "DEPTHWISE_CONV_2D": Operator(_depthwise),
    "TRANSPOSE_CONV": Operator(_transpose_conv),
    "FULLY_CONNECTED": Operator(_linear),
    "ADD": Operator(_binary(torch.add), "keeps"),
    "SUB": Operator(_binary(torch.sub)),
    "MUL": Operator(_binary(torch.mul), "keeps"),
    "PAD": Operator(_pad, "keeps"),
    "PADV2": Operator(_pad),
    "MEAN": Operator(_mean, "keeps"),
    "AVERAGE_POOL_2D": Operator(_avg_pool, "keeps"),
    "MAX_POOL_2D": Operator(_max_pool, "keeps"),
    "RESHAPE": Operator(_reshape, "keeps"),
    "SQUEEZE": Operator(_reshape),
    "TRANSPOSE": Operator(_transpose, "keeps"),
    "SLICE": Operator(_slice, "keeps"),
    "RESIZE_NEAREST_NEIGHBOR": Operator(_resize("nearest"), "keeps"),
    "RESIZE_BILINEAR": Operator(_resize("bilinear"), "keeps"),
    "CONCATENATION": Operator(_concatenation, "keeps"),
    "SOFTMAX": Operator(_softmax, "non_negative"),
    "RELU": Operator(_unary(torch.relu), "non_negative"),
    "RELU6": Operator(_unary(functional.relu6), "non_negative"),
    "LOGISTIC": Operator(_unary(torch.sigmoid), "non_negative"),
    "HARD_SWISH": Operator(_unary(functional.hardswish), "keeps"),
    "TANH": Operator(_unary(torch.tanh), "keeps"),
    "ELU": Operator(_unary(functional.elu), "keeps"),
    "LEAKY_RELU": Operator(_leaky_relu, "keeps"),
    "PRELU": Operator(_prelu),
    "GELU": Operator(_gelu, "keeps"),
    "ABS": Operator(_unary(torch.abs), "non_negative"),
}
SIGNS = {name: operator.sign for name, operator in OPERATORS.items()}
