"""Writes `.tflite` files op by op, straight through the TFLite schema: no converter and no torch.

Everything is float32, NHWC, batch 1. XNNPACK, which runs these files on CPUs, takes all of it but nearest-neighbour
upsampling and joins of more than five tensors; those are no slower outside of it than what it would take instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from amc_latency.lut.tflite.builder import TfliteBuilder
from amc_latency.lut.tflite.window import Sides, Windows, windows

_RESIZES = {
    "nearest": ("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions"),
    "bilinear": ("RESIZE_BILINEAR", "ResizeBilinearOptions"),
}


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
        sides = windows(weight.shape[1:3], stride, padding, end, dilation)
        return self._convolve("CONV_2D", "Conv2DOptions", x, weight, bias, sides, activation)

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
        sides = windows(weight.shape[1:3], stride, padding, end, dilation)
        options = "DepthwiseConv2DOptions"
        return self._convolve("DEPTHWISE_CONV_2D", options, x, weight, bias, sides, activation, depthMultiplier=1)

    def linear(self, x: int, weight: np.ndarray, bias: np.ndarray, activation: str = "none") -> int:
        """A linear layer; `weight` is [out, in]. A [1, 1, 1, in] input needs no reshape before it."""
        inputs, out = [x, self.constant("weight", weight), self.constant("bias", bias)], (1, weight.shape[0])
        options = "FullyConnectedOptions"
        return self.operator("FULLY_CONNECTED", inputs, out, options, fusedActivationFunction=activation)

    def add(self, a: int, b: int, activation: str = "none") -> int:
        """The sum of two tensors of one shape."""
        return self.operator("ADD", [a, b], self.shape(a), "AddOptions", "keeps", fusedActivationFunction=activation)

    def add_constant(self, x: int, values: np.ndarray, activation: str = "none") -> int:
        """The tensor and one figure for each of its channels: `values` [C], or one for all of them [1]."""
        return self.add(x, self.constant("values", values.astype(np.float32)), activation)

    def mul_constant(self, x: int, values: np.ndarray, activation: str = "none") -> int:
        """The tensor times one figure for each of its channels: `values` [C], or one for all of them [1]."""
        return self.mul(x, self.constant("values", values.astype(np.float32)), activation)

    def prelu(self, x: int, slopes: np.ndarray) -> int:
        """What is below zero times its channel's slope: `slopes` [C], or one for all of them [1]."""
        slopes = np.broadcast_to(slopes, self.shape(x)[-1:])
        slopes = slopes.astype(np.float32, copy=False).reshape(*(1,) * (len(self.shape(x)) - 2), -1)
        return self.operator("PRELU", [x, self.constant("slopes", slopes)], self.shape(x))

    def mul(self, a: int, b: int, activation: str = "none") -> int:
        """The product of two tensors of one shape, or of a feature map and one figure a channel [1, 1, 1, C]."""
        return self.operator("MUL", [a, b], self.shape(a), "MulOptions", "keeps", fusedActivationFunction=activation)

    def concat(self, parts: Sequence[int]) -> int:
        """The parts' channels one after the other; everything else is the same in all of them."""
        *rest, _ = self.shape(parts[0])
        out = (*rest, sum(self.shape(part)[-1] for part in parts))
        return self.operator("CONCATENATION", parts, out, "ConcatenationOptions", "keeps", axis=len(rest))

    def slice(self, x: int, start: int, length: int) -> int:
        """`length` channels from `start` on."""
        *rest, _ = self.shape(x)
        inputs = [x, self.sizes("begin", [0] * len(rest) + [start]), self.sizes("size", [*rest, length])]
        return self.operator("SLICE", inputs, (*rest, length), "SliceOptions", "keeps")

    def shuffle(self, x: int, groups: int) -> int:
        """ShuffleNet's shuffle: one channel of each group in turn, [g, C / g] to [C / g, g]."""
        _, h, w, c = self.shape(x)
        dealt = self.reshape(x, (1, h * w, groups, c // groups))
        order, out = self.sizes("order", [0, 1, 3, 2]), (1, h * w, c // groups, groups)
        turned = self.operator("TRANSPOSE", [dealt, order], out, "TransposeOptions", "keeps")
        return self.reshape(turned, (1, h, w, c))

    def upsample(self, x: int, factor: int, mode: str) -> int:
        """Height and width times `factor`; `mode` is nearest or bilinear (PyTorch's `align_corners=False`)."""
        _, h, w, c = self.shape(x)
        out = (1, h * factor, w * factor, c)
        if mode not in _RESIZES:
            raise ValueError(f"upsampling is nearest or bilinear, not {mode}")
        inputs, (name, options) = [x, self.sizes("size", out[1:3])], _RESIZES[mode]
        return self.operator(name, inputs, out, options, "keeps", halfPixelCenters=True)

    def softmax(self, x: int) -> int:
        """Softmax over the channels."""
        return self.operator("SOFTMAX", [x], self.shape(x), "SoftmaxOptions", "non_negative", beta=1.0)

    def global_pool(self, x: int, keep_dims: bool = False) -> int:
        """The mean over height and width: [1, H, W, C] to [1, C], or to [1, 1, 1, C] if `keep_dims`."""
        inputs = [x, self.sizes("axes", [1, 2])]
        c = self.shape(x)[-1]
        out = (1, 1, 1, c) if keep_dims else (1, c)
        return self.operator("MEAN", inputs, out, "ReducerOptions", "keeps", keepDims=keep_dims)

    def flatten(self, x: int) -> int:
        """A reshape of [1, H, W, C] to [1, H * W * C], in that order."""
        return self.reshape(x, (1, int(np.prod(self.shape(x)))))

    def reshape(self, x: int, shape: tuple[int, ...]) -> int:
        """The same values in the same order, as `shape`."""
        sizes = np.array(shape, np.int32)
        inputs = [x, self.constant("shape", sizes)]
        return self.operator("RESHAPE", inputs, shape, "ReshapeOptions", "keeps", newShape=sizes)

    def absolute(self, x: int) -> int:
        """Absolute values."""
        return self.operator("ABS", [x], self.shape(x), "AbsOptions", "non_negative")

    def _convolve(
        self,
        name: str,
        options: str,
        x: int,
        weight: np.ndarray,
        bias: np.ndarray,
        sides: Windows,
        activation: str,
        **settings: Any,
    ) -> int:
        x, mode = self.padded(x, sides)
        inputs = [x, self.constant("weight", weight), self.constant("bias", bias)]
        return self.operator(
            name,
            inputs,
            self.window_output(x, sides, mode, len(bias)),
            options,
            padding=mode,
            strideH=sides[0].stride,
            strideW=sides[1].stride,
            dilationHFactor=sides[0].dilation,
            dilationWFactor=sides[1].dilation,
            fusedActivationFunction=activation,
            **settings,
        )

    def window_output(self, x: int, sides: Windows, mode: str, channels: int | None = None) -> tuple[int, ...]:
        """The shape of what a window makes of `x`, padded as TFLite's `mode`, SAME or VALID, says."""
        _, *h_w, c = self.shape(x)
        reaches = [1 if mode == "SAME" else window.reach for window in sides]
        out = [(n - reach) // window.stride + 1 for n, reach, window in zip(h_w, reaches, sides, strict=True)]
        return (1, *out, channels or c)

    def padded(self, x: int, sides: Windows, fill: float = 0.0) -> tuple[int, str]:
        """What a window reads and its padding mode: SAME only where TFLite pads just as PyTorch does."""
        if any(window.padding or window.end for window in sides) and self.is_same(x, sides):
            return x, "SAME"
        return self.pad(x, sides, fill), "VALID"

    def is_same(self, x: int, sides: Windows) -> bool:
        """Whether TFLite's SAME pads `x` for this window just as PyTorch does."""
        return all(window.is_same(size) for window, size in zip(sides, self.shape(x)[1:3], strict=True))

    def pad(self, x: int, sides: Windows, fill: float = 0.0) -> int:
        """The padding of a window put around `x`, if there is any."""
        _, h, w, c = self.shape(x)
        zeros = np.array([(0, 0), sides[0].sides(h), sides[1].sides(w), (0, 0)], np.int32)
        if not zeros.any():
            return x
        out = (1, h + int(zeros[1].sum()), w + int(zeros[2].sum()), c)
        inputs = [x, self.constant("sides", zeros)]
        if fill == 0.0:
            return self.operator("PAD", inputs, out, "PadOptions", "keeps")
        inputs.append(self.constant("fill", np.array([fill], np.float32)))
        return self.operator("PADV2", inputs, out, "PadV2Options")
