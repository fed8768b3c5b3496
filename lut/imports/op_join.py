"""The ops of an op-profile log, joined to a network's layers on their order: a log says kinds and names, no shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from amc_latency.android_bench.op_profile import Op
from amc_latency.lut.shapes.shape import AVG_POOLS, MAX_POOLS, LayerShape

PAD = "pad"
"""Belongs to the padded layer after it, whose shape holds the padding."""
ACTIVATION = "activation"
"""Belongs to the layer before it, whose shape has an activation."""
COPY = "copy"
"""XNNPACK's way to join tensors: a copy for each of them."""
LEFT_OUT = "left out"
"""Is no layer, unless the next one is what it may be: moves data, or makes probabilities of logits."""
POINTWISE = "pointwise"
"""A 1x1 convolution that is a matrix product."""

PRODUCTS = ("mul", "scale", "mul_scalar")

OPS: dict[str, tuple[str, ...]] = {
    "ADD": ("add", "add_scalar"),
    "AVERAGE_POOL_2D": (*AVG_POOLS, "global_pool"),
    # A 1x1 convolution on a 1x1 input is a linear layer: TF-slim's classifiers are written that way.
    "CONV_2D": ("conv", "grouped", "linear"),
    "CONCATENATION": ("concat",),
    "DEPTHWISE_CONV_2D": ("depthwise",),
    "ELU": (ACTIVATION,),
    "FULLY_CONNECTED": ("linear",),
    "GELU": (ACTIVATION,),
    "HARD_SWISH": (ACTIVATION,),
    "LEAKY_RELU": (ACTIVATION,),
    "LOGISTIC": (ACTIVATION,),
    "MAX_POOL_2D": MAX_POOLS,
    "MEAN": ("global_pool",),
    "MUL": PRODUCTS,
    "PAD": (PAD,),
    "PADV2": (PAD,),
    "PRELU": (ACTIVATION,),
    "RELU": (ACTIVATION,),
    "RELU6": (ACTIVATION,),
    "RESIZE_BILINEAR": ("bilinear",),
    "RESIZE_NEAREST_NEIGHBOR": ("nearest",),
    "SLICE": ("slice",),
    "STRIDED_SLICE": ("slice",),
    "TANH": (ACTIVATION,),
    "EXPAND_DIMS": (LEFT_OUT,),
    "RESHAPE": (LEFT_OUT,),
    "SOFTMAX": ("softmax", LEFT_OUT),
    "SQUEEZE": (LEFT_OUT,),
    "TRANSPOSE": ("shuffle", LEFT_OUT),
    # XNNPACK's, without the layout and types in brackets.
    "Add": ("add", "add_scalar"),
    "Average Pooling": (*AVG_POOLS, "global_pool"),
    "Binary Elementwise": ("add", "add_scalar", *PRODUCTS, ACTIVATION),
    "Clamp": (ACTIVATION,),
    "Constant Pad": (PAD,),
    "Convolution": ("conv", "depthwise", "grouped", "linear"),
    "Convolution DWConv": ("depthwise",),
    "Convolution GEMM": (POINTWISE, "grouped", "linear"),
    "Convolution IGEMM": ("conv", "grouped", "linear"),
    "Convolution VMulCAddC": ("depthwise",),
    "Copy": (COPY, LEFT_OUT),
    "Fully Connected": ("linear", POINTWISE),
    "Global Average Pooling": ("global_pool",),
    "HardSwish": (ACTIVATION,),
    "Leaky ReLU": (ACTIVATION,),
    "Max Pooling": MAX_POOLS,
    "Mean": ("global_pool",),
    "Multiply": PRODUCTS,
    "PReLU": (ACTIVATION,),
    "Reshape": (LEFT_OUT,),
    "Resize Bilinear": ("bilinear",),
    "Sigmoid": (ACTIVATION,),
    "Slice": ("slice",),
    "Softmax": ("softmax", LEFT_OUT),
    "Static Reshape": (LEFT_OUT,),
    "Tanh": (ACTIVATION,),
    "Transpose": ("shuffle", LEFT_OUT),
    "Unary Elementwise": (ACTIVATION,),
}
"""What an op of a log may be: kinds of layer, or one of the names above."""

_WITH_PRODUCT = ("silu", "hard_sigmoid")
"""Activations that end in a product: x sigmoid(x), and relu6(x + 3) / 6."""


class JoinError(ValueError):
    """Ops that are not those of the network: which one does not fit which layer."""


@dataclass(frozen=True)
class LayerOps:
    """One layer of the network with its ops in a log: its own, perhaps a PAD before it and an activation after it.

    A SiLU and a hard sigmoid are two ops, and a concat is as many copies as it has inputs where XNNPACK runs it.
    """

    shape: LayerShape
    ops: tuple[Op, ...]

    @property
    def us(self) -> float:
        """The ops' mean microseconds."""
        return 1000 * sum(op.avg_ms for op in self.ops)

    @property
    def lacks_activation(self) -> bool:
        """Whether an activation may follow: its own op may hold one, which a log does not say."""
        return self.shape.activation != "none" and op_kinds(self.ops[-1].node_type) != (ACTIVATION,)

    def lacks(self, kinds: Sequence[str], fits_next: bool) -> bool:
        """Whether an op of these kinds is one more of the layer's own; `fits_next` if it may be the next layer's."""
        if COPY in kinds:
            return self.shape.kind == "concat" and len(self.ops) < self.shape.parts and self._have(COPY)
        if "mul" not in kinds or self._have("mul"):
            return False
        # An average that doesn't count its border may be one that does, times how much of it there is.
        has_border = self.shape.kind in AVG_POOLS and (any(self.shape.padding_hw) or self.shape.end > 0)
        return self.shape.activation in _WITH_PRODUCT or (has_border and not fits_next)

    def _have(self, kind: str) -> bool:
        return any(kind in op_kinds(op.node_type) for op in self.ops)


@dataclass(frozen=True)
class Join:
    """All ops of a log: those of each layer in order of execution, and those that are no layer's."""

    layers: tuple[LayerOps, ...]
    left_out: tuple[Op, ...]


def join(ops: Sequence[Op], shapes: Sequence[LayerShape], names: Sequence[str]) -> Join:
    """Give each layer, in order of execution, the next op of its kind, and a PAD or an activation of its own.

    Raises `JoinError` that names layer and op where they don't match, and for ops too many or too few.
    """
    layers: list[LayerOps] = []
    left_out: list[Op] = []
    pads: list[Op] = []
    for place, op in enumerate(ops, start=1):
        what = f"op {place} of {len(ops)}, {op.node_type} '{op.name[:120]}',"
        kinds = op_kinds(op.node_type)
        if not kinds:
            raise JoinError(f"{what} is nothing that a layer of a latency table could be")
        if op.times_called != 1:
            raise JoinError(f"{what} was called {op.times_called} times a run: it is several ops of one name")
        shape = shapes[len(layers)] if len(layers) < len(shapes) else None
        fits = shape is not None and bool(_layer_kinds(shape).intersection(kinds))
        fused = kinds == (ACTIVATION,) and bool(layers) and layers[-1].lacks_activation and not fits
        if (fused or (layers and layers[-1].lacks(kinds, fits))) and not pads:
            layers[-1] = LayerOps(layers[-1].shape, (*layers[-1].ops, op))
        elif LEFT_OUT in kinds and not fits:
            left_out.append(op)
        elif shape is None:
            raise JoinError(f"{what} is left over after the network's {len(shapes)} layers: another `model`?")
        elif kinds == (PAD,) and (any(shape.padding_hw) or shape.end) and not pads:
            pads.append(op)
        elif fits:
            layers.append(LayerOps(shape, (*pads, op)))
            pads = []
        else:
            raise JoinError(
                f"{what} does not match layer {len(layers) + 1} of {len(shapes)}, "
                f"{_layer_text(shape, names[len(layers)])}: another `model`?"
            )
    if len(layers) < len(shapes):
        first = _layer_text(shapes[len(layers)], names[len(layers)])
        raise JoinError(
            f"its {len(ops)} ops are used up at layer {len(layers) + 1} of {len(shapes)}, {first}: another `model`?"
        )
    return Join(tuple(layers), tuple(left_out))


def op_kinds(node_type: str) -> tuple[str, ...]:
    """What an op may be: `OPS` of its name, with XNNPACK's kernel behind the brackets if that matters, else none."""
    name, _, rest = node_type.removeprefix("Delegate/").partition(" (")
    kernel = rest.partition(")")[2]
    return OPS.get(name + kernel) or OPS.get(name, ())


def _layer_kinds(shape: LayerShape) -> set[str]:
    pointwise = shape.kind == "conv" and (shape.taps, shape.stride) == (1, 1)
    if shape.activation == "hard_sigmoid":
        return {shape.kind, "add"}
    if shape.kind == "concat":
        return {shape.kind, COPY}
    return {shape.kind, POINTWISE} if pointwise else {shape.kind}


def _layer_text(shape: LayerShape, name: str) -> str:
    return f"'{name or shape.kind}' ({shape})"
