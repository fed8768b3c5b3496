"""Sums, products and activations: value by value."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import TYPE_CHECKING

from amc_latency.lut.shapes.kind import Extra, Kind, Log, Writing

if TYPE_CHECKING:
    from amc_latency.device.tflite.tflite_file import Sign
    from amc_latency.lut.shapes.shape import LayerShape

ACTIVATION = "activation"
"""Role in a log, too: an op that belongs to the layer before it, whose shape has an activation."""
_SUMS = ("ADD", "Add", "Binary Elementwise")
_PRODUCTS = ("MUL", "Multiply", "Binary Elementwise")
_WITH_PRODUCT = ("silu", "hard_sigmoid")
"""Activations that end in a product: x sigmoid(x), and relu6(x + 3) / 6."""


def _write_activation(to: Writing) -> int:
    if to.shape.activation == "prelu":
        return to.graph.prelu(to.x, to.constants[0])
    return to.graph.activation(to.x, to.shape.activation, to.argument)


def _two_alike(shape: LayerShape) -> Sequence[tuple[int, ...]]:
    return [(shape.h, shape.w, shape.c_in)] * 2


def _sign_with_scalar(shape: LayerShape, argument: float) -> Sign:
    return "any" if argument < 0 else "keeps"


def _activation_roles(shape: LayerShape) -> Set[str]:
    return {ACTIVATION, "add"} if shape.activation == "hard_sigmoid" else {ACTIVATION}


def _activation_extra(shape: LayerShape) -> Extra | None:
    return Extra("mul") if shape.activation in _WITH_PRODUCT else None


KINDS = (
    Kind(
        "add",
        lambda to: to.graph.add(to.x, to.inputs[1], to.shape.activation),
        Log({"add": _SUMS}),
        takes_activation=True,
        inputs=_two_alike,
    ),
    Kind(
        "mul",
        lambda to: to.graph.mul(to.x, to.inputs[1], to.shape.activation),
        Log({"mul": _PRODUCTS}),
        takes_activation=True,
        inputs=_two_alike,
    ),
    Kind(
        "scale",
        lambda to: to.graph.mul(to.x, to.inputs[1], to.shape.activation),
        Log({"scale": _PRODUCTS}),
        on_maps=True,
        takes_activation=True,
        inputs=lambda shape: [(shape.h, shape.w, shape.c_in), (1, 1, shape.c_in)],
    ),
    Kind(
        "add_scalar",
        lambda to: to.graph.add_constant(to.x, to.constants[0], to.shape.activation),
        Log({"add_scalar": _SUMS}),
        takes_activation=True,
        sign=_sign_with_scalar,
        constants=lambda shape: ((1,),),
    ),
    Kind(
        "mul_scalar",
        lambda to: to.graph.mul_constant(to.x, to.constants[0], to.shape.activation),
        Log({"mul_scalar": _PRODUCTS}),
        takes_activation=True,
        sign=_sign_with_scalar,
        constants=lambda shape: ((1,),),
    ),
    Kind(
        ACTIVATION,
        _write_activation,
        Log(
            {
                ACTIVATION: (
                    *("ELU", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOGISTIC", "PRELU", "RELU", "RELU6", "TANH"),
                    *("Binary Elementwise", "Clamp", "HardSwish", "Leaky ReLU", "PReLU", "Sigmoid", "Tanh"),
                    "Unary Elementwise",
                )
            },
            _activation_roles,
            _activation_extra,
        ),
        takes_activation=True,
        sign=lambda shape, argument: "any" if shape.activation == "prelu" else "keeps",
        check=lambda shape: "an activation layer has an activation" if shape.activation == "none" else None,
        constants=lambda shape: ((shape.c_in,),) if shape.activation == "prelu" else (),
    ),
)
