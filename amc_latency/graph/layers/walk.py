"""One pass over a traced network, from the image to the logits: its layers, and what becomes of every channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import fx

from amc_latency.errors import UserError
from amc_latency.graph.kind import Call
from amc_latency.graph.layers.layer_list import LayerList, Value, check_no_pad, place
from amc_latency.graph.layers.layer_shapes import NO_PAD, Size
from amc_latency.graph.operations import is_split
from amc_latency.graph.registry import FUNCTIONS, MADE, kind_of_module
from amc_latency.graph.tracing import WAY_OUT, live_nodes


def walk(traced: fx.GraphModule) -> LayerList:
    """The network's layers in order of execution, and the labels of their channels.

    The sizes of its nodes must be known (`put_sizes`). Raises `UserError` that names the module, or the operation, that
    exporter, table or cut can't take.
    """
    found = LayerList(traced, MADE)
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
        raise _unsupported(found, node)
    size = tuple(meta.shape[1:])
    if (value := _called(found, node, inputs, tuple(meta.shape[1:]))) is None:
        raise _unsupported(found, node)
    found.values[node] = value


def _called(found: LayerList, node: fx.Node, inputs: Sequence[Value], size: Size) -> Value | None:
    """What a module or a function makes; None if it is not known."""
    module = found.traced.get_submodule(str(node.target)) if node.op == "call_module" else None
    name = node.name if module is None else str(node.target)
    kind = FUNCTIONS.get(node.target) if module is None else kind_of_module(module)
    if kind is None:
        return None
    if not kind.takes_pad:
        for each in inputs:
            check_no_pad(name, each)
    return kind.visit(Call(found, node, name, module, inputs, size))


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
        found.outputs.append(value)


def _only_nodes(output: Any) -> bool:
    """Whether an output is tensors alone, in tuples, lists and dicts."""
    if isinstance(output, Mapping):
        output = list(output.values())
    return isinstance(output, fx.Node) or (isinstance(output, tuple | list) and all(map(_only_nodes, output)))


def _whole_story(node: fx.Node, text: str) -> str:
    """A refusal with the module whose code it is about, and what can be done."""
    start = f"{node.name}: "
    if text.startswith(start) and node.op != "call_module":
        text = f"{place(node)}: {text.removeprefix(start)}"
    is_operation = node.op in ("call_function", "call_method", "call_module")
    return f"{text}; {WAY_OUT}" if is_operation and WAY_OUT not in text else text


def _unsupported(found: LayerList, node: fx.Node) -> UserError:
    target: Any = node.target
    if node.op == "call_module":
        title = type(found.traced.get_submodule(target)).__name__
        makes_one = hasattr(node.meta["tensor_meta"], "shape")
        what = f"{title} is not supported" if makes_one else "returns several tensors, which is not supported"
        return UserError(f"{target}: {what}; {WAY_OUT}")
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
