"""Joins, splits and slices of channels."""

from __future__ import annotations

import operator
from dataclasses import replace
from typing import Any

import numpy as np

from amc_latency.errors import UserError
from amc_latency.graph.in_file import of_one_rank
from amc_latency.graph.kind import Call, Made, TorchKind
from amc_latency.graph.layers.layer_list import Value, check_alike, check_no_pixels, place
from amc_latency.graph.layers.layer_shapes import plain_shape, settings, slice_shape
from amc_latency.graph.operations import CATS, is_split, parts_of, sliced_channels


def _concat(call: Call) -> Value:
    """Channels of several tensors side by side."""
    found, node = call.found, call.node
    given = parts_of(node)
    if given is None:
        made = node.all_input_nodes[0].name
        raise UserError(f"{node.name}: joins all that {made} makes; name its parts one by one")
    dim = settings(node, ("dim",)).get("dim", 0)
    if dim not in (1, -len(call.size)):
        raise UserError(f"{node.name}: joins along dimension {dim}; only channels, dimension 1, are supported")
    parts = [found.values[part] for part in given]
    check_alike(node.name, parts, "a join")
    labels = np.concatenate([part.labels for part in parts])
    found.labels.join(labels, node.name)
    if len(parts) == 1:
        return parts[0]
    shape = plain_shape(node.name, "concat", call.size, parts=len(parts))
    return found.add(call, shape, labels, x=replace(parts[0], labels=labels))


def _taken(call: Call) -> Value | None:
    """One of the tensors that a split makes, or neighbouring channels of one tensor."""
    found, node, x = call.found, call.node, call.x
    if is_split(node.all_input_nodes[0]):
        return _part(call)
    taken = sliced_channels(node, x.size[0])
    if taken is None or len(taken) == x.size[0]:
        return None if taken is None else x
    found.labels.keep(x.labels, f"{place(node)} takes them at fixed places")
    return _sliced(call, taken.start)


def _part(call: Call) -> Value:
    node: Any = call.node
    split, index = node.all_input_nodes[0], int(node.args[1])
    sizes = [tuple(meta.shape[1:]) for meta in split.meta["tensor_meta"]]
    x = call.x
    if any(part[1:] != x.size[1:] for part in sizes) or sum(part[0] for part in sizes) != x.size[0]:
        raise UserError(f"{split.name}: only channels can be split")
    call.found.labels.keep(x.labels, f"{split.name} splits them at fixed places")
    return _sliced(call, sum(part[0] for part in sizes[:index]))


def _sliced(call: Call, start: int) -> Value:
    """Neighbouring channels from `start` on; their labels must be kept already."""
    x, channels = call.x, call.size[0]
    labels = x.labels[start : start + channels]
    check_no_pixels(call.node.name, x, "a slice")
    return call.found.add(call, slice_shape(call.node.name, x.size, channels), labels, argument=start)


KINDS = (
    TorchKind(
        "concatenation",
        _concat,
        functions=CATS,
        made={"concat": Made(reads=parts_of, inputs=lambda file, sources, shape: of_one_rank(file, sources))},
    ),
    TorchKind("slice", _taken, functions=(operator.getitem,), made={"slice": Made()}),
)
