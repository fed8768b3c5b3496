"""One pass over a traced network, from the image to the logits: its layers, and what becomes of every channel."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional

from amc_latency.coupling import ChannelLabels, Labels
from amc_latency.errors import UserError
from amc_latency.layer_shapes import (
    AVG_POOL_ARGUMENTS,
    INTERPOLATE_ARGUMENTS,
    MAX_POOL_ARGUMENTS,
    NO_PAD,
    Pad,
    Size,
    conv_shape,
    plain_shape,
    pool_shape,
    settings,
    slice_shape,
    zeros_of,
)
from amc_latency.operations import (
    ACTIVATION_MODULES,
    ADDS,
    BATCH_NORMS,
    CATS,
    MULS,
    RESHAPES,
    SAME,
    activation_of,
    is_spatial_mean,
    is_split,
    names_channels,
    operands_of,
    parts_of,
    sliced_channels,
    with_scalar,
)
from amc_latency.tracing import OPEN_BATCH, live_nodes
from lut.shape import AVG_POOLS, FUSED_ACTIVATIONS, MAX_POOLS, WEIGHTED_KINDS, LayerShape

WAY_OUT = "such a network can't be cut, but `amc-latency export` may write it whole, with --converter litert-torch"
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
    pixels: int = 1
    """values of each channel that lie side by side since a feature map was flattened"""


class Walk:
    """The network's layers in order of execution, and the labels of their channels.

    Batch norm and activations are part of the layer that they follow where TFLite has them so. Raises `UserError` that
    names the module, or the operation, that exporter, table or cut can't take.
    """

    def __init__(self, traced: fx.GraphModule) -> None:
        self.traced = traced
        self.layers: list[TracedLayer] = []
        self.modules: list[str] = []
        """those with channels, in order of execution"""
        self.batch_norms: dict[str, str] = {}
        self.labels = ChannelLabels()
        self._values: dict[fx.Node, Value] = {}
        self._calls: dict[str, int] = {}
        self._live = live_nodes(traced.graph)
        for node in traced.graph.nodes:
            try:
                self._visit(node)
            except UserError as error:
                raise UserError(_whole_story(node, str(error))) from error

    def _visit(self, node: fx.Node) -> None:
        inputs = [self._values[parent] for parent in node.all_input_nodes if parent in self._values]
        if node.op == "output":
            if len(inputs) != 1 or len(inputs[0].size) != 1:
                raise UserError("the network must return one tensor of logits [N, classes]")
            self.labels.keep(inputs[0].labels, "they are the network's output")
            return
        meta = node.meta.get("tensor_meta")
        if node.op == "placeholder":
            if self._values:
                raise UserError(f"{node.name}: the network takes a second input; only one image is supported")
            size = tuple(meta.shape[1:])  # type: ignore[union-attr]
            labels = self.labels.new(size[0])
            self.labels.keep(labels, "they go with the input image's")
            self._values[node] = Value(size, labels)
            return
        if meta is None:
            return  # Sizes that a view() takes.
        if node not in self._live:
            for each in inputs:
                self.labels.keep(each.labels, f"{_place(node)} reads them, whose result is never used")
            return
        if isinstance(meta, tuple) and is_split(node) and inputs:
            self._values[node] = inputs[0]
            return
        if not hasattr(meta, "shape") or not inputs:
            raise _unsupported(node)
        size = tuple(meta.shape[1:])
        if node.op == "call_module":
            name = str(node.target)
            self._values[node] = self._module(node, name, self.traced.get_submodule(name), inputs[0], size)
        else:
            self._values[node] = self._function(node, inputs, size)

    def _module(self, node: fx.Node, name: str, module: nn.Module, x: Value, size: Size) -> Value:
        activation = ACTIVATION_MODULES.get(type(module))
        if activation is not None:
            return self._activation(node, name, x, activation, module)
        match module:
            case nn.Conv2d():
                return self._convolution(node, name, module, x, size)
            case nn.Linear():
                self._check_no_pad(name, x)
                if len(x.size) != 1:
                    raise UserError(f"{name}: a linear layer takes [N, features]; flatten before it")
                _check_inputs(name, x, module.in_features)
                self._called(name)
                self.labels.use(name, "consumer", x.labels)
                shape = LayerShape("linear", module.in_features, module.out_features)
                return self._layer(node, name, shape, x, size, self.labels.make(name, module.out_features))
            case nn.BatchNorm1d() | nn.BatchNorm2d():
                return self._batch_norm(node, name, module, x)
            case nn.ZeroPad2d():
                return self._pad(name, x, zeros_of(name, module.padding, 0.0))
            case nn.MaxPool2d() | nn.AvgPool2d():
                return self._pool(node, name, module, x, size)
            case nn.AdaptiveAvgPool2d():
                return self._global_pool(node, name, x, size)
            case nn.Flatten() | nn.Unflatten():
                return self._reshaped(node, name, x, size)
            case nn.Dropout() | nn.Dropout2d() | nn.Identity():
                return x
            case nn.Softmax():
                return self._softmax(node, name, x, module.dim)
            case nn.ChannelShuffle():
                return self._shuffled(node, name, x, module.groups)
            case nn.Upsample():
                return self._upsampled(node, name, x, size, module.mode, bool(module.align_corners))
            case nn.Hardtanh() if (module.min_val, module.max_val) == (0, 6):
                return self._activation(node, name, x, "relu6", module)
        raise UserError(f"{name}: {type(module).__name__} is not supported; {WAY_OUT}")

    def _function(self, node: fx.Node, inputs: list[Value], size: Size) -> Value:
        target: Any = node.target
        name, x = node.name, inputs[0]
        if target in SAME:
            return x
        if target is functional.pad:
            mode, value = settings(node, ("pad", "mode", "value")).get("mode", "constant"), node.kwargs.get("value", 0)
            if mode != "constant":
                raise UserError(f"{name}: padding by {mode} is not supported")
            sides = settings(node, ("pad",))["pad"]
            return self._pad(name, x, zeros_of(name, sides, value if len(node.args) < 4 else node.args[3]))  # type: ignore[arg-type]
        if target in (functional.max_pool2d, torch.max_pool2d):
            return self._pool(node, name, nn.MaxPool2d(**settings(node, MAX_POOL_ARGUMENTS)), x, size)
        if target is functional.avg_pool2d:
            return self._pool(node, name, nn.AvgPool2d(**settings(node, AVG_POOL_ARGUMENTS)), x, size)
        for each in inputs:
            self._check_no_pad(name, each)
        number = with_scalar(node)
        if number is not None:
            kind, argument = number
            return self._layer(node, name, plain_shape(name, kind, x.size), x, size, x.labels, argument)
        if target in ADDS or target in MULS:
            return self._two(node, inputs, size, "add" if target in ADDS else "mul")
        if target in CATS:
            return self._concat(node, inputs, size)
        if target is operator.getitem and is_split(node.all_input_nodes[0]):
            return self._part(node, x, size)
        if (taken := sliced_channels(node, x.size[0])) is not None:
            if len(taken) == x.size[0]:
                return x
            self.labels.keep(x.labels, f"{_place(node)} takes them at fixed places")
            return self._sliced(node, x, size, taken.start)
        if (activation := activation_of(node, self.traced)) is not None:
            return self._activation(node, name, x, activation, None)
        if target is functional.adaptive_avg_pool2d or (target in (torch.mean, "mean") and is_spatial_mean(node)):
            return self._global_pool(node, name, x, size)
        if target in (functional.softmax, torch.softmax, "softmax"):
            return self._softmax(node, name, x, settings(node, ("dim",)).get("dim"))
        if target in (torch.transpose, "transpose"):
            return self._transposed(node, x, size)
        if target is functional.channel_shuffle:
            return self._shuffled(node, name, x, settings(node, ("groups",))["groups"])
        if target is functional.interpolate:
            given = settings(node, INTERPOLATE_ARGUMENTS)
            if given.get("antialias"):
                raise UserError(f"{name}: antialiasing is not supported")
            return self._upsampled(node, name, x, size, given.get("mode", "nearest"), bool(given.get("align_corners")))
        if target in RESHAPES:
            return self._reshaped(node, name, x, size)
        raise _unsupported(node)

    def _layer(
        self, node: fx.Node, name: str, shape: LayerShape, x: Value, size: Size, labels: Labels, argument: float = 0
    ) -> Value:
        expected = (shape.c_out,) if len(size) == 1 else (shape.c_out, shape.h_out, shape.w_out)
        if expected != size:
            raise UserError(f"{name}: makes {size} where {expected} is supported")
        layer = TracedLayer(name, node.name, shape, x.labels, labels, argument)
        self.layers.append(layer)
        read = [self._values[parent] for parent in node.all_input_nodes if parent in self._values]
        takes_sign = shape.kind in WEIGHTED_KINDS or shape.activation == "prelu"
        takes_sign |= shape.kind in ("add_scalar", "mul_scalar") and argument < 0
        keeps_sign = not takes_sign and all(each.non_negative for each in read)
        non_negative = keeps_sign or shape.kind == "softmax" or shape.activation in _NON_NEGATIVE
        fusible = layer if shape.kind in _FUSES else None
        pixels = 1 if shape.kind == "linear" else x.pixels
        return Value(size, labels, fusible, non_negative=non_negative, pixels=pixels)

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

    def _convolution(self, node: fx.Node, name: str, conv: nn.Conv2d, x: Value, size: Size) -> Value:
        shape = conv_shape(name, conv, x.size, x.pad)
        _check_inputs(name, x, conv.in_channels)
        self._called(name)
        if shape.kind == "conv":
            self.labels.use(name, "consumer", x.labels)
            return self._layer(node, name, shape, x, size, self.labels.make(name, conv.out_channels))
        if shape.c_in != shape.c_out:
            reason = f"{name} has groups, of other channels out than in"
            self.labels.keep(x.labels, reason)
            made = self.labels.make(name, shape.c_out)
            self.labels.keep(made, reason)
            return self._layer(node, name, shape, x, size, made)
        if shape.kind == "grouped":
            in_groups = x.labels.reshape(-1, shape.per_group)
            for i in range(1, shape.per_group):
                self.labels.tie(in_groups[:, 0], in_groups[:, i], f"one group of {name}")
        self.labels.use(name, "depthwise", x.labels)
        return self._layer(node, name, shape, x, size, x.labels)

    def _batch_norm(self, node: fx.Node, name: str, norm: nn.BatchNorm1d | nn.BatchNorm2d, x: Value) -> Value:
        self._check_no_pad(name, x)
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
        _check_no_pixels(name, x, "a batch norm")
        # On its own it is a depthwise convolution of one pixel.
        return self._layer(node, name, plain_shape(name, "depthwise", x.size), x, x.size, x.labels)

    def _is_norm(self, name: str) -> bool:
        return isinstance(self.traced.get_submodule(name), BATCH_NORMS)

    def _is_unflatten(self, node: fx.Node) -> bool:
        return node.op == "call_module" and isinstance(self.traced.get_submodule(str(node.target)), nn.Unflatten)

    def _pool(self, node: fx.Node, name: str, pool: nn.MaxPool2d | nn.AvgPool2d, x: Value, size: Size) -> Value:
        shape = pool_shape(name, pool, x.size, size, x.pad)
        if shape.kind == "max_pool" and (any(shape.padding_hw) or shape.end) and not x.non_negative:
            shape = replace(shape, kind="signed_max_pool")
        return self._layer(node, name, shape, x, size, x.labels)

    def _activation(self, node: fx.Node, name: str, x: Value, activation: str, module: nn.Module | None) -> Value:
        self._check_no_pad(name, x)
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
                _check_no_pixels(name, x, "a PReLU with a slope a channel")
                self.labels.use(name, "prelu", x.labels)
        alpha = 0.0
        if activation in ("leaky_relu", "elu"):
            key = "negative_slope" if activation == "leaky_relu" else "alpha"
            default = 0.01 if activation == "leaky_relu" else 1.0
            alpha = getattr(module, key) if module is not None else settings(node, (key,)).get(key, default)
        if activation == "elu" and alpha != 1:
            raise UserError(f"{name}: ELU with alpha {alpha} is not supported; only with 1")
        shape = plain_shape(name, "activation", x.size, activation=activation)
        return self._layer(node, name, shape, x, x.size, x.labels, alpha)

    def _fusible(self, node: fx.Node, x: Value) -> TracedLayer | None:
        """The layer that made `x`, if `node` alone reads what it made and no activation lies between."""
        if x.layer is None or x.layer.shape.activation != "none":
            return None
        parent = node.all_input_nodes[0]
        # What lies between, as dropout or a batch norm that the layer takes in, hands its value on.
        while len(parent.users) == 1 and parent.name != x.layer.node:
            parent = parent.all_input_nodes[0]
        return x.layer if len(parent.users) == 1 else None

    def _two(self, node: fx.Node, inputs: list[Value], size: Size, kind: str) -> Value:
        name = node.name
        if not all(isinstance(each, fx.Node) and each in self._values for each in operands_of(node)):
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
        self.labels.tie(left.labels, right.labels, f"{'added' if kind == 'add' else 'multiplied'} in {name}")
        return self._layer(node, name, plain_shape(name, kind, size), left, size, left.labels)

    def _concat(self, node: fx.Node, inputs: list[Value], size: Size) -> Value:
        given = parts_of(node)
        if given is None:
            made = node.all_input_nodes[0].name
            raise UserError(f"{node.name}: joins all that {made} makes; name its parts one by one")
        dim = settings(node, ("dim",)).get("dim", 0)
        if dim not in (1, -len(size)):
            raise UserError(f"{node.name}: joins along dimension {dim}; only channels, dimension 1, are supported")
        parts = [self._values[part] for part in given]
        if len(size) == 1 and len({len(part.labels) / len(np.unique(part.labels)) for part in parts}) > 1:
            raise UserError(f"{node.name}: joins a feature map that was flattened to what was pooled")
        labels = np.concatenate([part.labels for part in parts])
        self.labels.join(labels, node.name)
        if len(parts) == 1:
            return parts[0]
        shape = plain_shape(node.name, "concat", size, parts=len(parts))
        value = replace(parts[0], labels=labels)
        return self._layer(node, node.name, shape, value, size, labels)

    def _part(self, node: fx.Node, x: Value, size: Size) -> Value:
        split, index = node.all_input_nodes[0], int(node.args[1])  # type: ignore[arg-type]
        sizes = [tuple(meta.shape[1:]) for meta in split.meta["tensor_meta"]]
        if any(part[1:] != x.size[1:] for part in sizes) or sum(part[0] for part in sizes) != x.size[0]:
            raise UserError(f"{split.name}: only channels can be split")
        self.labels.keep(x.labels, f"{split.name} splits them at fixed places")
        return self._sliced(node, x, size, sum(part[0] for part in sizes[:index]))

    def _sliced(self, node: fx.Node, x: Value, size: Size, start: int) -> Value:
        labels = x.labels[start : start + size[0]]
        _check_no_pixels(node.name, x, "a slice")
        return self._layer(node, node.name, slice_shape(node.name, x.size, size[0]), x, size, labels, start)

    def _transposed(self, node: fx.Node, x: Value, size: Size) -> Value:
        dims = sorted(int(str(dim)) for dim in settings(node, ("dim0", "dim1")).values())
        if len(x.size) != 4 or dims != [1, 2] or x.dealt:
            raise UserError(f"{node.name}: only a transposition that shuffles channels is supported")
        labels = x.labels.reshape(x.size[:2]).T.reshape(-1)
        return replace(x, size=size, labels=labels, dealt=x.size[0])

    def _shuffled(self, node: fx.Node, name: str, x: Value, groups: int) -> Value:
        self._check_no_pad(name, x)
        dealt = x.labels.reshape(groups, -1).T.reshape(-1)
        return self._dealt(node, name, replace(x, labels=dealt), x.size, groups)

    def _dealt(self, node: fx.Node, name: str, x: Value, size: Size, groups: int) -> Value:
        self.labels.keep(x.labels, f"{name} deals them out")
        return self._layer(node, name, plain_shape(name, "shuffle", size, parts=groups), x, size, x.labels)

    def _upsampled(self, node: fx.Node, name: str, x: Value, size: Size, mode: str, align_corners: bool) -> Value:
        self._check_no_pad(name, x)
        factor = size[1] // x.size[1]
        if size[1:] != (x.size[1] * factor, x.size[2] * factor) or mode not in ("nearest", "bilinear") or align_corners:
            raise UserError(
                f"{name}: {mode} from {x.size} to {size} is not supported; only nearest and bilinear (without "
                "align_corners) by a whole factor"
            )
        return self._layer(node, name, plain_shape(name, mode, x.size, stride=factor), x, size, x.labels)

    def _softmax(self, node: fx.Node, name: str, x: Value, dim: Any) -> Value:
        if len(x.size) != 1 or dim not in (1, -1):
            raise UserError(f"{name}: softmax is supported on [N, classes] alone, over the classes")
        return self._layer(node, name, plain_shape(name, "softmax", x.size), x, x.size, x.labels)

    def _global_pool(self, node: fx.Node, name: str, x: Value, size: Size) -> Value:
        self._check_no_pad(name, x)
        if x.size == size:
            return replace(x, layer=None)
        if size in (x.size[:1], (x.size[0], 1, 1)):
            shape = plain_shape(name, "global_pool", x.size)
            # What is flattened next needs no height and width.
            made = [getattr(user.meta["tensor_meta"], "shape", ()) for user in node.users if "tensor_meta" in user.meta]
            keeps = len(size) == 3 and any(len(shape) != 2 for shape in made)
            return replace(self._layer(node, name, shape, x, (x.size[0], 1, 1), x.labels, keeps), size=size)
        if (
            len(size) == 3
            and (factor := size[1] // x.size[1]) > 1
            and size[1:] == tuple(factor * n for n in x.size[1:])
        ):
            # Each pixel of the input alone is the mean of several of the output: VGG's 7x7 of a small image's 1x1.
            return self._upsampled(node, name, x, size, "nearest", False)
        kernel = x.size[1] // size[1]
        if len(size) != 3 or x.size[1:] != (size[1] * kernel, size[2] * kernel):
            raise UserError(f"{name}: pools {x.size} to {size}; only sizes that divide the input's are supported")
        return self._layer(
            node, name, plain_shape(name, "avg_pool", x.size, kernel=kernel, stride=kernel), x, size, x.labels
        )

    def _reshaped(self, node: fx.Node, name: str, x: Value, size: Size) -> Value:
        self._check_no_pad(name, x)
        if node.meta["tensor_meta"].shape[:1] != (OPEN_BATCH,):
            raise UserError(f"{_place(node)}: reshapes {x.size} across images, which is not supported; {WAY_OUT}")
        if names_channels(node) or self._is_unflatten(node):
            self.labels.keep(x.labels, f"{_place(node)} reshapes them to a fixed size")
        if size == x.size:
            return x
        if x.dealt and size == (math.prod(x.size[:2]), *x.size[2:]):
            return self._dealt(node, node.name, replace(x, dealt=0), size, x.dealt)
        if len(x.size) == 3 and len(size) == 4 and size[2:] == x.size[1:] and not x.dealt:
            return replace(x, size=size, layer=None)
        if len(x.size) == 1 and size == (*x.size, 1, 1):
            return replace(x, size=size)
        if size != (math.prod(x.size),) or x.dealt:
            raise UserError(
                f"{_place(node)}: reshapes {x.size} to {size}; only flattening to [N, features] is supported; {WAY_OUT}"
            )
        pixels = math.prod(x.size) // len(x.labels)
        return replace(x, size=size, labels=x.labels.repeat(pixels), pixels=x.pixels * pixels)

    def _pad(self, name: str, x: Value, pad: Pad) -> Value:
        self._check_no_pad(name, x)
        return replace(x, pad=pad, layer=None)

    def _check_no_pad(self, name: str, x: Value) -> None:
        if x.pad != NO_PAD:
            raise UserError(f"{name}: zero padding is supported right before a convolution or an average pool alone")


def _whole_story(node: fx.Node, text: str) -> str:
    """A refusal with the module whose code it is about, and what can be done."""
    start = f"{node.name}: "
    if text.startswith(start) and node.op != "call_module":
        text = f"{_place(node)}: {text.removeprefix(start)}"
    is_operation = node.op in ("call_function", "call_method", "call_module")
    return f"{text}; {WAY_OUT}" if is_operation and WAY_OUT not in text else text


def _unsupported(node: fx.Node) -> UserError:
    target: Any = node.target
    if node.op == "call_module":
        return UserError(f"{target}: returns several tensors, which is not supported; {WAY_OUT}")
    title = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    return UserError(f"{_place(node)}: the operation {title} is not supported; {WAY_OUT}")


def check_no_bare_tensors(graph: fx.Graph) -> None:
    """Raise `UserError` naming a parameter, or a constant of the network's code, that is no layer's own."""
    for node in graph.nodes:
        if node.op == "get_attr":
            reader = next(iter(node.users), node)
            raise UserError(
                f"{_place(reader)}: a bare parameter or constant is used, {node.target}; only layers may have any; "
                f"{WAY_OUT}"
            )


def _place(node: fx.Node) -> str:
    """The operation, and the innermost module that calls it."""
    modules = list(node.meta.get("nn_module_stack") or {})
    return f"{node.name} in {modules[-1]}" if modules and modules[-1] else node.name


def _check_no_pixels(name: str, x: Value, what: str) -> None:
    if x.pixels > 1:
        raise UserError(f"{name}: {what} of a flattened feature map is not supported; put it before the flattening")


def _check_inputs(name: str, x: Value, expected: int) -> None:
    if x.size[0] != expected:
        raise UserError(f"{name}: takes {expected} channels where {x.size[0]} come in, which is not supported")
