"""Writes `.tflite` files straight through the TFLite schema: one layer from its shape, or a network op by op.

No converter and no torch. Everything is float32, NHWC, batch 1. The object API used here is the one that
`ai_edge_litert` ships (`schema_py_generated`, made from tensorflow/compiler/mlir/lite/schema/schema.fbs).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from lut.shape import LayerShape, ShapeError

_OP = schema.BuiltinOperator
_OP_NAMES = {code: name.lower() for name, code in vars(_OP).items() if isinstance(code, int)}
_ACTIVATIONS = {
    "none": schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
}
_TENSOR_TYPES = {np.dtype(np.float32): schema.TensorType.FLOAT32, np.dtype(np.int32): schema.TensorType.INT32}
_KEEPS_SIGN = (_OP.ADD, _OP.MAX_POOL_2D, _OP.AVERAGE_POOL_2D)
_ALIGNMENT = 16  # schema.fbs: `data:[ubyte] (force_align: 16)`; the generated Python forgets it
_RANDOM_BLOCK = 1 << 20


class TfliteGraph:
    """A `.tflite` under construction. A method that adds an operator returns the index of its output tensor.

    Tensors are float32 [1, H, W, C], or [1, C] after a global pool, a flatten or a linear layer. `padding` is
    symmetric, in pixels, as in PyTorch. Outputs are named `op<number>_<operator>` in order of addition.
    """

    def __init__(self) -> None:
        self._subgraph = schema.SubGraphT(name="main", tensors=[], operators=[])
        self._buffers: list[Any] = [schema.BufferT()]
        self._codes: dict[int, int] = {}
        self._inputs: list[int] = []
        self._shapes: list[tuple[int, ...]] = []
        self._non_negative: set[int] = set()

    def shape(self, x: int) -> tuple[int, ...]:
        """The tensor's shape, batch included."""
        return self._shapes[x]

    def input(self, *size: int, non_negative: bool = False) -> int:
        """A network input [1, *size]: height, width and channels, or channels alone."""
        index = self._tensor(_numbered("x", len(self._inputs)), (1, *size))
        self._inputs.append(index)
        if non_negative:
            self._non_negative.add(index)
        return index

    def conv(
        self,
        x: int,
        weight: np.ndarray,
        bias: np.ndarray,
        stride: int = 1,
        padding: int = 0,
        activation: str = "none",
    ) -> int:
        """A convolution; `weight` is [out, k, k, in], `bias` [out]."""
        options = schema.Conv2DOptionsT(fusedActivationFunction=_ACTIVATIONS[activation])
        return self._convolve(
            _OP.CONV_2D, schema.BuiltinOptions.Conv2DOptions, options, x, weight, bias, stride, padding
        )

    def depthwise(
        self,
        x: int,
        weight: np.ndarray,
        bias: np.ndarray,
        stride: int = 1,
        padding: int = 0,
        activation: str = "none",
    ) -> int:
        """A depthwise convolution, a filter a channel; `weight` is [1, k, k, channels], `bias` [channels]."""
        options = schema.DepthwiseConv2DOptionsT(depthMultiplier=1, fusedActivationFunction=_ACTIVATIONS[activation])
        kind = schema.BuiltinOptions.DepthwiseConv2DOptions
        return self._convolve(_OP.DEPTHWISE_CONV_2D, kind, options, x, weight, bias, stride, padding)

    def linear(self, x: int, weight: np.ndarray, bias: np.ndarray, activation: str = "none") -> int:
        """A linear layer; `weight` is [out, in]. A [1, 1, 1, in] input needs no reshape before it."""
        options = schema.FullyConnectedOptionsT(fusedActivationFunction=_ACTIVATIONS[activation])
        inputs = [x, self._constant("weight", weight), self._constant("bias", bias)]
        kind = schema.BuiltinOptions.FullyConnectedOptions
        return self._operator(_OP.FULLY_CONNECTED, inputs, (1, weight.shape[0]), kind, options)

    def add(self, a: int, b: int, activation: str = "none") -> int:
        """The sum of two tensors of one shape."""
        options = schema.AddOptionsT(fusedActivationFunction=_ACTIVATIONS[activation])
        return self._operator(_OP.ADD, [a, b], self.shape(a), schema.BuiltinOptions.AddOptions, options)

    def avg_pool(self, x: int, kernel: int, stride: int, padding: int = 0, activation: str = "none") -> int:
        """An average pool; padding counts as zeros in the average (PyTorch's `count_include_pad=True`)."""
        x = self._pad(x, padding)
        return self._pool(_OP.AVERAGE_POOL_2D, x, kernel, stride, schema.Padding.VALID, activation)

    def max_pool(self, x: int, kernel: int, stride: int, padding: int = 0, activation: str = "none") -> int:
        """A max pool; padding never wins, as in PyTorch."""
        # XNNPACK takes PAD, which fills with zeros, but not PADV2; where nothing is below zero they agree.
        fill = 0.0 if x in self._non_negative else float(np.finfo(np.float32).min)
        x, mode = self._padded(x, kernel, stride, padding, fill)
        return self._pool(_OP.MAX_POOL_2D, x, kernel, stride, mode, activation)

    def global_pool(self, x: int) -> int:
        """The mean over height and width: [1, H, W, C] to [1, C]."""
        inputs = [x, self._constant("axes", np.array([1, 2], np.int32))]
        options = schema.ReducerOptionsT(keepDims=False)
        out = (1, self.shape(x)[-1])
        return self._operator(_OP.MEAN, inputs, out, schema.BuiltinOptions.ReducerOptions, options)

    def flatten(self, x: int) -> int:
        """A reshape of [1, H, W, C] to [1, H * W * C], in that order."""
        size = int(np.prod(self.shape(x)))
        inputs = [x, self._constant("shape", np.array([1, size], np.int32))]
        options = schema.ReshapeOptionsT(newShape=np.array([1, size], np.int32))
        return self._operator(_OP.RESHAPE, inputs, (1, size), schema.BuiltinOptions.ReshapeOptions, options)

    def absolute(self, x: int) -> int:
        """Absolute values."""
        kind = schema.BuiltinOptions.AbsOptions
        return self._operator(_OP.ABS, [x], self.shape(x), kind, schema.AbsOptionsT())

    def finish(self, outputs: Sequence[int]) -> bytes:
        """The file, with a signature `serving_default` from x (x1, ...) to y (y1, ...)."""
        self._subgraph.inputs = np.array(self._inputs, np.int32)
        self._subgraph.outputs = np.array(outputs, np.int32)
        signature = schema.SignatureDefT(
            signatureKey="serving_default",
            inputs=[schema.TensorMapT(_numbered("x", i), index) for i, index in enumerate(self._inputs)],
            outputs=[schema.TensorMapT(_numbered("y", i), index) for i, index in enumerate(outputs)],
        )
        model = schema.ModelT(
            version=3,
            description="amc-latency",
            operatorCodes=[
                schema.OperatorCodeT(builtinCode=code, deprecatedBuiltinCode=min(code, 127)) for code in self._codes
            ],
            subgraphs=[self._subgraph],
            buffers=self._buffers,
            signatureDefs=[signature],
        )
        # Large enough that the builder never has to double and copy its buffer.
        data = sum(buffer.data.nbytes + 64 for buffer in self._buffers[1:])
        builder = flatbuffers.Builder(1024 + data + 160 * (len(self._shapes) + len(self._subgraph.operators)))
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(memoryview(builder.Bytes)[builder.Head() :])

    def _convolve(
        self,
        code: int,
        kind: int,
        options: Any,
        x: int,
        weight: np.ndarray,
        bias: np.ndarray,
        stride: int,
        padding: int,
    ) -> int:
        kernel = weight.shape[1]
        x, options.padding = self._padded(x, kernel, stride, padding)
        options.strideH = options.strideW = stride
        inputs = [x, self._constant("weight", weight), self._constant("bias", bias)]
        out = self._window_output(x, kernel, stride, options.padding, len(bias))
        return self._operator(code, inputs, out, kind, options)

    def _pool(self, code: int, x: int, kernel: int, stride: int, mode: int, activation: str) -> int:
        options = schema.Pool2DOptionsT(
            padding=mode,
            strideH=stride,
            strideW=stride,
            filterHeight=kernel,
            filterWidth=kernel,
            fusedActivationFunction=_ACTIVATIONS[activation],
        )
        out = self._window_output(x, kernel, stride, mode, self.shape(x)[-1])
        return self._operator(code, [x], out, schema.BuiltinOptions.Pool2DOptions, options)

    def _window_output(self, x: int, kernel: int, stride: int, mode: int, channels: int) -> tuple[int, ...]:
        _, h, w, _ = self.shape(x)
        reach = 1 if mode == schema.Padding.SAME else kernel
        return (1, (h - reach) // stride + 1, (w - reach) // stride + 1, channels)

    def _padded(self, x: int, kernel: int, stride: int, padding: int, fill: float = 0.0) -> tuple[int, int]:
        """What a window reads and its padding mode: SAME only where TFLite pads just as PyTorch does."""
        _, h, w, _ = self.shape(x)
        if padding and all(same_is_symmetric(size, kernel, stride, padding) for size in (h, w)):
            return x, schema.Padding.SAME
        return self._pad(x, padding, fill), schema.Padding.VALID

    def _pad(self, x: int, padding: int, fill: float = 0.0) -> int:
        if not padding:
            return x
        _, h, w, c = self.shape(x)
        out = (1, h + 2 * padding, w + 2 * padding, c)
        sides = np.array([[0, 0], [padding, padding], [padding, padding], [0, 0]], np.int32)
        inputs = [x, self._constant("sides", sides)]
        if fill == 0.0:
            padded = self._operator(_OP.PAD, inputs, out, schema.BuiltinOptions.PadOptions, schema.PadOptionsT())
            if x in self._non_negative:
                self._non_negative.add(padded)
            return padded
        inputs.append(self._constant("fill", np.array([fill], np.float32)))
        return self._operator(_OP.PADV2, inputs, out, schema.BuiltinOptions.PadV2Options, schema.PadV2OptionsT())

    def _operator(self, code: int, inputs: Sequence[int], shape: tuple[int, ...], kind: int, options: Any) -> int:
        operators = self._subgraph.operators
        out = self._tensor(f"op{len(operators):03d}_{_OP_NAMES[code]}", shape)
        operators.append(
            schema.OperatorT(
                opcodeIndex=self._codes.setdefault(code, len(self._codes)),
                inputs=np.array(inputs, np.int32),
                outputs=np.array([out], np.int32),
                builtinOptionsType=kind,
                builtinOptions=options,
            )
        )
        rectified = getattr(options, "fusedActivationFunction", _ACTIVATIONS["none"]) != _ACTIVATIONS["none"]
        if rectified or (code in _KEEPS_SIGN and self._non_negative.issuperset(inputs)):
            self._non_negative.add(out)
        return out

    def _constant(self, role: str, value: np.ndarray) -> int:
        self._buffers.append(_AlignedBuffer(data=np.ascontiguousarray(value).reshape(-1).view(np.uint8)))
        name = f"op{len(self._subgraph.operators):03d}_{role}"
        return self._tensor(name, value.shape, value.dtype, buffer=len(self._buffers) - 1)

    def _tensor(self, name: str, shape: tuple[int, ...], dtype: Any = np.float32, buffer: int = 0) -> int:
        tensor = schema.TensorT(
            shape=np.array(shape, np.int32),
            type=_TENSOR_TYPES[np.dtype(dtype)],
            buffer=buffer,
            name=name,
            hasRank=True,
        )
        self._subgraph.tensors.append(tensor)
        self._shapes.append(shape)
        return len(self._shapes) - 1


class _AlignedBuffer(schema.BufferT):
    """A buffer of uint8 data at the alignment that the schema asks for."""

    def Pack(self, builder: Any) -> int:
        builder.Prep(_ALIGNMENT, self.data.nbytes)
        return super().Pack(builder)


def same_is_symmetric(size: int, kernel: int, stride: int, padding: int) -> bool:
    """Whether TFLite's SAME is `padding` zeros on both sides.

    SAME gives ceil(size / stride) outputs and puts the odd zero at the end: on an even input, a 3x3 window with
    stride 2 lies one pixel further on than PyTorch's.
    """
    outputs = -(-size // stride)
    return max(0, (outputs - 1) * stride + kernel - size) == 2 * padding and outputs == (
        (size + 2 * padding - kernel) // stride + 1
    )


def layer_model(shape: LayerShape) -> bytes:
    """A `.tflite` of this one layer, with weights that depend on nothing but their number.

    Raises `ShapeError` for an activation that the kind cannot have.
    """
    if shape.kind in ("global_pool", "noop") and shape.activation != "none":
        raise ShapeError(f"a {shape.kind} layer has no fused activation: {shape.text}")
    graph = TfliteGraph()
    size = (shape.c_in,) if shape.kind == "linear" else (shape.h, shape.w, shape.c_in)
    # A max pool follows a ReLU in practice, and is measured as it is written there.
    x = graph.input(*size, non_negative=shape.kind == "max_pool")
    k, window = shape.kernel, (shape.stride, shape.padding, shape.activation)
    match shape.kind:
        case "conv":
            out = graph.conv(x, _weights(shape.c_out, k, k, shape.c_in), _weights(shape.c_out), *window)
        case "depthwise":
            out = graph.depthwise(x, _weights(1, k, k, shape.c_in), _weights(shape.c_in), *window)
        case "linear":
            out = graph.linear(x, _weights(shape.c_out, shape.c_in), _weights(shape.c_out), shape.activation)
        case "add":
            out = graph.add(x, graph.input(*size), shape.activation)
        case "avg_pool":
            out = graph.avg_pool(x, k, *window)
        case "max_pool":
            out = graph.max_pool(x, k, *window)
        case "global_pool":
            out = graph.global_pool(x)
        case "noop":
            out = graph.absolute(x)
        case _:
            raise ShapeError(f"no way to write a {shape.kind} layer: {shape.text}")
    return graph.finish([out])


def _weights(*shape: int) -> np.ndarray:
    """Ordinary float32 values: magnitudes from 0.01 to 0.1, both signs, the same on every call."""
    size, block = int(np.prod(shape)), _random_block()
    values = block[:size] if size <= len(block) else np.resize(block, size)
    return values.reshape(shape)


@lru_cache(maxsize=1)
def _random_block() -> np.ndarray:
    # Drawing weights anew for every file would take longer than writing it.
    draw = np.random.default_rng(0)
    magnitude = draw.uniform(0.01, 0.1, _RANDOM_BLOCK).astype(np.float32)
    block = np.where(draw.random(_RANDOM_BLOCK) < 0.5, -magnitude, magnitude)
    block.setflags(write=False)
    return block


def _numbered(name: str, index: int) -> str:
    return f"{name}{index}" if index else name
