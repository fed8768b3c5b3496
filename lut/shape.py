"""The layer shape: everything that decides a layer's cost and nothing else. It is the latency table's key."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

WEIGHTED_KINDS = ("conv", "depthwise", "grouped", "linear")
MAX_POOLS = ("max_pool", "signed_max_pool")
"""a signed one has padding, and reads what may be below zero: padding by zeros would win there"""
WINDOW_KINDS = ("conv", "depthwise", "grouped", "avg_pool", *MAX_POOLS)
"""what slides over the image: the kinds that kernel, stride, padding and dilation mean something to"""
KINDS = (
    *WEIGHTED_KINDS,
    *("add", "mul", "scale", "concat", "slice", "shuffle", "activation", "softmax"),
    *("avg_pool", *MAX_POOLS, "global_pool", "nearest", "bilinear", "noop"),
)
FUSED_ACTIVATIONS = ("none", "relu", "relu6")
"""those that a layer may end in at no cost"""
ACTIVATIONS = (
    *FUSED_ACTIVATIONS,
    *("hard_swish", "hard_sigmoid", "sigmoid", "silu", "tanh", "leaky_relu", "elu", "gelu"),
)
DTYPES = ("float32",)
_CHANGES_CHANNELS = ("conv", "linear", "slice")

_TEXT = re.compile(
    r"(?P<kind>[a-z_]+) (?P<c_in>\d+)x(?P<h>\d+)x(?P<w>\d+)>(?P<c_out>\d+)"
    r" k(?P<kernel>\d+) s(?P<stride>\d+) p(?P<padding>\d+)(?:\+(?P<end>\d+))?"
    r"(?: d(?P<dilation>\d+))?(?: g(?P<per_group>\d+))?(?: n(?P<parts>\d+))?"
    r" (?P<activation>[a-z0-9_]+) (?P<dtype>[a-z0-9]+)"
)


class ShapeError(ValueError):
    """A layer shape that cannot exist, or a text that is not one."""


@dataclass(frozen=True, slots=True, order=True)
class LayerShape:
    """One layer as a device sees it, per image: NHWC, symmetric padding as in PyTorch.

    `h` and `w` are the input's height and width. A linear layer has `h = w = 1`, an add and a mul read two equal
    inputs, a scale multiplies each channel by its own figure (squeeze-and-excitation), and a global pool averages its
    whole input. Pointwise is a `conv` with `kernel = 1`; a batch norm that no convolution can take in is a `depthwise`
    with `kernel = 1`. An `activation` is one that no layer could end in. `nearest` and `bilinear` upsample by `stride`.
    Raises `ShapeError`.
    """

    kind: str
    c_in: int
    c_out: int
    h: int = 1
    w: int = 1
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    activation: str = "none"
    dtype: str = "float32"
    end: int = 0
    """padding at the bottom and the right beyond `padding`: TensorFlow's SAME, PyTorch's ceil_mode"""
    dilation: int = 1
    per_group: int = 0
    """channels in, and as many out, of each group of a `grouped` convolution"""
    parts: int = 1
    """inputs of a `concat`; what a `shuffle` deals the channels out to"""

    def __post_init__(self) -> None:
        for value, allowed, what in (
            (self.kind, KINDS, "kind"),
            (self.activation, ACTIVATIONS, "activation"),
            (self.dtype, DTYPES, "dtype"),
        ):
            if value not in allowed:
                raise ShapeError(f"layer {what} '{value}' is none of {', '.join(allowed)}")
        sizes = (self.c_in, self.c_out, self.h, self.w, self.kernel, self.stride, self.dilation, self.parts)
        if min(sizes) < 1 or min(self.padding, self.end, self.per_group) < 0:
            raise ShapeError(f"a layer's sizes must be positive: {self.text}")
        if self.kind not in _CHANGES_CHANNELS and self.c_in != self.c_out:
            raise ShapeError(f"a {self.kind} layer has as many channels out as in: {self.text}")
        if self.kind == "slice" and self.c_out > self.c_in:
            raise ShapeError(f"a slice has no more channels out than in: {self.text}")
        if self.kind == "activation" and self.activation == "none":
            raise ShapeError(f"an activation layer has an activation: {self.text}")
        if self.kind != "activation" and self.activation not in FUSED_ACTIVATIONS:
            raise ShapeError(f"a {self.kind} layer cannot end in {self.activation}: {self.text}")
        if (self.kind == "grouped") != (self.per_group > 0) or self.c_in % (self.per_group or 1):
            raise ShapeError(f"a grouped convolution, and no other layer, has groups of equal width: {self.text}")
        if self.kind == "concat" and not 2 <= self.parts <= self.c_in:
            raise ShapeError(f"a concat joins two tensors or more, each with a channel: {self.text}")
        if self.kind == "shuffle" and self.c_in % self.parts:
            raise ShapeError(f"a shuffle deals its channels out evenly: {self.text}")
        if self.kind not in ("concat", "shuffle") and self.parts != 1:
            raise ShapeError(f"only concat and shuffle have parts: {self.text}")
        if self.kind not in WINDOW_KINDS and (self.end, self.dilation) != (0, 1):
            raise ShapeError(f"a {self.kind} layer has no dilation and no padding at its end: {self.text}")
        if self.kind == "linear" and (self.h, self.w) != (1, 1):
            raise ShapeError(f"a linear layer's input is 1x1: {self.text}")
        if max(self.padding, self.end) >= self.reach and (self.padding, self.end) != (0, 0):
            raise ShapeError(f"padding must be smaller than the kernel: {self.text}")
        if min(self.h, self.w) + 2 * self.padding + self.end < self.reach:
            raise ShapeError(f"the kernel is larger than the padded input: {self.text}")

    @property
    def reach(self) -> int:
        """Pixels from one end of the kernel to the other: `d (k - 1) + 1`."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def h_out(self) -> int:
        """Output height: `floor((h + 2p + end - reach) / s) + 1`; 1 after a global pool, `h s` after upsampling."""
        return self._out(self.h)

    @property
    def w_out(self) -> int:
        """Output width, as `h_out`."""
        return self._out(self.w)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of convolutions and linear layers; adds and pools count 0, as in the AMC paper."""
        return self._weights * self.h_out * self.w_out

    @property
    def params(self) -> int:
        """Weights and biases of the deployed layer, batch-norm folded."""
        return self._weights + (self.c_out if self._weights else 0)

    @property
    def text(self) -> str:
        """One line that names the shape, e.g. `conv 3x224x224>32 k3 s2 p1 relu6 float32`."""
        rare = f"+{self.end}" if self.end else ""
        rare += f" d{self.dilation}" if self.dilation != 1 else ""
        rare += f" g{self.per_group}" if self.per_group else ""
        rare += f" n{self.parts}" if self.parts != 1 else ""
        return (
            f"{self.kind} {self.c_in}x{self.h}x{self.w}>{self.c_out}"
            f" k{self.kernel} s{self.stride} p{self.padding}{rare} {self.activation} {self.dtype}"
        )

    def __str__(self) -> str:
        return self.text

    @property
    def _weights(self) -> int:
        match self.kind:
            case "conv":
                return self.kernel**2 * self.c_in * self.c_out
            case "depthwise":
                return self.kernel**2 * self.c_out
            case "grouped":
                return self.kernel**2 * self.per_group * self.c_out
            case "linear":
                return self.c_in * self.c_out
        return 0

    def _out(self, size: int) -> int:
        if self.kind == "global_pool":
            return 1
        if self.kind in ("nearest", "bilinear"):
            return size * self.stride
        return (size + 2 * self.padding + self.end - self.reach) // self.stride + 1


NOOP = LayerShape("noop", 1, 1)
"""The least a runtime can do: what a table takes off every layer as fixed overhead."""

NetworkShape = tuple[LayerShape, ...]
"""A whole network as its layers' shapes, in order of execution."""


# A table's keys are read again by whoever predicts from it; a table has thousands, a network's key dozens of layers.
@lru_cache(maxsize=2**15)
def parse_shape(text: str) -> LayerShape:
    """The inverse of `LayerShape.text`. Raises `ShapeError` quoting the text."""
    found = _TEXT.fullmatch(text)
    if found is None:
        raise ShapeError(f"'{text}' is not a layer shape; one looks like '{NOOP.text}'")
    return LayerShape(
        kind=found["kind"],
        c_in=int(found["c_in"]),
        c_out=int(found["c_out"]),
        h=int(found["h"]),
        w=int(found["w"]),
        kernel=int(found["kernel"]),
        stride=int(found["stride"]),
        padding=int(found["padding"]),
        activation=found["activation"],
        dtype=found["dtype"],
        end=int(found["end"] or 0),
        dilation=int(found["dilation"] or 1),
        per_group=int(found["per_group"] or 0),
        parts=int(found["parts"] or 1),
    )


def network_text(shapes: Sequence[LayerShape]) -> str:
    """A network's key in a table: its layers' texts joined by ` + `."""
    return " + ".join(shape.text for shape in shapes)


def parse_network(text: str) -> NetworkShape:
    """The inverse of `network_text`; a single layer is a network of one. Raises `ShapeError`."""
    return tuple(parse_shape(part) for part in text.split(" + "))
