"""The layer shape: everything that decides a layer's cost and nothing else. It is the latency table's key."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

KINDS = ("conv", "depthwise", "linear", "add", "avg_pool", "max_pool", "global_pool", "noop")
ACTIVATIONS = ("none", "relu", "relu6")
DTYPES = ("float32",)
_KEEPS_CHANNELS = ("depthwise", "add", "avg_pool", "max_pool", "global_pool", "noop")

_TEXT = re.compile(
    r"(?P<kind>[a-z_]+) (?P<c_in>\d+)x(?P<h>\d+)x(?P<w>\d+)>(?P<c_out>\d+)"
    r" k(?P<kernel>\d+) s(?P<stride>\d+) p(?P<padding>\d+) (?P<activation>[a-z0-9]+) (?P<dtype>[a-z0-9]+)"
)


class ShapeError(ValueError):
    """A layer shape that cannot exist, or a text that is not one."""


@dataclass(frozen=True, slots=True, order=True)
class LayerShape:
    """One layer as a device sees it, per image: NHWC, symmetric padding as in PyTorch.

    `h` and `w` are the input's height and width. A linear layer has `h = w = 1`, an add reads two equal inputs, and a
    global pool averages its whole input. Pointwise is a `conv` with `kernel = 1`. Raises `ShapeError`.
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

    def __post_init__(self) -> None:
        for value, allowed, what in (
            (self.kind, KINDS, "kind"),
            (self.activation, ACTIVATIONS, "activation"),
            (self.dtype, DTYPES, "dtype"),
        ):
            if value not in allowed:
                raise ShapeError(f"layer {what} '{value}' is none of {', '.join(allowed)}")
        if min(self.c_in, self.c_out, self.h, self.w, self.kernel, self.stride) < 1 or self.padding < 0:
            raise ShapeError(f"a layer's sizes must be positive: {self.text}")
        if self.kind in _KEEPS_CHANNELS and self.c_in != self.c_out:
            raise ShapeError(f"a {self.kind} layer has as many channels out as in: {self.text}")
        if self.kind == "linear" and (self.h, self.w) != (1, 1):
            raise ShapeError(f"a linear layer's input is 1x1: {self.text}")
        if self.padding >= self.kernel:
            raise ShapeError(f"padding must be smaller than the kernel: {self.text}")
        if min(self.h, self.w) + 2 * self.padding < self.kernel:
            raise ShapeError(f"the kernel is larger than the padded input: {self.text}")

    @property
    def h_out(self) -> int:
        """Output height: `floor((h + 2p - k) / s) + 1`; 1 after a global pool."""
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
        return (
            f"{self.kind} {self.c_in}x{self.h}x{self.w}>{self.c_out}"
            f" k{self.kernel} s{self.stride} p{self.padding} {self.activation} {self.dtype}"
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
            case "linear":
                return self.c_in * self.c_out
        return 0

    def _out(self, size: int) -> int:
        if self.kind == "global_pool":
            return 1
        return (size + 2 * self.padding - self.kernel) // self.stride + 1


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
    )


def network_text(shapes: Sequence[LayerShape]) -> str:
    """A network's key in a table: its layers' texts joined by ` + `."""
    return " + ".join(shape.text for shape in shapes)


def parse_network(text: str) -> NetworkShape:
    """The inverse of `network_text`; a single layer is a network of one. Raises `ShapeError`."""
    return tuple(parse_shape(part) for part in text.split(" + "))
