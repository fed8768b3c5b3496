"""Flattening, views, and channel shuffles, which are three of them in a row or a module."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from amc_latency.errors import UserError
from amc_latency.graph.kind import Call, Made, TorchKind
from amc_latency.graph.layers.layer_list import LayerList, Value, check_no_pixels, place
from amc_latency.graph.layers.layer_shapes import plain_shape, settings
from amc_latency.graph.operations import PERMUTES, RESHAPES, names_channels
from amc_latency.graph.tracing import OPEN_BATCH


def _transposed(call: Call) -> Value:
    """The middle step of a channel shuffle."""
    node, x = call.node, call.x
    if node.target in PERMUTES:
        given = node.args[1:] or (node.kwargs["dims"],)
        order: Any = given[0] if isinstance(given[0], (list, tuple)) else given
        swaps = [int(str(dim)) % 5 for dim in order] == [0, 2, 1, 3, 4]
    else:
        swaps = sorted(int(str(dim)) % 5 for dim in settings(node, ("dim0", "dim1")).values()) == [1, 2]
    if len(x.size) != 4 or not swaps or x.dealt:
        raise UserError(f"{node.name}: only a transposition that shuffles channels is supported")
    labels = x.labels.reshape(x.size[:2]).T.reshape(-1)
    return replace(x, size=call.size, labels=labels, dealt=x.size[0])


def _shuffled(call: Call) -> Value:
    module, x = call.module, call.x
    groups = module.groups if isinstance(module, nn.ChannelShuffle) else settings(call.node, ("groups",))["groups"]
    return _dealt(call, replace(x, labels=x.labels.reshape(groups, -1).T.reshape(-1)), x.size, groups)


def _dealt(call: Call, x: Value, size: tuple[int, ...], groups: int) -> Value:
    call.found.labels.keep(x.labels, f"{call.name} deals them out")
    return call.found.add(call, plain_shape(call.name, "shuffle", size, parts=groups), x.labels, x=x, size=size)


def _reshaped(call: Call) -> Value:
    """Flattening, and what a channel shuffle or an excitation reshapes."""
    found, node, x, size = call.found, call.node, call.x, call.size
    if node.meta["tensor_meta"].shape[:1] != (OPEN_BATCH,):
        raise UserError(f"{place(node)}: reshapes {x.size} across images, which is not supported")
    if names_channels(node) or isinstance(call.module, nn.Unflatten):
        found.labels.keep(x.labels, f"{place(node)} reshapes them to a fixed size")
    if size == x.size:
        return x
    if x.dealt and size == (math.prod(x.size[:2]), *x.size[2:]):
        return _dealt(call, replace(x, dealt=0), size, x.dealt)
    if len(x.size) == 3 and len(size) == 4 and size[2:] == x.size[1:] and not x.dealt:
        return replace(x, size=size, layer=None)
    if len(x.size) == 1 and size == (*x.size, 1, 1):
        if x.pixels > 1 and not all(_is_convolution(found, user) for user in node.users):
            check_no_pixels(place(node), x, "another operation than a convolution without groups")
        return replace(x, size=size)
    if size != (math.prod(x.size),) or x.dealt:
        raise UserError(f"{place(node)}: reshapes {x.size} to {size}; only flattening to [N, features] is supported")
    if math.prod(x.size) == len(x.labels):
        return replace(x, size=size)
    return replace(x, size=size, labels=x.labels.repeat(math.prod(x.size[-2:])), flat=(x.size[-2], x.size[-1]))


def _is_convolution(found: LayerList, node: fx.Node) -> bool:
    module = found.traced.get_submodule(str(node.target)) if node.op == "call_module" else None
    return isinstance(module, nn.Conv2d) and module.groups == 1


KINDS = (
    TorchKind("reshape", _reshaped, (nn.Flatten, nn.Unflatten), RESHAPES),
    TorchKind("transposition", _transposed, functions=(torch.transpose, "transpose", *PERMUTES)),
    TorchKind(
        "channel shuffle",
        _shuffled,
        (nn.ChannelShuffle,),
        (functional.channel_shuffle,),
        made={"shuffle": Made()},
    ),
)
