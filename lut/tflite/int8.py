"""Writes `.tflite` files of int8 layers: static quantisation with a scale for each output channel of the weights.

A file that is only timed needs no right scales: runtimes take as long with any, as long as they are sane. So all
tensors share one, and all weights another, and a bias has their product, as TFLite wants it
(https://ai.google.dev/edge/litert/models/quantization_spec).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from amc_latency.device.tflite.tflite_file import Sign
from amc_latency.lut.tflite.writer import TfliteGraph

SCALE, ZERO_POINT = 6 / 255, -128
"""Of tensors: 0 to 6, as behind a relu6."""
WEIGHT_SCALE = 0.1 / 127
"""Of weights: -0.1 to 0.1. Other constants have one of their own, which reaches to their largest magnitude."""
_FIXED = {"SOFTMAX": (1 / 256, -128), "LOGISTIC": (1 / 256, -128), "TANH": (1 / 128, 0)}
"""Operators whose outputs have a scale and a zero point of their own by the specification."""
_VERSIONS = {
    "ADD": 2,
    "AVERAGE_POOL_2D": 2,
    "CONCATENATION": 2,
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "FULLY_CONNECTED": 4,
    "LOGISTIC": 2,
    "MAX_POOL_2D": 2,
    "MEAN": 2,
    "MUL": 2,
    "PAD": 2,
    "RELU": 2,
    "RELU6": 2,
    "RESIZE_BILINEAR": 3,
    "RESIZE_NEAREST_NEIGHBOR": 3,
    "SLICE": 2,
    "SOFTMAX": 2,
    "SUB": 2,
    "TANH": 2,
    "TRANSPOSE": 2,
}
"""The first of an operator that takes int8, where that is not 1 (tensorflow/compiler/mlir/lite/tools/versioning)."""


class Int8Graph(TfliteGraph):
    """A `.tflite` under construction whose tensors are int8: float32 constants are rounded as they come."""

    def __init__(self) -> None:
        super().__init__()
        self._by_channel: dict[int, float] = {}
        """weights and biases that have a scale for each channel out"""

    def quantize(self, x: int) -> int:
        """A float32 tensor as int8."""
        return self.operator("QUANTIZE", [x], self.shape(x))

    def dequantize(self, x: int) -> int:
        """An int8 tensor as float32."""
        out = self.operator("DEQUANTIZE", [x], self.shape(x), version=2)
        self.as_float(out)
        return out

    def constant(self, role: str, value: np.ndarray) -> int:
        """As `TfliteBuilder.constant`: a bias, which is added to sums of products, as int32, all else as int8."""
        if value.dtype != np.float32:
            return super().constant(role, value)
        if role == "bias":
            return self._rounded(role, value, SCALE * WEIGHT_SCALE, np.int32)
        scale = WEIGHT_SCALE if role == "weight" else float(np.abs(value).max()) / 127 or WEIGHT_SCALE
        return self._rounded(role, value, scale, np.int8)

    def operator(
        self,
        name: str,
        inputs: Sequence[int],
        shape: tuple[int, ...],
        options: str = "",
        sign: Sign = "any",
        version: int = 1,
        **settings: Any,
    ) -> int:
        """As `TfliteBuilder.operator`; what it makes is int8."""
        out = super().operator(name, inputs, shape, options, sign, max(version, _VERSIONS.get(name, 1)), **settings)
        self._scale(out, *_FIXED.get(name, (SCALE, ZERO_POINT)))
        channels_last = name == "DEPTHWISE_CONV_2D"
        for each in inputs:
            if each in self._by_channel:
                length = self.shape(each)[-1 if channels_last or len(self.shape(each)) == 1 else 0]
                axis = len(self.shape(each)) - 1 if channels_last else 0
                self._scale(each, self._by_channel[each], 0, length, axis)
        return out

    def _rounded(self, role: str, value: np.ndarray, scale: float, dtype: type[np.signedinteger[Any]]) -> int:
        key = (value.ctypes.data, value.shape, value.strides, role)
        if key not in self._stored:
            most = np.iinfo(dtype).max
            integers = np.clip(np.rint(value / scale), -most, most).astype(dtype)
            index = super().constant(role, integers)
            self._stored[key] = (index, value)
            if role in ("weight", "bias"):
                self._by_channel[index] = scale
            else:
                self._scale(index, scale, 0)
        return self._stored[key][0]

    def _tensor(self, name: str, shape: tuple[int, ...], dtype: Any = None, buffer: int = 0) -> int:
        index = super()._tensor(name, shape, np.int8 if dtype is None else dtype, buffer)
        if dtype is None:
            self._scale(index, SCALE, ZERO_POINT)
        return index

    def _scale(self, tensor: int, scale: float, zero_point: int, channels: int = 1, axis: int = 0) -> None:
        self._subgraph.tensors[tensor].quantization = schema.QuantizationParametersT(
            scale=np.full(channels, scale, np.float32),
            zeroPoint=np.full(channels, zero_point, np.int64),
            quantizedDimension=axis,
        )

    def as_float(self, tensor: int) -> None:
        """Make a tensor float32 that was int8."""
        made = self._subgraph.tensors[tensor]
        made.type, made.quantization = schema.TensorType.FLOAT32, None
