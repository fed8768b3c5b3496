"""Puts a `.tflite` together through the TFLite schema: tensors, constants, operators, and the file's bytes.

The object API used here is the one that `ai_edge_litert` ships (`schema_py_generated`, made from
tensorflow/compiler/mlir/lite/schema/schema.fbs).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from amc_latency.device.tflite.tflite_file import Sign

_OP, _OPTIONS = schema.BuiltinOperator, schema.BuiltinOptions
_OP_NAMES = {code: name.lower() for name, code in vars(_OP).items() if isinstance(code, int)}
_TENSOR_TYPES = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.int32): schema.TensorType.INT32,
    np.dtype(np.int8): schema.TensorType.INT8,
}
_CODED = {
    "padding": vars(schema.Padding),
    "fusedActivationFunction": {
        "none": schema.ActivationFunctionType.NONE,
        "relu": schema.ActivationFunctionType.RELU,
        "relu6": schema.ActivationFunctionType.RELU6,
    },
}
"""Settings of operators that go by a name."""
_ALIGNMENT = 16  # schema.fbs: `data:[ubyte] (force_align: 16)`; the generated Python forgets it


class Added(NamedTuple):
    """An operator of a file."""

    name: str
    """TFLite's, such as `CONV_2D`"""
    output: str
    """the name of the tensor that it makes"""


class TfliteBuilder:
    """A `.tflite` under construction: float32, batch 1. Tensors go by their index.

    Outputs are named `op<number>_<operator>` in order of addition.
    """

    def __init__(self) -> None:
        self._subgraph = schema.SubGraphT(name="main", tensors=[], operators=[])
        self._buffers: list[Any] = [schema.BufferT()]
        self._stored: dict[tuple[Any, ...], tuple[int, np.ndarray]] = {}
        self._codes: dict[tuple[int, int], int] = {}
        self._inputs: list[int] = []
        self._shapes: list[tuple[int, ...]] = []
        self._non_negative: set[int] = set()
        self.added: list[Added] = []
        """its operators so far"""

    def shape(self, x: int) -> tuple[int, ...]:
        """The tensor's shape, batch included."""
        return self._shapes[x]

    def is_non_negative(self, x: int) -> bool:
        """Whether no value of the tensor can be below zero."""
        return x in self._non_negative

    def as_float(self, tensor: int) -> None:
        """Make an input float32, as all tensors are here."""

    def input(self, *size: int, non_negative: bool = False) -> int:
        """A network input [1, *size]: height, width and channels, or channels alone."""
        index = self._tensor(_numbered("x", len(self._inputs)), (1, *size))
        self._inputs.append(index)
        if non_negative:
            self._non_negative.add(index)
        return index

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
                schema.OperatorCodeT(builtinCode=code, deprecatedBuiltinCode=min(code, 127), version=version)
                for code, version in self._codes
            ],
            subgraphs=[self._subgraph],
            buffers=self._buffers,
            signatureDefs=[signature],
        )
        return packed(model)

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
        """Add the operator called `name` in the schema, with `options` of this type, if any; its output, of `shape`.

        `padding` is SAME or VALID, `fusedActivationFunction` none, relu or relu6; `sign` is that before the activation;
        `version` is the operator's, which a runtime too old for what is set refuses.
        """
        coded = {key: _CODED[key][value] if key in _CODED else value for key, value in settings.items()}
        made = getattr(schema, f"{options}T")(**coded) if options else None
        return self._operator(
            getattr(_OP, name), inputs, shape, getattr(_OPTIONS, options or "NONE"), made, sign, version
        )

    def _operator(
        self,
        code: int,
        inputs: Sequence[int],
        shape: tuple[int, ...],
        kind: int = 0,
        options: Any = None,
        sign: Sign = "any",
        version: int = 1,
    ) -> int:
        operators = self._subgraph.operators
        name = f"op{len(operators):03d}_{_OP_NAMES[code]}"
        out = self._tensor(name, shape)
        self.added.append(Added(_OP_NAMES[code].upper(), name))
        operators.append(
            schema.OperatorT(
                opcodeIndex=self._codes.setdefault((code, version), len(self._codes)),
                inputs=np.array(inputs, np.int32),
                outputs=np.array([out], np.int32),
                builtinOptionsType=kind,
                builtinOptions=options,
            )
        )
        rectified = getattr(options, "fusedActivationFunction", schema.ActivationFunctionType.NONE) != 0
        kept = sign == "keeps" and self._non_negative.issuperset(inputs)
        if rectified or kept or sign == "non_negative":
            self._non_negative.add(out)
        return out

    def constant(self, role: str, value: np.ndarray) -> int:
        """A constant of the file; the very same array is stored once."""
        key = (value.ctypes.data, value.shape, value.strides, value.dtype)
        if key in self._stored:
            return self._stored[key][0]
        self._buffers.append(schema.BufferT(data=np.ascontiguousarray(value).reshape(-1).view(np.uint8)))
        name = f"op{len(self._subgraph.operators):03d}_{role}"
        index = self._tensor(name, value.shape, value.dtype, buffer=len(self._buffers) - 1)
        if value.min() >= 0:
            self._non_negative.add(index)
        # With the array, so that no other one comes to lie there.
        self._stored[key] = (index, value)
        return index

    def sizes(self, role: str, values: Sequence[Any]) -> int:
        """A constant of int32: a shape, or places in one."""
        return self.constant(role, np.array(values, np.int32))

    def _tensor(self, name: str, shape: tuple[int, ...], dtype: Any = np.float32, buffer: int = 0) -> int:
        """Add a tensor; without a `buffer` it is computed, or an input."""
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


def packed(model: Any) -> bytes:
    """The file of a `ModelT`, its constants within the FlatBuffer, where every runtime finds them."""
    model.buffers = [each if each.data is None else _AlignedBuffer(data=each.data) for each in model.buffers]
    # Large enough that the builder never has to double and copy its buffer.
    data = sum(len(buffer.data) + 64 for buffer in model.buffers if buffer.data is not None)
    parts = sum(len(graph.tensors) + len(graph.operators) for graph in model.subgraphs)
    builder = flatbuffers.Builder(1024 + data + 160 * parts)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(memoryview(builder.Bytes)[builder.Head() :])


class _AlignedBuffer(schema.BufferT):
    """A buffer of uint8 data at the alignment that the schema asks for."""

    def Pack(self, builder: Any) -> int:
        builder.Prep(_ALIGNMENT, self.data.nbytes)
        return super().Pack(builder)


def _numbered(name: str, index: int) -> str:
    return f"{name}{index}" if index else name
