"""The layers that a walk over a traced network finds, and what it knows of every tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import fx

from amc_latency.errors import UserError
from amc_latency.graph.coupling import ChannelLabels, Labels
from amc_latency.graph.layers.layer_shapes import NO_PAD, Pad, Size
from amc_latency.graph.operations import BATCH_NORMS
from amc_latency.lut.shapes.activations import ACTIVATIONS
from amc_latency.lut.shapes.architecture import INPUT
from amc_latency.lut.shapes.registry import KINDS
from amc_latency.lut.shapes.shape import LayerShape

if TYPE_CHECKING:
    from amc_latency.graph.kind import Call, Made

_NON_NEGATIVE = tuple(name for name, each in ACTIVATIONS.items() if each.non_negative)


@dataclass
class TracedLayer:
    """A layer in the making."""

    name: str
    """of its module, or of the graph's node"""
    node: str
    shape: LayerShape
    in_labels: Labels
    out_labels: Labels
    argument: float = 0
    """what its shape doesn't say and the exported file needs: a slice's start, an activation's slope, a number"""
    again: bool = False
    """whether it is a later call of a module, with the weights of the first"""
    reads: tuple[int, ...] = ()
    """the layers that made what it reads, each once"""
    end: str = ""
    """the node of the last operation that is part of it: itself, or a batch norm or an activation that it takes in"""


@dataclass(frozen=True)
class Value:
    """What is known of a tensor."""

    size: Size
    """without the batch"""
    labels: Labels
    layer: TracedLayer | None = None
    """that made it, if an activation may still be fused into it"""
    pad: Pad = NO_PAD
    """zeros that have been put around it; `size` is that without them"""
    dealt: int = 0
    """into how many sets the channels have been dealt out, in the middle of a channel shuffle"""
    non_negative: bool = False
    """whether no figure in it can be below zero"""
    made_by: int = INPUT
    """the layer that made it"""
    flat: tuple[int, int] = (1, 1)
    """height and width of the feature map that was flattened to this: the file keeps it as a map, [H, W, C]"""

    @property
    def pixels(self) -> int:
        """Values of each channel that lie side by side since a feature map was flattened."""
        return self.flat[0] * self.flat[1]


class LayerList:
    """The layers so far, in order of execution, and the labels of their channels.

    `made` says how each kind of layer is made. Batch norm and activations are part of the layer that they follow where
    TFLite has them so. Raises `UserError` that names the module, or the operation.
    """

    def __init__(self, traced: fx.GraphModule, made: Mapping[str, Made]) -> None:
        self.traced = traced
        self._made = made
        self.layers: list[TracedLayer] = []
        self.modules: list[str] = []
        """those with channels, in order of execution"""
        self.batch_norms: dict[str, str] = {}
        """the batch norm that is folded into a layer, by that layer's name"""
        self.labels = ChannelLabels()
        self.values: dict[fx.Node, Value] = {}
        self.outputs: list[Value] = []
        """what the network returns, each once"""
        self._calls: dict[str, int] = {}

    def add(
        self,
        call: Call,
        shape: LayerShape,
        labels: Labels,
        x: Value | None = None,
        size: Size | None = None,
        argument: float = 0,
        flat: tuple[int, int] | None = None,
        shares: bool = True,
    ) -> Value:
        """A layer of this shape with these labels, of what is called.

        It reads `x` (its first input unless set) and makes `size` (what the call makes), which was flattened from a map
        as `flat` says (as `x` was). `shares` if a later call of the module has the same weights.
        """
        node, name = call.node, call.name
        x, size = x or call.x, call.size if size is None else size
        expected = (shape.c_out,) if len(size) == 1 else (shape.c_out, shape.h_out, shape.w_out)
        if expected != size:
            raise UserError(f"{name}: makes {size} where {expected} is supported")
        again = shares and shape.params > 0 and self._calls.get(name, 0) > 1
        read = [self.values[parent] for parent in node.all_input_nodes if parent in self.values]
        reads = tuple(dict.fromkeys(each.made_by for each in read))
        layer = TracedLayer(name, node.name, shape, x.labels, labels, argument, again, reads, node.name)
        self.layers.append(layer)
        sign = KINDS[shape.kind].sign(shape, argument)
        keeps_sign = sign == "keeps" and all(each.non_negative for each in read)
        non_negative = keeps_sign or sign == "non_negative" or shape.activation in _NON_NEGATIVE
        fusible = layer if self._made[shape.kind].fuses else None
        flat = x.flat if flat is None else flat
        return Value(size, labels, fusible, non_negative=non_negative, made_by=len(self.layers) - 1, flat=flat)

    def takes_in_norm(self, node: fx.Node, name: str, x: Value) -> bool:
        """Whether the layer that made `x` takes in the batch norm `name`, which then belongs to it."""
        layer = self._fusible(node, x)
        # Another batch norm alone is a depthwise convolution too, but none that could take this one in. A norm of
        # features is none of channels, even where a flattened map had one pixel.
        if (
            layer is None
            or self._made[layer.shape.kind].weight_axes is None
            or KINDS[layer.shape.kind].on_maps == (len(x.size) == 1)
            or layer.name in self.batch_norms
            or self._is_norm(layer.name)
        ):
            return False
        if self._calls[layer.name] > 1:
            raise UserError(f"{layer.name}: is called twice and has a batch norm, which can't be folded into it")
        self.batch_norms[layer.name] = name
        layer.end = node.name
        return True

    def ends_in(self, node: fx.Node, x: Value, activation: str) -> Value | None:
        """What comes of `x` where the layer that made it takes in relu or relu6; None where it can't."""
        layer = self._fusible(node, x)
        if layer is None:
            return None
        kind = self._made[layer.shape.kind].rectified or layer.shape.kind
        layer.shape, layer.end = replace(layer.shape, kind=kind, activation=activation), node.name
        return replace(x, layer=None, non_negative=True)

    def called(self, name: str) -> None:
        """A module with channels is called: maybe not for the first time."""
        module = self.traced.get_submodule(name)
        for tensor in ("weight", "bias"):
            if getattr(module, tensor, None) is not None and tensor not in module._parameters:
                raise UserError(
                    f"{name}: its {tensor} is computed from other parameters (weight_norm, pruning, another "
                    "parametrization), which can't be cut; remove the parametrization first"
                )
        self._calls[name] = self._calls.get(name, 0) + 1
        if name not in self.modules:
            self.modules.append(name)
        elif name in self.batch_norms:
            raise UserError(f"{name}: is called twice and has a batch norm, which can't be folded into it")

    def held(self) -> dict[str, int]:
        """The tensor that each node holds, by the layer that makes it; none where the layer goes on in a later node."""
        found: dict[str, int] = {}
        done = {INPUT}
        for node, value in self.values.items():
            if value.made_by not in done and node.name == self.layers[value.made_by].end:
                done.add(value.made_by)
            if value.made_by in done:
                found[node.name] = value.made_by
        return found

    def _is_norm(self, name: str) -> bool:
        return isinstance(self.traced.get_submodule(name), BATCH_NORMS)

    def _fusible(self, node: fx.Node, x: Value) -> TracedLayer | None:
        """The layer that made `x`, if `node` alone reads what it made and no activation lies between."""
        if x.layer is None or x.layer.shape.activation != "none":
            return None
        parent = node.all_input_nodes[0]
        # What lies between, as dropout or a batch norm that the layer takes in, hands its value on.
        while len(parent.users) == 1 and parent.name != x.layer.node:
            parent = parent.all_input_nodes[0]
        return x.layer if len(parent.users) == 1 else None


def place(node: fx.Node) -> str:
    """The operation, and the innermost module that calls it."""
    modules = list(node.meta.get("nn_module_stack") or {})
    return f"{node.name} in {modules[-1]}" if modules and modules[-1] else node.name


def check_no_pixels(name: str, x: Value, what: str) -> None:
    """Raise `UserError` if each channel of `x` has several values, of a flattened feature map."""
    if x.pixels > 1:
        raise UserError(f"{name}: {what} of a flattened feature map is not supported; put it before the flattening")


def check_alike(name: str, values: Sequence[Value], what: str) -> None:
    """Raise `UserError` if feature maps were flattened to `values` whose height and width differ, or to some alone.

    PyTorch flattens [C, H, W] and the file keeps [H, W, C]: value by value they stand elsewhere.
    """
    if len({value.flat for value in values}) > 1:
        kinds = ["a vector" if value.pixels == 1 else "a flattened {}x{} map".format(*value.flat) for value in values]
        raise UserError(f"{name}: {what} of {' and '.join(dict.fromkeys(kinds))} is not supported")


def check_inputs(name: str, x: Value, expected: int) -> None:
    """Raise `UserError` if `x` has other than the expected channels."""
    if x.size[0] != expected:
        raise UserError(f"{name}: takes {expected} channels where {x.size[0]} come in, which is not supported")


def check_no_pad(name: str, x: Value) -> None:
    """Raise `UserError` if zeros were put around `x`, which only a window can take in."""
    if x.pad != NO_PAD:
        raise UserError(f"{name}: zero padding is supported right before a convolution or an average pool alone")
