"""Sums, products and activations: value by value."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import TYPE_CHECKING

from amc_latency.lut.shapes.activations import ACTIVATIONS, On
from amc_latency.lut.shapes.kind import Extra, Kind, Log, Writing

if TYPE_CHECKING:
    from amc_latency.device.tflite.tflite_file import Sign
    from amc_latency.lut.shapes.shape import LayerShape

ACTIVATION = "activation"
"""Role in a log, too: an op that belongs to the layer before it, whose shape has an activation."""
_SUMS = ("ADD", "Add", "Binary Elementwise")
_PRODUCTS = ("MUL", "Multiply", "Binary Elementwise")


def _write_activation(to: Writing) -> int:
    slopes = to.constants[0] if to.constants else None
    return ACTIVATIONS[to.shape.activation].write(On(to.graph, to.x, to.argument, slopes))


def _two_alike(shape: LayerShape) -> Sequence[tuple[int, ...]]:
    return [(shape.h, shape.w, shape.c_in)] * 2


def _sign_with_scalar(shape: LayerShape, argument: float) -> Sign:
    return "any" if argument < 0 else "keeps"


def _activation_roles(shape: LayerShape) -> Set[str]:
    return {ACTIVATION, "add"} if ACTIVATIONS[shape.activation].begins_as_sum else {ACTIVATION}


def _activation_extra(shape: LayerShape) -> Extra | None:
    return Extra("mul") if ACTIVATIONS[shape.activation].ends_in_product else None


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
            {ACTIVATION: tuple(dict.fromkeys(op for each in ACTIVATIONS.values() for op in each.ops))},
            _activation_roles,
            _activation_extra,
        ),
        takes_activation=True,
        sign=lambda shape, argument: ACTIVATIONS[shape.activation].sign,
        check=lambda shape: "an activation layer has an activation" if shape.activation == "none" else None,
        constants=lambda shape: ((shape.c_in,),) if ACTIVATIONS[shape.activation].has_slopes else (),
    ),
)
