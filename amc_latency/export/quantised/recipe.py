"""From a calibration and a precision for each layer to the bytes of a `.tflite`, by ai-edge-quantizer.

The quantizer leaves out in silence what it can't do and what a recipe misspells, so a recipe names each operator by
what it makes, and the operators of what came out are looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from amc_latency.device.tflite.unpacked import unpacked
from amc_latency.errors import ExportError
from amc_latency.export.quantised.biases import keep_biases
from amc_latency.export.quantised.calibration import Calibration, quantised_bytes, quantizer_of
from amc_latency.export.quantised.edges import as_uint8
from amc_latency.export.quantised.policy import UINT8, Policy
from amc_latency.lut.shapes.precisions import FLOAT32, INT8
from amc_latency.lut.tflite.builder import Added, packed

_WITHOUT = {"PADV2": "its fill, the lowest float, has no place among 256 steps"}
"""Operators that the quantizer has a rule for, which fails."""
_TYPES = {FLOAT32: schema.TensorType.FLOAT32, INT8: schema.TensorType.INT8, UINT8: schema.TensorType.UINT8}


@dataclass(frozen=True)
class Quantised:
    """A quantised file."""

    content: bytes
    policy: Policy
    """what its layers are"""
    left_float: Mapping[int, str] = field(default_factory=dict)
    """layers that were to be int8 and aren't, by their number, and which operator can't be"""


def quantise(calibration: Calibration, policy: Policy, io: str = FLOAT32) -> Quantised:
    """The file with each layer in the precision that `policy` has for it, and inputs and outputs of type `io`.

    A layer of which an operator can't be int8 stays float32. Raises `ExportError`.
    """
    operators = calibration.file.operators
    left = {
        layer: why
        for layer, (name, own) in enumerate(zip(policy, operators, strict=True))
        if name == INT8 and (why := _why_not(own))
    }
    while True:
        applied = tuple(FLOAT32 if layer in left else name for layer, name in enumerate(policy))
        model = _quantised(calibration, applied, io)
        skipped = _skipped(model, applied, operators)
        if not skipped:
            break
        left |= skipped
    if io == UINT8:
        as_uint8(model)
    _check_io(model, io)
    return Quantised(packed(model), applied, dict(sorted(left.items())))


def _quantised(calibration: Calibration, policy: Policy, io: str) -> Any:
    """The file as a `ModelT` whose inputs and outputs are float32 or int8."""
    plain = calibration.file.content
    if INT8 not in policy and io == FLOAT32:
        return unpacked(plain)
    quantizer = quantizer_of(calibration)
    for name, own in zip(policy, calibration.file.operators, strict=True):
        for each in own if name == INT8 else ():
            # It looks for the expression in the outputs' names, each with a semicolon after it.
            quantizer.add_static_config(f"^{re.escape(each.output)};?$", _quantizer_name(each.name), 8, 8)
    if io != FLOAT32:
        quantizer.add_static_config(".*", "INPUT", 8, 8)
        quantizer.add_static_config(".*", "OUTPUT", 8, 8)
    model = unpacked(quantised_bytes(quantizer, calibration))
    keep_biases(model, unpacked(plain))
    return model


def _skipped(model: Any, policy: Policy, operators: Iterable[tuple[Added, ...]]) -> dict[int, str]:
    """Layers that should be int8 and of which an operator is not."""
    graph = model.subgraphs[0]
    made = [graph.tensors[int(index)] for operator in graph.operators for index in operator.outputs]
    types = {_text(tensor.name): tensor.type for tensor in made}
    found = {}
    for layer, (name, own) in enumerate(zip(policy, operators, strict=True)):
        for each in own if name == INT8 else ():
            if types.get(each.output) != schema.TensorType.INT8:
                found[layer] = f"{each.name}: ai-edge-quantizer left it float32"
    return found


def _check_io(model: Any, io: str) -> None:
    graph = model.subgraphs[0]
    for index in (*graph.inputs, *graph.outputs):
        tensor = graph.tensors[int(index)]
        if tensor.type != _TYPES[io]:
            raise ExportError(f"ai-edge-quantizer left {_text(tensor.name)} as it was, which was to be {io}")


def _why_not(operators: Iterable[Added]) -> str | None:
    """Which of a layer's operators can't be int8, and why; None if all can."""
    for each in operators:
        if each.name in _WITHOUT:
            return f"{each.name}: {_WITHOUT[each.name]}"
        if not _is_known(each.name):
            return f"{each.name}: there is no int8 kernel, or ai-edge-quantizer has no rule for it"
    return None


@cache
def _is_known(name: str) -> bool:
    """Whether the quantizer has a rule for static int8 of the operator."""
    from ai_edge_quantizer.recipe_manager import RecipeManager

    try:
        RecipeManager().add_static_config(".*", _quantizer_name(name), 8, 8)
    except (ValueError, KeyError):
        return False
    return True


def _quantizer_name(name: str) -> Any:
    """What the quantizer calls TFLite's operator. Raises KeyError for one that it doesn't know."""
    from ai_edge_quantizer.utils.tfl_flatbuffer_utils import TFL_OP_CODE_TO_NAME

    return TFL_OP_CODE_TO_NAME[getattr(schema.BuiltinOperator, name)]


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else name
