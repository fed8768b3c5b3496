"""The layer shape: everything that decides a layer's cost and nothing else. It is the latency table's key."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

from amc_latency.android_bench.safe.limits import LAYER_SIZE
from amc_latency.android_bench.safe.text import shown_line
from amc_latency.lut.shapes.activations import ACTIVATIONS as RECORDS
from amc_latency.lut.shapes.kind import Kind
from amc_latency.lut.shapes.precisions import PRECISIONS, why_not
from amc_latency.lut.shapes.registry import KINDS, kind_of

FUSED_ACTIVATIONS = ("none", *(name for name, each in RECORDS.items() if each.fuses))
"""those that a layer may end in at no cost"""
ACTIVATIONS = ("none", *RECORDS)

_TEXT = re.compile(
    r"(?P<kind>[a-z_]+) (?P<c_in>\d{1,9})x(?P<h>\d{1,9})x(?P<w>\d{1,9})>(?P<c_out>\d{1,9})"
    r" k(?P<kernel>\d{1,9})(?:x(?P<kernel_w>\d{1,9}))? s(?P<stride>\d{1,9})"
    r" p(?P<padding>\d{1,9})(?:x(?P<padding_w>\d{1,9}))?(?:\+(?P<end>\d{1,9}))?"
    r"(?: d(?P<dilation>\d{1,9}))?(?: g(?P<per_group>\d{1,9}))?(?: n(?P<parts>\d{1,9}))?"
    r" (?P<activation>[a-z0-9_]+) (?P<precision>[a-z0-9]+)"
)


class ShapeError(ValueError):
    """A layer shape that cannot exist, or a text that is not one."""


@dataclass(frozen=True, slots=True, order=True)
class LayerShape:
    """One layer as a device sees it, per image: NHWC, symmetric padding as in PyTorch.

    `h` and `w` are the input's height and width. A linear layer has `h = w = 1`, an add and a mul read two equal
    inputs, a scale multiplies each channel by its own figure (squeeze-and-excitation), `add_scalar` and `mul_scalar`
    take one figure for all, and a global pool averages its whole input. Pointwise is a `conv` with `kernel = 1`; a
    batch norm that no layer can take in is a `depthwise` with `kernel = 1`. An `activation` is one that no layer
    could end in. `nearest` and `bilinear` upsample by `stride`; a `transposed` convolution does by what it adds up.
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
    precision: str = "float32"
    end: int = 0
    """padding at the bottom and the right beyond `padding`: TensorFlow's SAME, PyTorch's ceil_mode; of a `transposed`
    convolution, whose padding is what its output lacks, PyTorch's output padding"""
    dilation: int = 1
    per_group: int = 0
    """channels in of each group of a `grouped` convolution"""
    parts: int = 1
    """inputs of a `concat`; what a `shuffle` deals the channels out to"""
    kernel_w: int = 0
    """the kernel's width, where it or its padding isn't that of the height, which `kernel` and `padding` then are"""
    padding_w: int = 0
    """padding at the left and the right, where `kernel_w` is told"""

    def __post_init__(self) -> None:
        try:
            kind = kind_of(self.kind)
        except ValueError as error:
            raise ShapeError(str(error)) from None
        for value, allowed, what in (
            (self.activation, ACTIVATIONS, "activation"),
            (self.precision, PRECISIONS, "precision"),
        ):
            if value not in allowed:
                raise ShapeError(f"layer {what} '{value}' is none of {', '.join(allowed)}")
        sizes = (self.c_in, self.c_out, self.h, self.w, self.kernel, self.stride, self.dilation, self.parts)
        if max(*sizes, self.padding, self.end, self.per_group, self.kernel_w, self.padding_w) > LAYER_SIZE:
            raise ShapeError(f"a layer's sizes are at most {LAYER_SIZE:,}: {shown_line(self.text)}")
        if min(sizes) < 1 or min(self.padding, self.end, self.per_group, self.kernel_w, self.padding_w) < 0:
            raise ShapeError(f"a layer's sizes must be positive: {self.text}")
        if (reason := self._wrong_for(kind) or kind.check(self) or self._wrong_size(kind)) is not None:
            raise ShapeError(f"{reason}: {self.text}")

    def _wrong_for(self, kind: Kind) -> str | None:
        """Which field means nothing to this kind; None if all fit."""
        if not kind.changes_channels and self.c_in != self.c_out:
            return f"a {self.kind} layer has as many channels out as in"
        if self.kind != "activation" and self.activation not in FUSED_ACTIVATIONS:
            return f"a {self.kind} layer cannot end in {self.activation}"
        if "per_group" not in kind.own_fields and self.per_group:
            return "a grouped convolution, and no other layer, has groups of equal width"
        if "parts" not in kind.own_fields and self.parts != 1:
            return "only concat and shuffle have parts"
        if (reason := why_not(self.kind, self.activation, self.precision)) is not None:
            return reason
        if not kind.window and (self.end, self.dilation, self.kernel_w) != (0, 1, 0):
            return f"a {self.kind} layer has no dilation, no padding at its end and no kernel"
        return None

    def _wrong_size(self, kind: Kind) -> str | None:
        if (self.kernel, self.padding) == (self.kernel_w, self.padding_w) or (self.padding_w and not self.kernel_w):
            return "a width that is like the height isn't told"
        return kind.fits(self)

    @property
    def kernel_hw(self) -> tuple[int, int]:
        """The kernel's height and width."""
        return self.kernel, self.kernel_w or self.kernel

    @property
    def padding_hw(self) -> tuple[int, int]:
        """Padding at the top, and as much at the bottom; and at the left, and as much at the right."""
        return self.padding, self.padding_w if self.kernel_w else self.padding

    @property
    def taps(self) -> int:
        """Pixels under the kernel."""
        height, width = self.kernel_hw
        return height * width

    @property
    def two_figures(self) -> bool:
        """Whether any count of channels in goes with any count out: others have one channel figure."""
        return KINDS[self.kind].two_figures

    @property
    def per_group_out(self) -> int:
        """Channels out of each group of a `grouped` convolution, else 0."""
        return self.c_out * self.per_group // self.c_in

    @property
    def h_out(self) -> int:
        """Output height, by the kind's own formula: of a window `floor((h + 2p + end - d (k - 1) - 1) / s) + 1`."""
        return KINDS[self.kind].output(self, self.h, self.kernel, self.padding)

    @property
    def w_out(self) -> int:
        """Output width, as `h_out`."""
        return KINDS[self.kind].output(self, self.w, self.kernel_hw[1], self.padding_hw[1])

    @property
    def macs(self) -> int:
        """Multiply-accumulates of convolutions and linear layers; adds and pools count 0, as in the AMC paper."""
        return self._weights * KINDS[self.kind].uses_of_weight(self)

    @property
    def params(self) -> int:
        """Weights and biases of the deployed layer, batch-norm folded; a PReLU's slopes, one a channel."""
        slopes = self.c_out if self.activation != "none" and RECORDS[self.activation].has_slopes else 0
        return self._weights + (self.c_out if self._weights else 0) + slopes

    @property
    def params_bytes(self) -> int:
        """Of the parameters in the layer's precision, whose weights alone may have fewer than 32 bits; no scales."""
        return -(-self._weights * PRECISIONS[self.precision].bits // 8) + 4 * (self.params - self._weights)

    @property
    def output_bytes(self) -> int:
        """Of the tensor that it makes; what a `dequantize` makes is float32."""
        bits = 32 if self.kind == "dequantize" else PRECISIONS[self.precision].tensor_bits
        return self.c_out * self.h_out * self.w_out * bits // 8

    @property
    def text(self) -> str:
        """One line that names the shape, e.g. `conv 3x224x224>32 k3 s2 p1 relu6 float32`."""
        width = (f"x{self.kernel_w}", f"x{self.padding_w}") if self.kernel_w else ("", "")
        rare = f"+{self.end}" if self.end else ""
        rare += f" d{self.dilation}" if self.dilation != 1 else ""
        rare += f" g{self.per_group}" if self.per_group else ""
        rare += f" n{self.parts}" if self.parts != 1 else ""
        return (
            f"{self.kind} {self.c_in}x{self.h}x{self.w}>{self.c_out}"
            f" k{self.kernel}{width[0]} s{self.stride} p{self.padding}{width[1]}{rare}"
            f" {self.activation} {self.precision}"
        )

    def __str__(self) -> str:
        return self.text

    @property
    def _weights(self) -> int:
        return KINDS[self.kind].weights(self)


NOOP = LayerShape("noop", 1, 1)
"""The least a runtime can do: what a table takes off every layer as fixed overhead."""

NetworkShape = tuple[LayerShape, ...]
"""A whole network as its layers' shapes, in order of execution."""


# A table's keys are read again by whoever predicts from it; a table has thousands, and may have a
# hundred thousand; a network's key has dozens of layers.
@lru_cache(maxsize=2**18)
def parse_shape(text: str) -> LayerShape:
    """The inverse of `LayerShape.text`. Raises `ShapeError` quoting the text."""
    channels = _CHANNELS.fullmatch(text)
    if channels is not None:
        kind, c_in, size, c_out, rest = channels.groups()
        return with_channels(parse_shape(f"{kind} 1{size}1{rest}"), int(c_in), int(c_out))
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
        precision=found["precision"],
        end=int(found["end"] or 0),
        dilation=int(found["dilation"] or 1),
        per_group=int(found["per_group"] or 0),
        parts=int(found["parts"] or 1),
        kernel_w=int(found["kernel_w"] or 0),
        padding_w=int(found["padding_w"] or 0),
    )


_FREE = "|".join(name for name, kind in KINDS.items() if kind.two_figures)
_CHANNELS = re.compile(f"({_FREE})" r" (?!1x\d+x\d+>1 )([1-9]\d{0,4})(x\d+x\d+>)([1-9]\d{0,4})( .*)")
"""Kinds that no check of `LayerShape` forbids a count of channels: one of their shapes is as sound as another."""
FRAME = f"({_FREE})" r" ([1-9][0-9]{0,4}+)x([0-9x]+)>([1-9][0-9]{0,4}+) ([^\t]*+)"
"""A pattern for what begins as the text of such a shape: its kind, channels in, size, channels out, and the rest."""
_FRAME = re.compile(FRAME)


def frame_of(text: str) -> tuple[tuple[str, str, str], int, int] | None:
    """What is alike in the texts of shapes that differ in their channels, and the channels in and out.

    None for kinds whose channels are not free, and for a network. If one text of a frame is a shape's, all are.
    """
    found = _FRAME.fullmatch(text)
    if found is None or is_network(text):
        return None
    kind, c_in, size, c_out, rest = found.groups()
    return (kind, size, rest), int(c_in), int(c_out)


_COPIED = tuple(getattr(LayerShape, each.name) for each in fields(LayerShape) if each.name not in ("c_in", "c_out"))
_C_IN, _C_OUT = vars(LayerShape)["c_in"], vars(LayerShape)["c_out"]


def with_channels(sound: LayerShape, c_in: int, c_out: int) -> LayerShape:
    """`replace` without its checks, for a kind of `two_figures`, which no positive count of channels makes unsound.

    They take most of the time that a table of a hundred thousand rows is read in, or what policies cost is worked out.
    """
    shape = object.__new__(LayerShape)
    for slot in _COPIED:
        slot.__set__(shape, slot.__get__(sound))
    _C_IN.__set__(shape, c_in)
    _C_OUT.__set__(shape, c_out)
    return shape


def network_text(shapes: Sequence[LayerShape]) -> str:
    """A network's key in a table: its layers' texts joined by ` + `."""
    return " + ".join(shape.text for shape in shapes)


def is_network(text: str) -> bool:
    """Whether a table's key is that of a network of several layers."""
    return " + " in text


def parse_network(text: str) -> NetworkShape:
    """The inverse of `network_text`; a single layer is a network of one. Raises `ShapeError`."""
    if not is_network(text):
        return (parse_shape(text),)
    return tuple(parse_shape(part) for part in text.split(" + "))
