"""A file's inputs and outputs as uint8, around one that has them as int8."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

_BETWEEN = 128
"""from int8's zero to that of uint8"""


def as_uint8(model: Any) -> None:
    """Have the inputs and outputs of a `ModelT` that are int8 be uint8, of the same values; they keep their names.

    A QUANTIZE stands between the two, as in the files of TensorFlow's own converter: LiteRT's kernel flips a bit.
    """
    graph = model.subgraphs[0]
    before: list[Any] = []
    after: list[Any] = []
    code = _quantize_code(model)
    # Those that were read from a file can't be written to.
    graph.inputs, graph.outputs = np.array(graph.inputs), np.array(graph.outputs)
    for of_inputs, indices in ((True, graph.inputs), (False, graph.outputs)):
        for place, index in enumerate(map(int, indices)):
            inner = graph.tensors[index]
            if inner.type != schema.TensorType.INT8:
                continue
            outer = copy.deepcopy(inner)
            outer.type = schema.TensorType.UINT8
            outer.buffer = 0
            outer.quantization.zeroPoint = np.array([int(inner.quantization.zeroPoint[0]) + _BETWEEN], np.int64)
            inner.name = _text(inner.name) + "_int8"
            graph.tensors.append(outer)
            new = len(graph.tensors) - 1
            source, target = (new, index) if of_inputs else (index, new)
            (before if of_inputs else after).append(_operator(code, source, target))
            indices[place] = new
            for signature in model.signatureDefs or ():
                for each in signature.inputs if of_inputs else signature.outputs:
                    if each.tensorIndex == index:
                        each.tensorIndex = new
    graph.operators = [*before, *graph.operators, *after]


def _operator(code: int, source: int, target: int) -> Any:
    return schema.OperatorT(
        opcodeIndex=code,
        inputs=np.array([source], np.int32),
        outputs=np.array([target], np.int32),
        builtinOptionsType=schema.BuiltinOptions.QuantizeOptions,
        builtinOptions=schema.QuantizeOptionsT(),
    )


def _quantize_code(model: Any) -> int:
    quantize = schema.BuiltinOperator.QUANTIZE
    for index, each in enumerate(model.operatorCodes):
        if each.builtinCode == quantize:
            # From 8 bits to 8 bits is its second version's.
            each.version = max(each.version, 2)
            return index
    model.operatorCodes.append(
        schema.OperatorCodeT(builtinCode=quantize, deprecatedBuiltinCode=min(quantize, 127), version=2)
    )
    return len(model.operatorCodes) - 1


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else name
