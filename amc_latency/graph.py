"""Network -> layer shapes and coupled groups, by one symbolic trace that runs on shapes alone."""

from __future__ import annotations

import io
import operator
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional

from amc_latency.coupling import ChannelGroup, find_groups
from amc_latency.errors import UserError
from lut.architecture import Architecture, Layer
from lut.shape import LayerShape, ShapeError

ADDS = (operator.add, operator.iadd, torch.add, "add", "add_")
_MEANS = (torch.mean, "mean")
RELUS = {
    functional.relu: "relu",
    torch.relu: "relu",
    "relu": "relu",
    "relu_": "relu",
    functional.relu6: "relu6",
}
_FREE = (torch.flatten, functional.dropout, "flatten", "view", "reshape", "contiguous")


@dataclass(frozen=True)
class NetworkGraph:
    """A network as the search, the cut and the table see it."""

    architecture: Architecture
    groups: tuple[ChannelGroup, ...]
    """coupled groups in network order, as in `architecture.group_channels`"""
    layer_names: tuple[str, ...]
    """module (or fx node) name of each of `architecture.layers`"""
    batch_norms: Mapping[str, str]
    """the batch norm that is folded into a convolution, by the convolution's name"""
    input_chw: tuple[int, int, int]


def with_tensors(model: nn.Module, tensor_of: Callable[[str, Tensor], Tensor]) -> nn.Module:
    """A copy of `model` whose parameters and buffers are `tensor_of(name, tensor)`.

    A parameter keeps its `requires_grad`; what has two names is copied once, under its first. Other attributes of
    a module are copied shallowly: `copy.deepcopy` takes 25 ms for MobileNetV1, and this runs once an episode.
    """
    copies: dict[int, Any] = {}

    def copied(prefix: str, module: nn.Module) -> nn.Module:
        if id(module) not in copies:
            copies[id(module)] = new = module.__new__(type(module))
            new.__dict__ = {
                key: value.copy() if isinstance(value, (dict, list, set)) else value
                for key, value in module.__dict__.items()
            }
            stores: tuple[dict[str, Any], ...] = (new._parameters, new._buffers)
            for tensors in stores:
                for name, tensor in tensors.items():
                    tensors[name] = copied_tensor(prefix + name, tensor)
            for name, child in new._modules.items():
                new._modules[name] = None if child is None else copied(f"{prefix}{name}.", child)
        return copies[id(module)]

    def copied_tensor(name: str, tensor: Tensor | None) -> Tensor | None:
        if tensor is not None and id(tensor) not in copies:
            new = tensor_of(name, tensor.detach())
            copies[id(tensor)] = nn.Parameter(new, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else new
        return None if tensor is None else copies[id(tensor)]

    return copied("", model)


def trace(model: nn.Module, input_chw: tuple[int, int, int]) -> NetworkGraph:
    """Find the layers that cost time and the coupled groups of `model` for an image [channels, height, width].

    Batch norm and activations are part of the layer that they follow; flatten and dropout are no layers.
    Raises UserError that names the module for anything which the exporter, the table or the cut can't take:
    joined, shuffled or grouped channels, other activations, a module that is called twice, control flow.
    """
    _check_nothing_is_tied(model)
    skeleton = with_tensors(model, lambda _, tensor: torch.empty_like(tensor, device="meta"))
    skeleton = skeleton.requires_grad_(True).eval()
    example = torch.empty(1, *input_chw, device="meta")
    try:
        traced = fx.symbolic_trace(skeleton)
        # ShapeProp prints a traceback of its own.
        with redirect_stderr(io.StringIO()):
            ShapeProp(traced).propagate(example)
    except Exception as error:  # whatever a network's own code raises
        cause = error.__cause__ or error
        reason = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
        size = "x".join(map(str, input_chw))
        raise UserError(f"the network can't be traced on a {size} input: {reason}") from error
    walk = _Walk(skeleton, traced)
    groups = find_groups(skeleton, example, walk.modules, walk.output_sources)
    group_of = {producer: index for index, group in enumerate(groups) for producer in group.producers}
    walk.check_against(groups, group_of)
    layers = tuple(
        Layer(layer.shape, group_of.get(layer.in_source or ""), group_of.get(layer.out_source or ""))
        for layer in walk.layers
    )
    return NetworkGraph(
        Architecture(layers, tuple(group.channels for group in groups)),
        groups,
        tuple(layer.name for layer in walk.layers),
        walk.batch_norms,
        input_chw,
    )


@dataclass
class _TracedLayer:
    """A layer in the making; a source is the module that produced the channels, None for the image."""

    name: str
    shape: LayerShape
    in_source: str | None
    out_source: str | None


@dataclass(frozen=True)
class _Value:
    """What is known of a tensor: its size without the batch, its source, the layer that made it."""

    size: tuple[int, ...]
    source: str | None
    layer: _TracedLayer | None


class _Walk:
    """One pass over the traced graph, from the image to the logits."""

    def __init__(self, model: nn.Module, traced: fx.GraphModule) -> None:
        self.model = model
        self.layers: list[_TracedLayer] = []
        self.modules: list[str] = []
        self.batch_norms: dict[str, str] = {}
        self.output_sources: set[str] = set()
        self._sums: list[tuple[str, str | None, str | None]] = []
        self._values: dict[fx.Node, _Value] = {}
        for node in traced.graph.nodes:
            self._visit(node)

    def check_against(self, groups: tuple[ChannelGroup, ...], group_of: Mapping[str, int]) -> None:
        """Hold this walk's own account of who shares channels against the groups.

        Raises UserError where they differ.
        """
        for name, left, right in self._sums:
            if group_of.get(left or "") != group_of.get(right or ""):
                raise UserError(
                    f"{name}: adds channels of {left or 'the input image'} to those of "
                    f"{right or 'the input image'}, but only one side can be cut; such a sum is not supported"
                )
        for layer in self.layers:
            group = group_of.get(layer.in_source or "")
            members = groups[group].consumers + groups[group].depthwise if group is not None else ()
            if layer.shape.kind in ("conv", "depthwise", "linear") and (group is not None) != (layer.name in members):
                raise UserError(f"{layer.name}: its input channels can't be followed back to the layer that makes them")

    def _visit(self, node: fx.Node) -> None:
        inputs = [self._values[parent] for parent in node.all_input_nodes if parent in self._values]
        if node.op == "output":
            if len(inputs) != 1 or len(inputs[0].size) != 1:
                raise UserError("the network must return one tensor of logits [N, classes]")
            self.output_sources.update(value.source for value in inputs if value.source)
            return
        meta = node.meta.get("tensor_meta")
        if meta is None or not hasattr(meta, "shape"):  # sizes that a view() takes
            return
        size = tuple(meta.shape[1:])
        if node.op == "placeholder":
            if self._values:
                raise UserError(f"{node.name}: the network takes a second input; only one image is supported")
            self._values[node] = _Value(size, None, None)
        elif node.op == "call_module":
            name = str(node.target)
            self._values[node] = self._module(node, name, self.model.get_submodule(name), inputs[0], size)
        elif node.op in ("call_function", "call_method"):
            self._values[node] = self._function(node, inputs, size)
        else:
            raise UserError(f"{node.target}: a bare parameter is used; only layers may have parameters")

    def _module(self, node: fx.Node, name: str, module: nn.Module, x: _Value, size: tuple[int, ...]) -> _Value:
        match module:
            case nn.Conv2d():
                return self._layer(name, _conv_shape(name, module, x), x, size, self._once(name))
            case nn.Linear():
                if len(x.size) != 1:
                    raise UserError(f"{name}: a linear layer takes [N, features]; flatten before it")
                shape = LayerShape("linear", module.in_features, module.out_features)
                return self._layer(name, shape, x, size, self._once(name))
            case nn.BatchNorm2d():
                return self._batch_norm(node, self._once(name), module, x)
            case nn.ReLU6():
                return self._activation(node, name, x, "relu6")
            case nn.ReLU():
                return self._activation(node, name, x, "relu")
            case nn.MaxPool2d():
                dilation = _single(name, "dilation", module.dilation)
                if dilation != 1:
                    raise UserError(f"{name}: dilation {dilation} is not supported")
                return self._pool("max_pool", name, module, x, size)
            case nn.AvgPool2d():
                if module.divisor_override is not None or (module.padding and not module.count_include_pad):
                    raise UserError(f"{name}: divisor_override and count_include_pad=False are not supported")
                return self._pool("avg_pool", name, module, x, size)
            case nn.AdaptiveAvgPool2d():
                return self._global_pool(name, x, size)
            case nn.Flatten() | nn.Dropout() | nn.Dropout2d() | nn.Identity():
                return self._free(name, x, size)
        raise UserError(f"{name}: {type(module).__name__} is not supported")

    def _function(self, node: fx.Node, inputs: list[_Value], size: tuple[int, ...]) -> _Value:
        target: Any = node.target
        if target in ADDS:
            return self._add(node, inputs, size)
        if target in RELUS:
            return self._activation(node, node.name, inputs[0], RELUS[target])
        if target is functional.adaptive_avg_pool2d or (target in _MEANS and _is_spatial_mean(node)):
            return self._global_pool(node.name, inputs[0], size)
        if target in _FREE:
            return self._free(node.name, inputs[0], size)
        title = target if isinstance(target, str) else getattr(target, "__name__", str(target))
        raise UserError(f"{node.name}: the operation {title} is not supported")

    def _layer(self, name: str, shape: LayerShape, x: _Value, size: tuple[int, ...], out_source: str | None) -> _Value:
        expected = (shape.c_out,) if len(size) == 1 else (shape.c_out, shape.h_out, shape.w_out)
        if expected != size:
            raise UserError(f"{name}: makes {size} where {expected} is supported (is ceil_mode set?)")
        if shape.kind == "depthwise":
            out_source = x.source
        layer = _TracedLayer(name, shape, x.source, out_source)
        self.layers.append(layer)
        return _Value(size, out_source, layer)

    def _once(self, name: str) -> str:
        if name in self.modules:
            raise UserError(f"{name}: is called twice; a layer that is shared can't be cut")
        self.modules.append(name)
        return name

    def _batch_norm(self, node: fx.Node, name: str, module: nn.BatchNorm2d, x: _Value) -> _Value:
        layer = self._fusible(node, x)
        if layer is None or layer.shape.kind not in ("conv", "depthwise") or layer.name in self.batch_norms:
            raise UserError(f"{name}: a batch norm must follow a convolution directly, to be folded into it")
        if not module.affine or not module.track_running_stats:
            raise UserError(f"{name}: a batch norm without weights or without running statistics is not supported")
        self.batch_norms[layer.name] = name
        return x

    def _activation(self, node: fx.Node, name: str, x: _Value, activation: str) -> _Value:
        layer = self._fusible(node, x)
        if layer is None:
            raise UserError(f"{name}: {activation} must follow a layer directly, to be fused into it")
        layer.shape = replace(layer.shape, activation=activation)
        return x

    def _fusible(self, node: fx.Node, x: _Value) -> _TracedLayer | None:
        """The layer that made `x`, if `node` alone reads `x` and no activation lies between."""
        read_once = len(node.all_input_nodes[0].users) == 1
        return x.layer if read_once and x.layer and x.layer.shape.activation == "none" else None

    def _add(self, node: fx.Node, inputs: list[_Value], size: tuple[int, ...]) -> _Value:
        if len(inputs) != 2 or inputs[0].size != inputs[1].size or len(size) != 3 or node.kwargs.get("alpha", 1) != 1:
            raise UserError(f"{node.name}: only two equally large feature maps [N, C, H, W] can be added")
        left, right = inputs
        self._sums.append((node.name, left.source, right.source))
        return self._layer(node.name, LayerShape("add", size[0], size[0], *size[1:]), left, size, left.source)

    def _pool(self, kind: str, name: str, module: Any, x: _Value, size: tuple[int, ...]) -> _Value:
        kernel, stride, padding = (
            _single(name, key, getattr(module, key)) for key in ("kernel_size", "stride", "padding")
        )
        channels, h, w = x.size
        return self._layer(
            name, _shape(name, kind, channels, channels, h, w, kernel, stride, padding), x, size, x.source
        )

    def _global_pool(self, name: str, x: _Value, size: tuple[int, ...]) -> _Value:
        if x.size == size:
            return x
        if size not in (x.size[:1], (x.size[0], 1, 1)):
            raise UserError(f"{name}: pools {x.size} to {size}; only pooling to 1x1 is supported")
        shape = _shape(name, "global_pool", x.size[0], x.size[0], *x.size[1:])
        return replace(self._layer(name, shape, x, (x.size[0], 1, 1), x.source), size=size)

    def _free(self, name: str, x: _Value, size: tuple[int, ...]) -> _Value:
        features = 1
        for length in x.size:
            features *= length
        if size not in (x.size, (features,)):
            raise UserError(f"{name}: reshapes {x.size} to {size}; only flattening to [N, features] is supported")
        return replace(x, size=size)


def _check_nothing_is_tied(model: nn.Module) -> None:
    owners: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owner = owners.setdefault(id(parameter), name)
        if owner != name:
            raise UserError(f"{name}: is the same tensor as {owner}; weights that are shared can't be cut")


def _conv_shape(name: str, conv: nn.Conv2d, x: _Value) -> LayerShape:
    depthwise = conv.groups > 1
    if depthwise and not conv.groups == conv.in_channels == conv.out_channels:
        raise UserError(
            f"{name}: {conv.groups} groups of channels are not supported; only 1, or a depthwise convolution"
        )
    if _single(name, "dilation", conv.dilation) != 1 or conv.padding_mode != "zeros":
        raise UserError(f"{name}: dilation and padding other than zeros are not supported")
    kernel, stride, padding = (_single(name, key, getattr(conv, key)) for key in ("kernel_size", "stride", "padding"))
    kind = "depthwise" if depthwise else "conv"
    return _shape(name, kind, conv.in_channels, conv.out_channels, *x.size[1:], kernel, stride, padding)


def _shape(name: str, kind: str, c_in: int, c_out: int, *sizes: int) -> LayerShape:
    """A layer shape; `sizes` are h, w and, unless 1, 1, 0, kernel, stride and padding."""
    h, w, kernel, stride, padding = (*sizes, 1, 1, 0)[:5]
    try:
        return LayerShape(kind, c_in, c_out, h, w, kernel, stride, padding)
    except ShapeError as error:
        raise UserError(f"{name}: {error}") from error


def _single(name: str, key: str, value: int | str | tuple[int, ...]) -> int:
    """The one number of a setting that PyTorch keeps for each dimension."""
    values = set(value) if isinstance(value, tuple) else {value}
    if len(values) != 1 or not isinstance(number := values.pop(), int):
        raise UserError(f"{name}: {key} {value} is not supported; it must be one number for height and width")
    return number


def _is_spatial_mean(node: fx.Node) -> bool:
    dims = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    return isinstance(dims, (list, tuple)) and sorted(int(str(dim)) % 4 for dim in dims) == [2, 3]
