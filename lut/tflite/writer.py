"""Writes `.tflite` files op by op, straight through the TFLite schema: no converter and no torch.

Everything is float32, NHWC, batch 1. XNNPACK, which runs these files on CPUs, takes all of it but nearest-neighbour
upsampling and joins of more than five tensors; those are no slower outside of it than what it would take instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from amc_latency.lut.shapes.window import Window
from amc_latency.lut.tflite.builder import TfliteBuilder

_OP, _OPTIONS, _PADDING = schema.BuiltinOperator, schema.BuiltinOptions, schema.Padding
_FUSED = {
    "none": schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
}
_ACTIVATIONS = {
    "relu": _OP.RELU,
    "relu6": _OP.RELU6,
    "hard_swish": _OP.HARD_SWISH,
    "sigmoid": _OP.LOGISTIC,
    "tanh": _OP.TANH,
    "elu": _OP.ELU,
}
"""Those that are an operator without options."""


Sides = int | tuple[int, int]
"""Of height and width, or of both alike."""
Windows = tuple[Window, Window]
"""Down and across."""


class TfliteGraph(TfliteBuilder):
    """A `.tflite` under construction. A method that adds an operator returns the index of its output tensor.

    Tensors are float32 [1, H, W, C], or [1, C] after a global pool, a flatten or a linear layer. `padding` is
    symmetric, in pixels (or in pixels down and across), as in PyTorch; `end` is what comes on top at the bottom and on
    the right. An `activation` that is fused into another operator is none, relu or relu6.
    """

    def conv(
        self,
        x: int,
        weight: np.ndarray,
        bias: np.ndarray,
        stride: int = 1,
        padding: Sides = 0,
        activation: str = "none",
        end: int = 0,
        dilation: int = 1,
    ) -> int:
        """A convolution; `weight` is [out, height, width, in], with fewer channels in than `x` has if it is grouped."""
        options = schema.Conv2DOptionsT(fusedActivationFunction=_FUSED[activation])
        windows = _windows(weight.shape[1:3], stride, padding, end, dilation)
        return self._convolve(_OP.CONV_2D, _OPTIONS.Conv2DOptions, options, x, weight, bias, windows)

    def depthwise(
        self,
        x: int,
        weight: np.ndarray,
        bias: np.ndarray,
        stride: int = 1,
        padding: Sides = 0,
        activation: str = "none",
        end: int = 0,
        dilation: int = 1,
    ) -> int:
        """A depthwise convolution, a filter a channel; `weight` is [1, height, width, channels], `bias` [channels]."""
        options = schema.DepthwiseConv2DOptionsT(depthMultiplier=1, fusedActivationFunction=_FUSED[activation])
        windows = _windows(weight.shape[1:3], stride, padding, end, dilation)
        kind = _OPTIONS.DepthwiseConv2DOptions
        return self._convolve(_OP.DEPTHWISE_CONV_2D, kind, options, x, weight, bias, windows)

    def linear(self, x: int, weight: np.ndarray, bias: np.ndarray, activation: str = "none") -> int:
        """A linear layer; `weight` is [out, in]. A [1, 1, 1, in] input needs no reshape before it."""
        options = schema.FullyConnectedOptionsT(fusedActivationFunction=_FUSED[activation])
        inputs = [x, self._constant("weight", weight), self._constant("bias", bias)]
        kind = _OPTIONS.FullyConnectedOptions
        return self._operator(_OP.FULLY_CONNECTED, inputs, (1, weight.shape[0]), kind, options)

    def add(self, a: int, b: int, activation: str = "none") -> int:
        """The sum of two tensors of one shape."""
        options = schema.AddOptionsT(fusedActivationFunction=_FUSED[activation])
        return self._operator(_OP.ADD, [a, b], self.shape(a), _OPTIONS.AddOptions, options)

    def add_constant(self, x: int, values: np.ndarray, activation: str = "none") -> int:
        """The tensor and one figure for each of its channels: `values` [C], or one for all of them [1]."""
        return self.add(x, self._constant("values", values.astype(np.float32)), activation)

    def mul_constant(self, x: int, values: np.ndarray, activation: str = "none") -> int:
        """The tensor times one figure for each of its channels: `values` [C], or one for all of them [1]."""
        return self.mul(x, self._constant("values", values.astype(np.float32)), activation)

    def prelu(self, x: int, slopes: np.ndarray) -> int:
        """What is below zero times its channel's slope: `slopes` [C]."""
        slopes = slopes.astype(np.float32, copy=False).reshape(*(1,) * (len(self.shape(x)) - 2), -1)
        return self._operator(_OP.PRELU, [x, self._constant("slopes", slopes)], self.shape(x))

    def mul(self, a: int, b: int, activation: str = "none") -> int:
        """The product of two tensors of one shape, or of a feature map and one figure a channel [1, 1, 1, C]."""
        options = schema.MulOptionsT(fusedActivationFunction=_FUSED[activation])
        return self._operator(_OP.MUL, [a, b], self.shape(a), _OPTIONS.MulOptions, options)

    def concat(self, parts: Sequence[int]) -> int:
        """The parts' channels one after the other; everything else is the same in all of them."""
        *rest, _ = self.shape(parts[0])
        out = (*rest, sum(self.shape(part)[-1] for part in parts))
        options = schema.ConcatenationOptionsT(axis=len(rest))
        return self._operator(_OP.CONCATENATION, parts, out, _OPTIONS.ConcatenationOptions, options)

    def slice(self, x: int, start: int, length: int) -> int:
        """`length` channels from `start` on."""
        *rest, _ = self.shape(x)
        begin, size = np.array([0] * len(rest) + [start], np.int32), np.array([*rest, length], np.int32)
        inputs = [x, self._constant("begin", begin), self._constant("size", size)]
        return self._operator(_OP.SLICE, inputs, (*rest, length), _OPTIONS.SliceOptions, schema.SliceOptionsT())

    def shuffle(self, x: int, groups: int) -> int:
        """ShuffleNet's shuffle: one channel of each group in turn, [g, C / g] to [C / g, g]."""
        _, h, w, c = self.shape(x)
        dealt = self.reshape(x, (1, h * w, groups, c // groups))
        order = self._constant("order", np.array([0, 1, 3, 2], np.int32))
        out, kind = (1, h * w, c // groups, groups), _OPTIONS.TransposeOptions
        turned = self._operator(_OP.TRANSPOSE, [dealt, order], out, kind, schema.TransposeOptionsT())
        return self.reshape(turned, (1, h, w, c))

    def upsample(self, x: int, factor: int, mode: str) -> int:
        """Height and width times `factor`; `mode` is nearest or bilinear (PyTorch's `align_corners=False`)."""
        _, h, w, c = self.shape(x)
        out = (1, h * factor, w * factor, c)
        inputs = [x, self._constant("size", np.array(out[1:3], np.int32))]
        if mode == "nearest":
            nearest = schema.ResizeNearestNeighborOptionsT(halfPixelCenters=True)
            return self._operator(
                _OP.RESIZE_NEAREST_NEIGHBOR, inputs, out, _OPTIONS.ResizeNearestNeighborOptions, nearest
            )
        if mode != "bilinear":
            raise ValueError(f"upsampling is nearest or bilinear, not {mode}")
        options = schema.ResizeBilinearOptionsT(halfPixelCenters=True)
        return self._operator(_OP.RESIZE_BILINEAR, inputs, out, _OPTIONS.ResizeBilinearOptions, options)

    def softmax(self, x: int) -> int:
        """Softmax over the channels."""
        options = schema.SoftmaxOptionsT(beta=1.0)
        return self._operator(_OP.SOFTMAX, [x], self.shape(x), _OPTIONS.SoftmaxOptions, options)

    def activation(self, x: int, name: str, alpha: float | None = None) -> int:
        """An activation on its own; `alpha` is a leaky ReLU's slope below zero (0.01 if None)."""
        match name:
            case "silu":
                return self.mul(x, self.activation(x, "sigmoid"))
            case "hard_sigmoid":
                shifted = self.add_constant(x, np.array([3.0]), "relu6")
                return self.mul_constant(shifted, np.array([1 / 6]))
            case "leaky_relu":
                options = schema.LeakyReluOptionsT(alpha=0.01 if alpha is None else alpha)
                return self._operator(_OP.LEAKY_RELU, [x], self.shape(x), _OPTIONS.LeakyReluOptions, options)
            case "gelu":
                return self._operator(_OP.GELU, [x], self.shape(x), _OPTIONS.GeluOptions, schema.GeluOptionsT())
        if name not in _ACTIVATIONS:
            raise ValueError(f"no way to write the activation {name}")
        return self._operator(_ACTIVATIONS[name], [x], self.shape(x))

    def avg_pool(
        self,
        x: int,
        kernel: Sides,
        stride: int,
        padding: Sides = 0,
        activation: str = "none",
        end: int = 0,
        count_include_pad: bool = True,
    ) -> int:
        """An average pool; `padding` counts as zeros if `count_include_pad`, and `end` never counts: as in PyTorch."""
        windows = _windows(_pair(kernel), stride, padding, end)
        counted = [
            window.counted(size, count_include_pad) for window, size in zip(windows, self.shape(x)[1:3], strict=True)
        ]
        if all((pixels == window.kernel).all() for window, pixels in zip(windows, counted, strict=True)):
            return self._pool(_OP.AVERAGE_POOL_2D, self._pad(x, windows), windows, _PADDING.VALID, activation)
        if not (count_include_pad and any(_pair(padding))) and self._is_same(x, windows):
            return self._pool(_OP.AVERAGE_POOL_2D, x, windows, _PADDING.SAME, activation)
        pooled = self._pool(_OP.AVERAGE_POOL_2D, self._pad(x, windows), windows, _PADDING.VALID, "none")
        share = windows[0].kernel * windows[1].kernel / np.multiply.outer(*counted)[None, :, :, None]
        return self.mul(pooled, self._constant("share", share.astype(np.float32)), activation)

    def max_pool(
        self, x: int, kernel: Sides, stride: int, padding: Sides = 0, activation: str = "none", end: int = 0
    ) -> int:
        """A max pool; padding never wins, as in PyTorch."""
        # XNNPACK takes PAD, which fills with zeros, but not PADV2; where nothing below zero is left they agree.
        zeros_lose = self.is_non_negative(x) or activation != "none"
        fill = 0.0 if zeros_lose else float(np.finfo(np.float32).min)
        windows = _windows(_pair(kernel), stride, padding, end)
        x, mode = self._padded(x, windows, fill)
        return self._pool(_OP.MAX_POOL_2D, x, windows, mode, activation)

    def global_pool(self, x: int, keep_dims: bool = False) -> int:
        """The mean over height and width: [1, H, W, C] to [1, C], or to [1, 1, 1, C] if `keep_dims`."""
        inputs = [x, self._constant("axes", np.array([1, 2], np.int32))]
        options = schema.ReducerOptionsT(keepDims=keep_dims)
        c = self.shape(x)[-1]
        out = (1, 1, 1, c) if keep_dims else (1, c)
        return self._operator(_OP.MEAN, inputs, out, _OPTIONS.ReducerOptions, options)

    def flatten(self, x: int) -> int:
        """A reshape of [1, H, W, C] to [1, H * W * C], in that order."""
        return self.reshape(x, (1, int(np.prod(self.shape(x)))))

    def reshape(self, x: int, shape: tuple[int, ...]) -> int:
        """The same values in the same order, as `shape`."""
        sizes = np.array(shape, np.int32)
        options = schema.ReshapeOptionsT(newShape=sizes)
        return self._operator(_OP.RESHAPE, [x, self._constant("shape", sizes)], shape, _OPTIONS.ReshapeOptions, options)

    def absolute(self, x: int) -> int:
        """Absolute values."""
        return self._operator(_OP.ABS, [x], self.shape(x), _OPTIONS.AbsOptions, schema.AbsOptionsT())

    def _convolve(
        self, code: int, kind: int, options: Any, x: int, weight: np.ndarray, bias: np.ndarray, windows: Windows
    ) -> int:
        x, options.padding = self._padded(x, windows)
        options.strideH, options.strideW = (window.stride for window in windows)
        options.dilationHFactor, options.dilationWFactor = (window.dilation for window in windows)
        inputs = [x, self._constant("weight", weight), self._constant("bias", bias)]
        out = self._window_output(x, windows, options.padding, len(bias))
        return self._operator(code, inputs, out, kind, options)

    def _pool(self, code: int, x: int, windows: Windows, mode: int, activation: str) -> int:
        options = schema.Pool2DOptionsT(
            padding=mode,
            strideH=windows[0].stride,
            strideW=windows[1].stride,
            filterHeight=windows[0].kernel,
            filterWidth=windows[1].kernel,
            fusedActivationFunction=_FUSED[activation],
        )
        return self._operator(code, [x], self._window_output(x, windows, mode), _OPTIONS.Pool2DOptions, options)

    def _window_output(self, x: int, windows: Windows, mode: int, channels: int | None = None) -> tuple[int, ...]:
        _, *h_w, c = self.shape(x)
        reaches = [1 if mode == _PADDING.SAME else window.reach for window in windows]
        out = [(n - reach) // window.stride + 1 for n, reach, window in zip(h_w, reaches, windows, strict=True)]
        return (1, *out, channels or c)

    def _padded(self, x: int, windows: Windows, fill: float = 0.0) -> tuple[int, int]:
        """What a window reads and its padding mode: SAME only where TFLite pads just as PyTorch does."""
        if any(window.padding or window.end for window in windows) and self._is_same(x, windows):
            return x, _PADDING.SAME
        return self._pad(x, windows, fill), _PADDING.VALID

    def _is_same(self, x: int, windows: Windows) -> bool:
        return all(window.is_same(size) for window, size in zip(windows, self.shape(x)[1:3], strict=True))

    def _pad(self, x: int, windows: Windows, fill: float = 0.0) -> int:
        _, h, w, c = self.shape(x)
        sides = np.array([(0, 0), windows[0].sides(h), windows[1].sides(w), (0, 0)], np.int32)
        if not sides.any():
            return x
        out = (1, h + int(sides[1].sum()), w + int(sides[2].sum()), c)
        inputs = [x, self._constant("sides", sides)]
        if fill == 0.0:
            return self._operator(_OP.PAD, inputs, out, _OPTIONS.PadOptions, schema.PadOptionsT())
        inputs.append(self._constant("fill", np.array([fill], np.float32)))
        return self._operator(_OP.PADV2, inputs, out, _OPTIONS.PadV2Options, schema.PadV2OptionsT())


def _pair(sides: Sides) -> tuple[int, int]:
    return (sides, sides) if isinstance(sides, int) else sides


def _windows(kernel: Sequence[int], stride: int, padding: Sides, end: int = 0, dilation: int = 1) -> Windows:
    down, across = (
        Window(size, stride, zeros, end, dilation) for size, zeros in zip(kernel, _pair(padding), strict=True)
    )
    return down, across
