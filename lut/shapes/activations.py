"""Activations by name, a record each: how one is written on its own, what a log calls it, what its values may be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from amc_latency.device.tflite.tflite_file import Sign
    from amc_latency.lut.tflite.writer import TfliteGraph


@dataclass(frozen=True)
class On:
    """An activation on its way into a `.tflite`."""

    graph: TfliteGraph
    x: int
    """the tensor, by its index in the file"""
    argument: float | None = None
    """the slope of a leaky ReLU; None where nothing depends on it"""
    slopes: np.ndarray | None = None
    """one for each channel, or one for all, where `Activation.has_slopes`"""

    def operator(self, name: str, options: str = "", sign: Sign = "any", **settings: Any) -> int:
        """A single operator that does it."""
        return self.graph.operator(name, [self.x], self.graph.shape(self.x), options, sign, **settings)


@dataclass(frozen=True)
class Activation:
    """One that a layer may have; the name "none", which stands for no activation, has no record."""

    write: Callable[[On], int]
    """adds its operators to a file and returns its output"""
    ops: Sequence[str]
    """names of its own op in a log, TFLite's and XNNPACK's without what is in brackets"""
    fuses: bool = False
    """whether a layer may end in it at no cost"""
    non_negative: bool = False
    """whether it is never below zero"""
    sign: Sign = "keeps"
    """what is known of its outputs where the input may be below zero: see `Kind.sign`"""
    begins_as_sum: bool = False
    """whether its first op in a log may be a sum"""
    ends_in_product: bool = False
    """whether a product of its own follows in a log"""
    has_slopes: bool = False
    """whether it has a weight a channel"""
    int8: bool = True
    """whether TFLite has it in int8 on its own, and ai-edge-quantizer writes it"""
    int8_range: tuple[float, float] | None = None
    """what TFLite asks an int8 tensor of its outputs to range over; None for what its values do"""


def int8_range(name: str) -> tuple[float, float] | None:
    """Of the activation `name`, or of "none"; see `Activation.int8_range`."""
    return ACTIVATIONS[name].int8_range if name in ACTIVATIONS else None


def write(graph: TfliteGraph, x: int, name: str, argument: float | None = None) -> int:
    """The activation `name` on its own, one without weights. Raises `ValueError` for another."""
    if name not in ACTIVATIONS or ACTIVATIONS[name].has_slopes:
        raise ValueError(f"no way to write the activation {name}")
    return ACTIVATIONS[name].write(On(graph, x, argument))


def _silu(on: On) -> int:
    return on.graph.mul(on.x, write(on.graph, on.x, "sigmoid"))


def _hard_sigmoid(on: On) -> int:
    import numpy as np

    shifted = on.graph.add_constant(on.x, np.array([3.0]), "relu6")
    return on.graph.mul_constant(shifted, np.array([1 / 6]))


def _leaky_relu(on: On) -> int:
    slope = 0.01 if on.argument is None else on.argument
    return on.operator("LEAKY_RELU", "LeakyReluOptions", "keeps", alpha=slope)


def _prelu(on: On) -> int:
    assert on.slopes is not None
    return on.graph.prelu(on.x, on.slopes)


_UNARY, _BINARY = "Unary Elementwise", "Binary Elementwise"
_SIGMOID = ("LOGISTIC", "Sigmoid", _UNARY)
ACTIVATIONS = {
    "relu": Activation(
        lambda on: on.operator("RELU", sign="non_negative"), ("RELU", "Clamp", _UNARY), fuses=True, non_negative=True
    ),
    "relu6": Activation(
        lambda on: on.operator("RELU6", sign="non_negative"),
        ("RELU6", "Clamp", _UNARY),
        fuses=True,
        non_negative=True,
        int8=False,
    ),
    "hard_swish": Activation(lambda on: on.operator("HARD_SWISH", sign="keeps"), ("HARD_SWISH", "HardSwish", _UNARY)),
    "hard_sigmoid": Activation(_hard_sigmoid, (_BINARY,), non_negative=True, begins_as_sum=True, ends_in_product=True),
    "sigmoid": Activation(
        lambda on: on.operator("LOGISTIC", sign="non_negative"),
        _SIGMOID,
        non_negative=True,
        int8_range=(0.0, 255 / 256),
    ),
    "silu": Activation(_silu, _SIGMOID, ends_in_product=True),
    "tanh": Activation(
        lambda on: on.operator("TANH", sign="keeps"), ("TANH", "Tanh", _UNARY), int8_range=(-1.0, 127 / 128)
    ),
    "leaky_relu": Activation(_leaky_relu, ("LEAKY_RELU", "Leaky ReLU", _UNARY), int8=False),
    "prelu": Activation(_prelu, ("PRELU", "PReLU", _BINARY), sign="any", has_slopes=True, int8=False),
    "elu": Activation(lambda on: on.operator("ELU", sign="keeps"), ("ELU", _UNARY), int8=False),
    "gelu": Activation(lambda on: on.operator("GELU", "GeluOptions", "keeps"), ("GELU", _UNARY)),
}
"""In the order in which messages list them."""
