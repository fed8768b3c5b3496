"""The layers that a walk over a traced network finds, and what it knows of every tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import fx, nn

from amc_latency.errors import UserError
from amc_latency.graph.coupling import ChannelLabels, Labels
from amc_latency.graph.layer_shapes import NO_PAD, Pad, Size, conv_shape, plain_shape, pool_shape, settings
from amc_latency.graph.operations import BATCH_NORMS, operands_of
from amc_latency.lut.shapes.shape import AVG_POOLS, FUSED_ACTIVATIONS, MAX_POOLS, WEIGHTED_KINDS, LayerShape

_FUSES = (*WEIGHTED_KINDS, "add", "add_scalar", "mul_scalar", *MAX_POOLS, *AVG_POOLS)
"""Kinds that TFLite fuses an activation into."""
_NON_NEGATIVE = ("relu", "relu6", "sigmoid", "hard_sigmoid")


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
    flat: tuple[int, int] = (1, 1)
    """height and width of the feature map that was flattened to this: the file keeps it as a map, [H, W, C]"""

    @property
    def pixels(self) -> int:
        """Values of each channel that lie side by side since a feature map was flattened."""
        return self.flat[0] * self.flat[1]


class LayerList:
    """The layers so far, in order of execution, and the labels of their channels; each method adds a kind of layer.

    Batch norm and activations are part of the layer that they follow where TFLite has them so. Raises `UserError` that
    names the module, or the operation.
    """

    def __init__(self, traced: fx.GraphModule) -> None:
        self.traced = traced
        self.layers: list[TracedLayer] = []
        self.modules: list[str] = []
        """those with channels, in order of execution"""
        self.batch_norms: dict[str, str] = {}
        """the batch norm that is folded into a layer, by that layer's name"""
        self.labels = ChannelLabels()
        self.values: dict[fx.Node, Value] = {}
        self.outputs: list[tuple[str, Size]] = []
        """the nodes that the network returns, each once, and their sizes"""
        self._calls: dict[str, int] = {}

    def add(
        self, node: fx.Node, name: str, shape: LayerShape, x: Value, size: Size, labels: Labels, argument: float = 0
    ) -> Value:
        """A layer of this shape that reads `x` and makes `size`, with these labels."""
        expected = (shape.c_out,) if len(size) == 1 else (shape.c_out, shape.h_out, shape.w_out)
        if expected != size:
            raise UserError(f"{name}: makes {size} where {expected} is supported")
        # One slope for all channels is written for each anew, and each call may have other channels.
        has_own = shape.params > 0 and not self._is_one_slope(node)
        again = has_own and self._calls.get(name, 0) > 1
        layer = TracedLayer(name, node.name, shape, x.labels, labels, argument, again)
        self.layers.append(layer)
        read = [self.values[parent] for parent in node.all_input_nodes if parent in self.values]
        takes_sign = shape.kind in WEIGHTED_KINDS or shape.activation == "prelu"
        takes_sign |= shape.kind in ("add_scalar", "mul_scalar") and argument < 0
        keeps_sign = not takes_sign and all(each.non_negative for each in read)
        non_negative = keeps_sign or shape.kind == "softmax" or shape.activation in _NON_NEGATIVE
        fusible = layer if shape.kind in _FUSES else None
        flat = (1, 1) if shape.kind in ("linear", "conv") else x.flat
        return Value(size, labels, fusible, non_negative=non_negative, flat=flat)

    def convolution(self, node: fx.Node, name: str, conv: nn.Conv2d, x: Value, size: Size) -> Value:
        """A convolution of any groups; those that make other channels than they read are left whole."""
        shape = conv_shape(name, conv, x.size, x.pad)
        check_inputs(name, x, conv.in_channels)
        self._called(name)
        if shape.kind == "conv":
            self.labels.use(name, "consumer", x.labels)
            return self.add(node, name, shape, x, size, self.labels.make(name, conv.out_channels))
        if shape.c_in != shape.c_out:
            reason = f"{name} has groups, of other channels out than in"
            self.labels.keep(x.labels, reason)
            made = self.labels.make(name, shape.c_out)
            self.labels.keep(made, reason)
            return self.add(node, name, shape, x, size, made)
        if shape.kind == "grouped":
            in_groups = x.labels.reshape(-1, shape.per_group)
            for i in range(1, shape.per_group):
                self.labels.tie(in_groups[:, 0], in_groups[:, i], f"one group of {name}")
        self.labels.use(name, "depthwise", x.labels)
        return self.add(node, name, shape, x, size, x.labels)

    def linear(self, node: fx.Node, name: str, linear: nn.Linear, x: Value, size: Size) -> Value:
        """A linear layer, of features alone."""
        check_no_pad(name, x)
        if len(x.size) != 1:
            raise UserError(f"{name}: a linear layer takes [N, features]; flatten before it")
        check_inputs(name, x, linear.in_features)
        self._called(name)
        self.labels.use(name, "consumer", x.labels)
        shape = LayerShape("linear", linear.in_features, linear.out_features)
        return self.add(node, name, shape, x, size, self.labels.make(name, linear.out_features))

    def batch_norm(self, node: fx.Node, name: str, norm: nn.BatchNorm1d | nn.BatchNorm2d, x: Value) -> Value:
        """A batch norm: in the layer before it where that can take it in, else a layer of its own."""
        check_no_pad(name, x)
        if norm.running_mean is None or norm.weight is None:
            raise UserError(f"{name}: a batch norm without weights or without running statistics is not supported")
        if name in self.modules:
            raise UserError(f"{name}: a batch norm that is called twice is not supported")
        self._called(name)
        self.labels.use(name, "batch_norm", x.labels)
        layer = self._fusible(node, x)
        # Another batch norm alone is a depthwise convolution too, but none that could take this one in. A norm of
        # features is none of channels, even where a flattened map had one pixel.
        if (
            layer is not None
            and layer.shape.kind in WEIGHTED_KINDS
            and (layer.shape.kind == "linear") == (len(x.size) == 1)
            and layer.name not in self.batch_norms
            and not self._is_norm(layer.name)
        ):
            if self._calls[layer.name] > 1:
                raise UserError(f"{layer.name}: is called twice and has a batch norm, which can't be folded into it")
            self.batch_norms[layer.name] = name
            return x
        check_no_pixels(name, x, "a batch norm")
        # On its own it is a depthwise convolution of one pixel.
        return self.add(node, name, plain_shape(name, "depthwise", x.size), x, x.size, x.labels)

    def pool(self, node: fx.Node, name: str, pool: nn.MaxPool2d | nn.AvgPool2d, x: Value, size: Size) -> Value:
        """A max or average pool of a fixed window."""
        shape = pool_shape(name, pool, x.size, size, x.pad)
        if shape.kind == "max_pool" and (any(shape.padding_hw) or shape.end) and not x.non_negative:
            shape = replace(shape, kind="signed_max_pool")
        return self.add(node, name, shape, x, size, x.labels)

    def activation(self, node: fx.Node, name: str, x: Value, activation: str, module: nn.Module | None) -> Value:
        """An activation, of `module` or a function: in the layer before it where TFLite has it so, else on its own."""
        check_no_pad(name, x)
        layer = self._fusible(node, x)
        if layer is not None and activation in FUSED_ACTIVATIONS:
            # What ends in a ReLU may pad with zeros: they win over nothing that is left.
            kind = layer.shape.kind.removeprefix("signed_")
            layer.shape = replace(layer.shape, kind=kind, activation=activation)
            return replace(x, layer=None, non_negative=True)
        if activation == "gelu" and getattr(module, "approximate", node.kwargs.get("approximate", "none")) != "none":
            raise UserError(f"{name}: GELU's tanh approximation is not supported")
        if activation == "prelu":
            self._called(name)
            if module is not None and len(module.weight) > 1:  # type: ignore[arg-type]
                check_no_pixels(name, x, "a PReLU with a slope a channel")
                self.labels.use(name, "prelu", x.labels)
        alpha = 0.0
        if activation in ("leaky_relu", "elu"):
            key = "negative_slope" if activation == "leaky_relu" else "alpha"
            default = 0.01 if activation == "leaky_relu" else 1.0
            alpha = getattr(module, key) if module is not None else settings(node, (key,)).get(key, default)
        if activation == "elu" and alpha != 1:
            raise UserError(f"{name}: ELU with alpha {alpha} is not supported; only with 1")
        shape = plain_shape(name, "activation", x.size, activation=activation)
        return self.add(node, name, shape, x, x.size, x.labels, alpha)

    def binary(self, node: fx.Node, inputs: list[Value], size: Size, kind: str) -> Value:
        """A sum or product of two tensors, whose channels are tied; `scale` where one has a figure a channel."""
        name = node.name
        if not all(isinstance(each, fx.Node) and each in self.values for each in operands_of(node)):
            raise UserError(f"{name}: {kind} of something that is neither a number nor made of the image")
        if node.kwargs.get("alpha", 1) != 1:
            raise UserError(f"{name}: a weighted sum of two tensors is not supported; weigh one by a product before it")
        left, right = inputs[0], inputs[-1]
        if left.size != right.size and kind == "mul":
            if len(left.size) == 3 and left.size[1:] == (1, 1):
                left, right = right, left
            if len(left.size) == 3 and right.size == (left.size[0], 1, 1):
                kind = "scale"
        if (left.size != right.size and kind != "scale") or left.size != size:
            raise UserError(f"{name}: {kind} of {left.size} and {right.size} is not supported; only of equal sizes")
        check_alike(name, inputs, kind)
        self.labels.tie(left.labels, right.labels, f"{'added' if kind == 'add' else 'multiplied'} in {name}")
        return self.add(node, name, plain_shape(name, kind, size), left, size, left.labels)

    def softmax(self, node: fx.Node, name: str, x: Value, dim: Any) -> Value:
        """Probabilities of features: each depends on all of them, so none is cut."""
        if len(x.size) != 1 or dim not in (1, -1):
            raise UserError(f"{name}: softmax is supported on [N, classes] alone, over the classes")
        check_no_pixels(name, x, "a softmax")
        where = name if node.op == "call_module" else place(node)
        self.labels.keep(x.labels, f"a softmax, {where}, mixes all of them")
        return self.add(node, name, plain_shape(name, "softmax", x.size), x, x.size, x.labels)

    def _called(self, name: str) -> None:
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

    def _is_one_slope(self, node: fx.Node) -> bool:
        module = self.traced.get_submodule(str(node.target)) if node.op == "call_module" else None
        return isinstance(module, nn.PReLU) and module.num_parameters == 1

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
