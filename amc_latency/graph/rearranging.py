"""Operations that move channels or pixels about: joins, slices, shuffles, reshapes, pools to a size, upsampling."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from torch import fx, nn

from amc_latency.errors import UserError
from amc_latency.graph.layer_list import LayerList, Value, check_alike, check_no_pad, check_no_pixels, place
from amc_latency.graph.layer_shapes import Pad, Size, plain_shape, settings, slice_shape
from amc_latency.graph.operations import PERMUTES, names_channels, parts_of
from amc_latency.graph.tracing import OPEN_BATCH


def concat(found: LayerList, node: fx.Node, inputs: list[Value], size: Size) -> Value:
    """Channels of several tensors side by side."""
    given = parts_of(node)
    if given is None:
        made = node.all_input_nodes[0].name
        raise UserError(f"{node.name}: joins all that {made} makes; name its parts one by one")
    dim = settings(node, ("dim",)).get("dim", 0)
    if dim not in (1, -len(size)):
        raise UserError(f"{node.name}: joins along dimension {dim}; only channels, dimension 1, are supported")
    parts = [found.values[part] for part in given]
    check_alike(node.name, parts, "a join")
    labels = np.concatenate([part.labels for part in parts])
    found.labels.join(labels, node.name)
    if len(parts) == 1:
        return parts[0]
    shape = plain_shape(node.name, "concat", size, parts=len(parts))
    value = replace(parts[0], labels=labels)
    return found.add(node, node.name, shape, value, size, labels)


def part(found: LayerList, node: fx.Node, x: Value, size: Size) -> Value:
    """One of the tensors that a split makes."""
    split, index = node.all_input_nodes[0], int(node.args[1])  # type: ignore[arg-type]
    sizes = [tuple(meta.shape[1:]) for meta in split.meta["tensor_meta"]]
    if any(part[1:] != x.size[1:] for part in sizes) or sum(part[0] for part in sizes) != x.size[0]:
        raise UserError(f"{split.name}: only channels can be split")
    found.labels.keep(x.labels, f"{split.name} splits them at fixed places")
    return sliced(found, node, x, size, sum(part[0] for part in sizes[:index]))


def sliced(found: LayerList, node: fx.Node, x: Value, size: Size, start: int) -> Value:
    """Neighbouring channels from `start` on; their labels must be kept already."""
    labels = x.labels[start : start + size[0]]
    check_no_pixels(node.name, x, "a slice")
    return found.add(node, node.name, slice_shape(node.name, x.size, size[0]), x, size, labels, start)


def transposed(found: LayerList, node: fx.Node, x: Value, size: Size) -> Value:
    """The middle step of a channel shuffle."""
    if node.target in PERMUTES:
        given = node.args[1:] or (node.kwargs["dims"],)
        order = given[0] if isinstance(given[0], (list, tuple)) else given
        swaps = [int(str(dim)) % 5 for dim in order] == [0, 2, 1, 3, 4]
    else:
        swaps = sorted(int(str(dim)) % 5 for dim in settings(node, ("dim0", "dim1")).values()) == [1, 2]
    if len(x.size) != 4 or not swaps or x.dealt:
        raise UserError(f"{node.name}: only a transposition that shuffles channels is supported")
    labels = x.labels.reshape(x.size[:2]).T.reshape(-1)
    return replace(x, size=size, labels=labels, dealt=x.size[0])


def shuffled(found: LayerList, node: fx.Node, name: str, x: Value, groups: int) -> Value:
    """A channel shuffle by `groups`."""
    check_no_pad(name, x)
    dealt = x.labels.reshape(groups, -1).T.reshape(-1)
    return _dealt(found, node, name, replace(x, labels=dealt), x.size, groups)


def _dealt(found: LayerList, node: fx.Node, name: str, x: Value, size: Size, groups: int) -> Value:
    found.labels.keep(x.labels, f"{name} deals them out")
    return found.add(node, name, plain_shape(name, "shuffle", size, parts=groups), x, size, x.labels)


def upsampled(
    found: LayerList, node: fx.Node, name: str, x: Value, size: Size, mode: str, align_corners: bool = False
) -> Value:
    """Nearest or bilinear enlargement by a whole factor."""
    check_no_pad(name, x)
    factor = size[1] // x.size[1]
    if size[1:] != (x.size[1] * factor, x.size[2] * factor) or mode not in ("nearest", "bilinear") or align_corners:
        raise UserError(
            f"{name}: {mode} from {x.size} to {size} is not supported; only nearest and bilinear (without "
            "align_corners) by a whole factor"
        )
    return found.add(node, name, plain_shape(name, mode, x.size, stride=factor), x, size, x.labels)


def global_pool(found: LayerList, node: fx.Node, name: str, x: Value, size: Size) -> Value:
    """A mean over all pixels, or an adaptive pool to a size that divides, or is a multiple."""
    check_no_pad(name, x)
    if x.size == size:
        return replace(x, layer=None)
    if size in (x.size[:1], (x.size[0], 1, 1)):
        shape = plain_shape(name, "global_pool", x.size)
        # What is flattened next needs no height and width.
        made = [getattr(user.meta["tensor_meta"], "shape", ()) for user in node.users if "tensor_meta" in user.meta]
        keeps = len(size) == 3 and any(len(shape) != 2 for shape in made)
        return replace(found.add(node, name, shape, x, (x.size[0], 1, 1), x.labels, keeps), size=size)
    if len(size) == 3 and (factor := size[1] // x.size[1]) > 1 and size[1:] == tuple(factor * n for n in x.size[1:]):
        # Each pixel of the input alone is the mean of several of the output: VGG's 7x7 of a small image's 1x1.
        return upsampled(found, node, name, x, size, "nearest")
    kernel = x.size[1] // size[1]
    if len(size) != 3 or x.size[1:] != (size[1] * kernel, size[2] * kernel):
        raise UserError(f"{name}: pools {x.size} to {size}; only sizes that divide the input's are supported")
    return found.add(node, name, plain_shape(name, "avg_pool", x.size, kernel=kernel, stride=kernel), x, size, x.labels)


def reshaped(found: LayerList, node: fx.Node, name: str, x: Value, size: Size) -> Value:
    """Flattening, and what a channel shuffle or an excitation reshapes."""
    check_no_pad(name, x)
    if node.meta["tensor_meta"].shape[:1] != (OPEN_BATCH,):
        raise UserError(f"{place(node)}: reshapes {x.size} across images, which is not supported")
    module = found.traced.get_submodule(str(node.target)) if node.op == "call_module" else None
    if names_channels(node) or isinstance(module, nn.Unflatten):
        found.labels.keep(x.labels, f"{place(node)} reshapes them to a fixed size")
    if size == x.size:
        return x
    if x.dealt and size == (math.prod(x.size[:2]), *x.size[2:]):
        return _dealt(found, node, node.name, replace(x, dealt=0), size, x.dealt)
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


def pad(found: LayerList, name: str, x: Value, pad: Pad) -> Value:
    """Zeros that the window after it takes in."""
    check_no_pad(name, x)
    return replace(x, pad=pad, layer=None)
