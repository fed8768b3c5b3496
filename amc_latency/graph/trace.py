"""Network -> layer shapes and coupled groups, by one symbolic trace that runs on shapes alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate
from torch.fx.passes.shape_prop import TensorMetadata

from amc_latency.errors import UserError
from amc_latency.graph.coupling import ChannelGroup, LeftWhole
from amc_latency.graph.layers.walk import check_no_bare_tensors, walk
from amc_latency.graph.tracing import OPEN_BATCH, symbolic
from amc_latency.lut.shapes.architecture import Architecture, Layer


@dataclass(frozen=True)
class NetworkGraph:
    """A network as the search, the cut and the table see it."""

    architecture: Architecture
    groups: tuple[ChannelGroup, ...]
    """coupled groups in network order, as in `architecture.group_channels`"""
    layer_names: tuple[str, ...]
    """module (or fx node) name of each of `architecture.layers`"""
    layer_nodes: tuple[str, ...]
    """fx node of each of them"""
    tensors: Mapping[str, int]
    """the tensor that each fx node holds, by its number in `architecture`; none where its layer goes on later"""
    arguments: tuple[float, ...]
    """of each of them what its shape doesn't say: a slice's start, an activation's slope, the number of a sum"""
    batch_norms: Mapping[str, str]
    """the batch norm that is folded into a convolution or a linear layer, by that layer's name"""
    left_whole: tuple[LeftWhole, ...]
    """layers whose outputs are not cut, and why"""
    input_chw: tuple[int, int, int]
    output_sizes: tuple[tuple[int, ...], ...]
    """of each tensor that the network returns, once each: (features,) or (channels, height, width)"""

    @property
    def holders(self) -> dict[int, str]:
        """The fx node that makes each tensor whole: that of the last operation which is part of its layer."""
        found: dict[int, str] = {}
        for name, tensor in self.tensors.items():
            found.setdefault(tensor, name)
        return found


def with_tensors(model: nn.Module, tensor_of: Callable[[str, Tensor], Tensor]) -> nn.Module:
    """A copy of `model` whose parameters and buffers are `tensor_of(name, tensor)`.

    A parameter keeps its `requires_grad`; what has two names is copied once, under its first. Other attributes of
    a module are copied shallowly: `copy.deepcopy` takes 25 ms for MobileNetV1, and this runs once an episode.
    """
    copies: dict[int, Any] = {}

    def copied(prefix: str, module: nn.Module) -> nn.Module:
        if id(module) not in copies:
            copies[id(module)] = new = object.__new__(type(module))
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


def traced_on_meta(model: nn.Module, input_chw: tuple[int, int, int]) -> fx.GraphModule:
    """The network's operations; their names are the same whenever the same network is traced. Raises UserError."""
    skeleton = with_tensors(model, lambda _, tensor: torch.empty_like(tensor, device="meta")).eval()
    return symbolic(skeleton, _example(input_chw))


def put_sizes(traced: fx.GraphModule, input_chw: tuple[int, int, int]) -> None:
    """Set the `tensor_meta` of a network's nodes, for a batch of `OPEN_BATCH`; its tensors are on the meta device.

    Raises `UserError` with the network's own reason if it can't be run.
    """
    try:
        _propagate(traced, _example(input_chw))
    except Exception as error:  # whatever a network's own code raises
        size = "x".join(map(str, input_chw))
        try:
            # Its reason for a batch that nobody asked for would say little.
            _propagate(traced, _example(input_chw, 1))
        except Exception as of_one:
            cause = of_one.__cause__ or of_one
            reason = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
            raise UserError(f"the network can't be run on a {size} input: {reason}") from error
        raise UserError(
            f"the network can be run on one {size} image at a time alone; it must take any number"
        ) from error


def _propagate(traced: fx.GraphModule, images: Tensor) -> None:
    with torch.no_grad():
        _Sizes(traced).run(images)


class _Sizes(fx.Interpreter):
    """Sets `tensor_meta` as torch's `ShapeProp` does, which loads torch's compiler: two seconds of a short command.

    Runs no module whose output's size is known: torch takes a millisecond to find that out on meta, and loads the same
    for the first linear layer or pooling.
    """

    def run_node(self, n: fx.Node) -> Any:
        try:
            result = super().run_node(n)
        except Exception as error:  # whatever a network's own code raises
            raise RuntimeError(f"{n.name} can't be run") from error
        sizes: list[TensorMetadata] = []

        def size_of(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            stride = () if value.is_sparse else value.stride()
            sizes.append(TensorMetadata(value.shape, value.dtype, value.requires_grad, stride, None, False, {}))
            return sizes[-1]

        meta = map_aggregate(result, size_of)
        if sizes:
            n.meta["tensor_meta"] = meta
        return result

    def call_module(self, target: fx.node.Target, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        module = self.fetch_attr(str(target))
        x = args[0] if len(args) == 1 and not kwargs else None
        if isinstance(x, Tensor) and x.dtype == torch.float32:
            if type(module) in _ACTIVATIONS:
                return x if module.inplace else x.new_empty(x.shape)
            if type(module) is nn.BatchNorm2d and x.dim() == 4 and x.shape[1] == module.num_features:
                return x.new_empty(x.shape)
            if type(module) in _POOLS and x.dim() == 4 and (size := _pooled(module, x.shape)):
                return x.new_empty(*x.shape[:2], *size)
            if type(module) is nn.Conv2d and (size := conv2d_size(module, x.shape)):
                return x.new_empty(size)
            if type(module) is nn.Linear and x.dim() and x.shape[-1] == module.in_features:
                return x.new_empty(*x.shape[:-1], module.out_features)
        return super().call_module(target, args, kwargs)


def conv2d_size(conv: nn.Conv2d, size: Sequence[int]) -> tuple[int, ...]:
    """The size of what a convolution makes of a tensor of this size; none where torch is to say what is wrong."""
    if len(size) != 4 or size[1] != conv.in_channels or isinstance(conv.padding, str):
        return ()
    made = [
        (length + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
        for length, pad, dilation, kernel, stride in zip(
            size[2:], conv.padding, conv.dilation, conv.kernel_size, conv.stride, strict=True
        )
    ]
    return (size[0], conv.out_channels, *made) if min(made) > 0 else ()


def _pooled(pool: nn.Module, size: Sequence[int]) -> Sequence[int]:
    """Height and width of what a pooling makes; none where torch is to say what is wrong, or a map is large."""
    if math.prod(size[2:]) > _LARGE:
        return ()
    try:
        made = pool(torch.zeros(1, 1, *size[2:]))
    except Exception:
        return ()
    return made.shape[2:] if isinstance(made, Tensor) else ()


_LARGE = 1 << 20
"""values of a map that isn't made to see its size"""
_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.SiLU)


def _example(input_chw: tuple[int, int, int], batch: int = OPEN_BATCH) -> Tensor:
    return torch.empty(batch, *input_chw, device="meta")


def trace(model: nn.Module, input_chw: tuple[int, int, int]) -> NetworkGraph:
    """Find the layers that cost time and the coupled groups of `model` for an image [channels, height, width].

    Batch norm and activations are part of the layer that they follow where they can be; flatten and dropout are no
    layers. Raises UserError that names the module for anything which the exporter, the table or the cut can't take,
    and `UntraceableError` for control flow.
    """
    _check_nothing_is_tied(model)
    traced = traced_on_meta(model, input_chw)
    check_no_bare_tensors(traced.graph)
    put_sizes(traced, input_chw)
    found = walk(traced)
    grouping = found.labels.groups(found.modules)
    parts = grouping.parts
    layers = tuple(
        Layer(layer.shape, parts(layer.in_labels), parts(layer.out_labels), layer.again, layer.reads)
        for layer in found.layers
    )
    outputs = tuple(dict.fromkeys(value.made_by for value in found.outputs))
    return NetworkGraph(
        architecture=Architecture(layers, tuple(group.channels for group in grouping.groups), outputs),
        groups=grouping.groups,
        layer_names=tuple(layer.name for layer in found.layers),
        layer_nodes=tuple(layer.node for layer in found.layers),
        tensors=found.held(),
        arguments=tuple(layer.argument for layer in found.layers),
        batch_norms=found.batch_norms,
        left_whole=grouping.left_whole,
        input_chw=input_chw,
        output_sizes=tuple(tuple(value.size) for value in found.outputs),
    )


def _check_nothing_is_tied(model: nn.Module) -> None:
    owners: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owner = owners.setdefault(id(parameter), name)
        if owner != name:
            raise UserError(f"{name}: is the same tensor as {owner}; weights that are shared can't be cut")
