"""One pass over a traced network, from the image to the logits: its layers, and what becomes of every channel."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from amc_latency.errors import UserError
from amc_latency.graph import rearranging
from amc_latency.graph.layer_list import LayerList, Value, check_no_pad, place
from amc_latency.graph.layer_shapes import (
    AVG_POOL_ARGUMENTS,
    INTERPOLATE_ARGUMENTS,
    MAX_POOL_ARGUMENTS,
    NO_PAD,
    Size,
    plain_shape,
    settings,
    zeros_of,
)
from amc_latency.graph.operations import (
    ACTIVATION_MODULES,
    ADDS,
    CATS,
    MULS,
    PERMUTES,
    RESHAPES,
    SAME,
    activation_of,
    is_spatial_mean,
    is_split,
    sliced_channels,
    with_scalar,
)
from amc_latency.graph.tracing import WAY_OUT, live_nodes


def walk(traced: fx.GraphModule) -> LayerList:
    """The network's layers in order of execution, and the labels of their channels.

    The sizes of its nodes must be known (`put_sizes`). Raises `UserError` that names the module, or the operation, that
    exporter, table or cut can't take.
    """
    found = LayerList(traced)
    live = live_nodes(traced.graph)
    for node in traced.graph.nodes:
        try:
            _visit(found, node, node in live)
        except UserError as error:
            raise UserError(_whole_story(node, str(error))) from error
    return found


def _visit(found: LayerList, node: fx.Node, is_live: bool) -> None:
    inputs = [found.values[parent] for parent in node.all_input_nodes if parent in found.values]
    if node.op == "output":
        _output(found, node)
        return
    meta = node.meta.get("tensor_meta")
    if node.op == "placeholder":
        if found.values:
            raise UserError(f"{node.name}: the network takes a second input; only one image is supported")
        size = tuple(meta.shape[1:])  # type: ignore[union-attr]
        labels = found.labels.new(size[0])
        found.labels.keep(labels, "they go with the input image's")
        found.values[node] = Value(size, labels)
        return
    if meta is None:
        return  # Sizes that a view() takes.
    if not is_live:
        for each in inputs:
            found.labels.keep(each.labels, f"{place(node)} reads them, whose result is never used")
        return
    if isinstance(meta, tuple) and is_split(node) and inputs:
        found.values[node] = inputs[0]
        return
    if not hasattr(meta, "shape") or not inputs:
        raise _unsupported(node)
    size = tuple(meta.shape[1:])
    if node.op == "call_module":
        name = str(node.target)
        found.values[node] = _module(found, node, name, found.traced.get_submodule(name), inputs[0], size)
    else:
        found.values[node] = _function(found, node, inputs, size)


def _output(found: LayerList, node: fx.Node) -> None:
    """Its channels are whoever reads them's, so they stay: of one tensor, or of several in tuples, lists and dicts."""
    if not node.all_input_nodes or not _only_nodes(node.args[0]):
        raise UserError("the network returns something that is no tensor, or depends on no image")
    for maker in node.all_input_nodes:
        value = found.values.get(maker)
        if value is None:
            raise UserError(f"{place(maker)}: the network returns something that does not depend on its image")
        if value.pixels > 1:
            raise UserError(
                f"{place(maker)}: returns a flattened feature map; return the map, or logits [N, classes], in its place"
            )
        if value.dealt or value.pad != NO_PAD:
            raise UserError(f"{place(maker)}: returns a map that is padded or in the middle of a channel shuffle")
        found.labels.keep(value.labels, "they are the network's output")
        found.outputs.append((maker.name, value.size))


def _only_nodes(output: Any) -> bool:
    """Whether an output is tensors alone, in tuples, lists and dicts."""
    if isinstance(output, Mapping):
        output = list(output.values())
    return isinstance(output, fx.Node) or (isinstance(output, tuple | list) and all(map(_only_nodes, output)))


def _module(found: LayerList, node: fx.Node, name: str, module: nn.Module, x: Value, size: Size) -> Value:
    activation = ACTIVATION_MODULES.get(type(module))
    if activation is not None:
        return found.activation(node, name, x, activation, module)
    match module:
        case nn.Conv2d():
            return found.convolution(node, name, module, x, size)
        case nn.Linear():
            return found.linear(node, name, module, x, size)
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            return found.batch_norm(node, name, module, x)
        case nn.ZeroPad2d():
            return rearranging.pad(found, name, x, zeros_of(name, module.padding, 0.0))
        case nn.MaxPool2d() | nn.AvgPool2d():
            return found.pool(node, name, module, x, size)
        case nn.AdaptiveAvgPool2d():
            return rearranging.global_pool(found, node, name, x, size)
        case nn.Flatten() | nn.Unflatten():
            return rearranging.reshaped(found, node, name, x, size)
        case nn.Dropout() | nn.Dropout2d() | nn.Identity():
            return x
        case nn.Softmax():
            return found.softmax(node, name, x, module.dim)
        case nn.ChannelShuffle():
            return rearranging.shuffled(found, node, name, x, module.groups)
        case nn.Upsample():
            return rearranging.upsampled(found, node, name, x, size, module.mode, bool(module.align_corners))
        case nn.Hardtanh() if (module.min_val, module.max_val) == (0, 6):
            return found.activation(node, name, x, "relu6", module)
    raise UserError(f"{name}: {type(module).__name__} is not supported; {WAY_OUT}")


def _function(found: LayerList, node: fx.Node, inputs: list[Value], size: Size) -> Value:
    target: Any = node.target
    name, x = node.name, inputs[0]
    if target in SAME:
        return x
    if target is functional.pad:
        mode, value = settings(node, ("pad", "mode", "value")).get("mode", "constant"), node.kwargs.get("value", 0)
        if mode != "constant":
            raise UserError(f"{name}: padding by {mode} is not supported")
        sides = settings(node, ("pad",))["pad"]
        zeros = zeros_of(name, sides, value if len(node.args) < 4 else node.args[3])  # type: ignore[arg-type]
        return rearranging.pad(found, name, x, zeros)
    if target in (functional.max_pool2d, torch.max_pool2d):
        return found.pool(node, name, nn.MaxPool2d(**settings(node, MAX_POOL_ARGUMENTS)), x, size)
    if target is functional.avg_pool2d:
        return found.pool(node, name, nn.AvgPool2d(**settings(node, AVG_POOL_ARGUMENTS)), x, size)
    for each in inputs:
        check_no_pad(name, each)
    if (arithmetic := with_scalar(node)) is not None:
        kind, argument = arithmetic
        return found.add(node, name, plain_shape(name, kind, x.size), x, size, x.labels, argument)
    if target in ADDS or target in MULS:
        return found.binary(node, inputs, size, "add" if target in ADDS else "mul")
    if target in CATS:
        return rearranging.concat(found, node, inputs, size)
    if target is operator.getitem and is_split(node.all_input_nodes[0]):
        return rearranging.part(found, node, x, size)
    if (taken := sliced_channels(node, x.size[0])) is not None:
        if len(taken) == x.size[0]:
            return x
        found.labels.keep(x.labels, f"{place(node)} takes them at fixed places")
        return rearranging.sliced(found, node, x, size, taken.start)
    if (activation := activation_of(node, found.traced)) is not None:
        return found.activation(node, name, x, activation, None)
    if target is functional.adaptive_avg_pool2d or (target in (torch.mean, "mean") and is_spatial_mean(node)):
        return rearranging.global_pool(found, node, name, x, size)
    if target in (functional.softmax, torch.softmax, "softmax"):
        return found.softmax(node, name, x, settings(node, ("dim",)).get("dim"))
    if target in (torch.transpose, "transpose", *PERMUTES):
        return rearranging.transposed(found, node, x, size)
    if target is functional.channel_shuffle:
        return rearranging.shuffled(found, node, name, x, settings(node, ("groups",))["groups"])
    if target is functional.interpolate:
        given = settings(node, INTERPOLATE_ARGUMENTS)
        if given.get("antialias"):
            raise UserError(f"{name}: antialiasing is not supported")
        mode, aligned = given.get("mode", "nearest"), bool(given.get("align_corners"))
        return rearranging.upsampled(found, node, name, x, size, mode, aligned)
    if target in RESHAPES:
        return rearranging.reshaped(found, node, name, x, size)
    raise _unsupported(node)


def _whole_story(node: fx.Node, text: str) -> str:
    """A refusal with the module whose code it is about, and what can be done."""
    start = f"{node.name}: "
    if text.startswith(start) and node.op != "call_module":
        text = f"{place(node)}: {text.removeprefix(start)}"
    is_operation = node.op in ("call_function", "call_method", "call_module")
    return f"{text}; {WAY_OUT}" if is_operation and WAY_OUT not in text else text


def _unsupported(node: fx.Node) -> UserError:
    target: Any = node.target
    if node.op == "call_module":
        return UserError(f"{target}: returns several tensors, which is not supported; {WAY_OUT}")
    title = target if isinstance(target, str) else getattr(target, "__name__", str(target))
    return UserError(f"{place(node)}: the operation {title} is not supported; {WAY_OUT}")


def check_no_bare_tensors(graph: fx.Graph) -> None:
    """Raise `UserError` naming a parameter, or a constant of the network's code, that is no layer's own."""
    for node in graph.nodes:
        if node.op == "get_attr":
            reader = next(iter(node.users), node)
            raise UserError(
                f"{place(reader)}: a bare parameter or constant is used, {node.target}; only layers may have any; "
                f"{WAY_OUT}"
            )
