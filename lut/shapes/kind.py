"""All there is to know of a kind of layer, in one record; `kinds/` has the records, and `registry.py` finds them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from amc_latency.device.tflite.tflite_file import Sign
    from amc_latency.lut.shapes.shape import LayerShape
    from amc_latency.lut.tflite.int8 import Int8Graph
    from amc_latency.lut.tflite.writer import TfliteGraph

Work = dict[str, float]
"""How much of each kind of work a layer is, for the cost models in `lut/estimates`."""


@dataclass(frozen=True)
class Writing:
    """A layer on its way into a `.tflite`."""

    graph: TfliteGraph
    inputs: Sequence[int]
    """the tensors that it reads, by their index in the file"""
    shape: LayerShape
    constants: Sequence[np.ndarray]
    """as `Kind.constants` says"""
    argument: float | None = None
    """what the shape doesn't say: a slice's start, an activation's slope, a number; None if nothing depends on it"""

    @property
    def x(self) -> int:
        """The first input."""
        return self.inputs[0]

    @property
    def int8(self) -> Int8Graph:
        """The file, of a layer that is int8."""
        from amc_latency.lut.tflite.int8 import Int8Graph

        assert isinstance(self.graph, Int8Graph)
        return self.graph


@dataclass(frozen=True)
class Extra:
    """Ops of a log that belong to a layer beside its own one and a PAD or an activation."""

    role: str
    """what such an op may be, as in `Log.ops`"""
    total: int = 1
    """how many ops of this role a layer has"""
    own: int = 0
    """how many of them are its own op"""
    may_be_next: bool = False
    """whether it is the next layer's where that may have such an op"""


def _no_extra(shape: LayerShape) -> Extra | None:
    return None


@dataclass(frozen=True)
class Log:
    """What layers of a kind look like in an op-profile log."""

    ops: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """names of ops, TFLite's and XNNPACK's without what is in brackets, by role: mostly the kind's name"""
    roles: Callable[[LayerShape], Set[str]] = lambda shape: {shape.kind}
    """which roles, of this kind or of others, a layer's own op may have"""
    extra: Callable[[LayerShape], Extra | None] = _no_extra


def _nothing_wrong(shape: LayerShape) -> str | None:
    return None


def window_fits(shape: LayerShape) -> str | None:
    """Why the window cannot lie on its padded input; None if it can."""
    for size, kernel, padding in zip((shape.h, shape.w), shape.kernel_hw, shape.padding_hw, strict=True):
        reach = shape.dilation * (kernel - 1) + 1
        if max(padding, shape.end) >= reach and (padding, shape.end) != (0, 0):
            return "padding must be smaller than the kernel"
        if size + 2 * padding + shape.end < reach:
            return "the kernel is larger than the padded input"
    return None


def window_output(shape: LayerShape, size: int, kernel: int, padding: int) -> int:
    """Positions of the window along one side: `floor((n + 2p + end - d (k - 1) - 1) / s) + 1`."""
    return (size + 2 * padding + shape.end - shape.dilation * (kernel - 1) - 1) // shape.stride + 1


def outputs_once(shape: LayerShape, cache_bytes: float) -> Work:
    """What nobody timed: the same way through memory as an output that a product adds to."""
    return {"outputs": shape.h_out * shape.w_out * shape.c_out}


def _one_input(shape: LayerShape) -> Sequence[tuple[int, ...]]:
    return [(shape.h, shape.w, shape.c_in)]


@dataclass(frozen=True)
class Kind:
    """A kind of layer: which fields of a shape mean something to it, what it costs, and its TFLite operator."""

    name: str
    write: Callable[[Writing], int]
    """adds its operators to a file and returns its output"""
    log: Log = field(default_factory=Log)
    changes_channels: bool = False
    two_figures: bool = False
    """whether any count of channels in goes with any count out, so that its staircase has two axes"""
    window: bool = False
    """whether it slides over the image: kernel, padding, dilation and `end` mean something to it"""
    own_fields: Collection[str] = ()
    """of `per_group` and `parts`, those that mean something to it"""
    on_maps: bool = False
    """whether its operator takes feature maps [1, H, W, C] alone, and no vectors [1, C]"""
    takes_activation: bool = False
    """whether its operator can end in relu or relu6"""
    is_boundary: bool = False
    """whether it stands between tensors of its precision and float32"""
    reads_float: bool = False
    """whether it reads float32 in any precision"""
    reads_non_negative: bool = False
    """whether no input of it is below zero"""
    sign: Callable[[LayerShape, float], Sign] = lambda shape, argument: "keeps"
    """what is known of its outputs, before its activation; by the shape and the argument"""
    check: Callable[[LayerShape], str | None] = _nothing_wrong
    """what is wrong with its channels and its own fields; None if nothing is"""
    fits: Callable[[LayerShape], str | None] = window_fits
    """why its window does not fit its input; None if it does"""
    output: Callable[[LayerShape, int, int, int], int] = window_output
    """height or width of its output, by that of the input, of the kernel and the padding"""
    weights: Callable[[LayerShape], int] = lambda shape: 0
    """multipliers, without biases"""
    uses_of_weight: Callable[[LayerShape], int] = lambda shape: shape.h_out * shape.w_out
    """how often each weight is multiplied by something"""
    work: Callable[[LayerShape, float], Work] = outputs_once
    """by the shape and the cache's bytes"""
    inputs: Callable[[LayerShape], Sequence[tuple[int, ...]]] = _one_input
    """the size of each tensor that it reads, without the batch"""
    int8_scale: Literal["own", "input", "output"] | None = "own"
    """whose scale and zero point TFLite asks for in int8: each tensor's own, those of the first input for all, or those
    of the output for all; None where there is no int8"""
    int8_range: tuple[float, float] | None = None
    """as `Activation.int8_range`"""
    constants: Callable[[LayerShape], Sequence[tuple[int, ...]]] = lambda shape: ()
    """the shape of each of its constants, in the file's order of axes"""
