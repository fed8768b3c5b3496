"""A traced network as few steps: a convolution, its batch norm and its activation are one kernel call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights

from amc_latency.graph.batch_norm import scale_and_shift
from amc_latency.graph.operations import BATCH_NORMS, OUT_OF_PLACE, activation_of
from amc_latency.graph.trace import NetworkGraph, traced_on_meta
from amc_latency.lut.shapes.shape import FUSED_ACTIVATIONS

Values = dict[fx.Node, Any]
"""What later steps still read: feature maps, and sizes that a view() takes."""


@dataclass(frozen=True)
class FoldedConv:
    """A convolution whose batch norm is in its weights, with the activation behind it."""

    conv: nn.Conv2d
    """for stride, padding and the like"""
    weight: Tensor
    """packed for the kernel where there is a fused one"""
    bias: Tensor | None
    activation: str

    def __call__(self, x: Tensor) -> Tensor:
        conv = self.conv
        if not self.weight.is_mkldnn:
            x = functional.conv2d(x, self.weight, self.bias, conv.stride, conv.padding, conv.dilation, conv.groups)
            return _activated_(x, self.activation)
        name, scalars = {"none": ("none", []), "relu": ("relu", []), "relu6": ("hardtanh", [0.0, 6.0])}[self.activation]
        # What PyTorch's own compiler makes of a convolution on a CPU (torch/_inductor/fx_passes/mkldnn_fusion.py).
        return torch.ops.mkldnn._convolution_pointwise(
            x, self.weight, self.bias, conv.padding, conv.stride, conv.dilation, conv.groups, name, scalars, ""
        )


@dataclass(frozen=True)
class FoldedNorm:
    """A batch norm that no convolution takes in, as what it multiplies by and adds."""

    scale: Tensor
    """[C, 1, 1], or [C] for what is no feature map"""
    shift: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, x, self.scale)


Folded = dict[str, FoldedConv | FoldedNorm]
"""By the node of the convolution, or of a batch norm that stands alone."""


@dataclass(frozen=True)
class Step:
    """A node of the traced network, or a convolution with the batch norm and the activation that follow it."""

    node: fx.Node
    """the convolution, where there is one"""
    result: fx.Node
    """whose value it makes: the last of those nodes"""
    conv: str | None
    norm: str | None
    activation: str
    groups: frozenset[int]
    """the coupled groups whose channels its module has"""
    done_with: tuple[fx.Node, ...]
    """values that no later step reads"""

    @property
    def folds(self) -> str | None:
        """The node that it is folded under; None for what is neither a convolution nor a batch norm alone."""
        # Not the module: called twice, it may have another activation behind it each time.
        return self.node.name if self.conv or self.norm else None

    def run(self, small: nn.Module, values: Values, folded: Folded) -> None:
        """Add its result to `values` and drop those that nothing else reads."""
        if self.folds is not None:
            result = folded[self.folds](values[self.node.all_input_nodes[0]])
        else:
            result = _call(self.node, self.activation, small, values)
        self._put(result, values)

    def fold(self, small: nn.Module, batches: Sequence[Values]) -> FoldedConv | FoldedNorm:
        """Run it on each batch in training mode; return it with the batches' mean statistics folded in."""
        if self.conv is None:
            return self._fold_norm(small, batches)
        conv = small.get_submodule(self.conv)
        assert isinstance(conv, nn.Conv2d)
        source = self.node.all_input_nodes[0]
        like = batches[0][source]
        if self.norm is None:
            plain = _packed(conv, conv.weight, conv.bias, self.activation, like)
            for values in batches:
                self._put(plain(values[source]), values)
            return plain
        norm = small.get_submodule(self.norm)
        assert isinstance(norm, BATCH_NORMS)
        bare = _packed(conv, conv.weight, conv.bias, "none", like)
        means, variances = _statistics(norm, len(batches), like.device)
        for values, mean, variance in zip(batches, means, variances, strict=True):
            y = bare(values[source])
            # With momentum 1 the running statistics are this batch's.
            y = functional.batch_norm(y, mean, variance, norm.weight, norm.bias, True, 1.0, norm.eps)
            self._put(_activated_(y, self.activation), values)
        scale, bias = scale_and_shift(norm, means.mean(0), variances.mean(0))
        if conv.bias is not None:
            bias = bias + conv.bias * scale
        return _packed(conv, conv.weight * scale[:, None, None, None], bias, self.activation, like)

    def _fold_norm(self, small: nn.Module, batches: Sequence[Values]) -> FoldedNorm:
        assert self.norm is not None
        norm = small.get_submodule(self.norm)
        assert isinstance(norm, BATCH_NORMS)
        source = self.node.all_input_nodes[0]
        means, variances = _statistics(norm, len(batches), batches[0][source].device)
        for values, mean, variance in zip(batches, means, variances, strict=True):
            y = functional.batch_norm(values[source], mean, variance, norm.weight, norm.bias, True, 1.0, norm.eps)
            self._put(y, values)
        return _norm(norm, means.mean(0), variances.mean(0), y.dim())

    def freeze(self, network: nn.Module, values: Values) -> FoldedConv | FoldedNorm:
        """The convolution with its batch norm's own statistics folded in, for inputs of the size in `values`."""
        if self.conv is None:
            assert self.norm is not None
            norm = network.get_submodule(self.norm)
            assert isinstance(norm, BATCH_NORMS)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            return _norm(norm, norm.running_mean, norm.running_var, values[self.node.all_input_nodes[0]].dim())
        conv = network.get_submodule(self.conv)
        assert isinstance(conv, nn.Conv2d)
        weight, bias = conv.weight, conv.bias
        if self.norm is not None:
            norm = network.get_submodule(self.norm)
            assert isinstance(norm, BATCH_NORMS)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            weight, bias = fuse_conv_bn_weights(
                weight, bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
            )
        return _packed(conv, weight, bias, self.activation, values[self.node.all_input_nodes[0]])

    def _put(self, result: Any, values: Values) -> None:
        values[self.result] = result
        for node in self.done_with:
            del values[node]


def fused_steps(model: nn.Module, graph: NetworkGraph) -> list[Step]:
    """The steps from the image to the logits; `graph` is `trace(model, ...)`, which says what may be fused."""
    groups_of: dict[str, set[int]] = {}
    for index, group in enumerate(graph.groups):
        for member in group.members:
            groups_of.setdefault(member.module, set()).add(index)
    chains: list[tuple[fx.Node, fx.Node, str | None, str | None, str]] = []
    fused: set[fx.Node] = set()
    nodes = traced_on_meta(model, graph.input_chw).graph
    nodes.eliminate_dead_code()
    for node in nodes.nodes:
        if node in fused or node.op in ("placeholder", "output"):
            continue
        module = model.get_submodule(str(node.target)) if node.op == "call_module" else None
        result, conv, norm, activation = node, None, None, _activation(node, model)
        if isinstance(module, BATCH_NORMS):
            norm = str(node.target)
        if isinstance(module, nn.Conv2d):
            conv = str(node.target)
            norm = graph.batch_norms.get(conv)
            while norm is not None and (result.op, result.target) != ("call_module", norm):
                # What lies between, as dropout, does nothing.
                (result,) = result.users
                fused.add(result)
            after = next(iter(result.users))
            if len(result.users) == 1 and _activation(after, model) != "none":
                result, activation = after, _activation(after, model)
                fused.add(result)
        chains.append((node, result, conv, norm, activation))
    last_read = {parent: i for i, (node, *_) in enumerate(chains) for parent in node.all_input_nodes}
    return [
        Step(
            *chain, frozenset(groups_of.get(str(chain[0].target), ())), tuple(n for n in last_read if last_read[n] == i)
        )
        for i, chain in enumerate(chains)
    ]


def _statistics(norm: nn.BatchNorm1d | nn.BatchNorm2d, batches: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Room for each batch's means and variances."""
    means, variances = torch.zeros(2, batches, norm.num_features, device=device)
    return means, variances


def _norm(norm: nn.BatchNorm1d | nn.BatchNorm2d, mean: Tensor, variance: Tensor, dims: int) -> FoldedNorm:
    scale, shift = scale_and_shift(norm, mean, variance)
    shape = (-1, *(1,) * (dims - 2))
    return FoldedNorm(scale.view(shape), shift.view(shape))


def _activation(node: fx.Node, model: nn.Module) -> str:
    name = activation_of(node, model)
    return name if name in FUSED_ACTIVATIONS else "none"


def _call(node: fx.Node, activation: str, small: nn.Module, values: Values) -> Any:
    given: Any = fx.node.map_arg((node.args, dict(node.kwargs)), values.__getitem__)
    args, kwargs = given[0], dict(given[1])
    # Never in place, whatever the network says: an earlier value may be kept for the next policy.
    if activation != "none":
        return functional.relu6(args[0]) if activation == "relu6" else functional.relu(args[0])
    if node.op == "call_module":
        module = small.get_submodule(str(node.target))
        return module(*(arg.clone() for arg in args) if getattr(module, "inplace", False) else args, **kwargs)
    if node.target in OUT_OF_PLACE:
        return OUT_OF_PLACE[node.target](*args)
    if kwargs.pop("inplace", False):
        args = (args[0].clone(), *args[1:])
    if node.op == "call_method":
        # A view of channels that lie last can't be flattened.
        method = "reshape" if node.target == "view" else str(node.target).removesuffix("_")
        return getattr(args[0], method)(*args[1:], **kwargs)
    return node.target(*args, **kwargs)  # type: ignore[operator]


def _activated_(x: Tensor, activation: str) -> Tensor:
    if activation == "none":
        return x
    return functional.hardtanh(x, 0.0, 6.0, inplace=True) if activation == "relu6" else torch.relu_(x)


def _packed(conv: nn.Conv2d, weight: Tensor, bias: Tensor | None, activation: str, x: Tensor) -> FoldedConv:
    if _is_packed(conv, x):
        weight = torch.ops.mkldnn._reorder_convolution_weight(
            weight, conv.padding, conv.stride, conv.dilation, conv.groups, x.shape
        )
    return FoldedConv(conv, weight, bias, activation)


def _is_packed(conv: nn.Conv2d, x: Tensor) -> bool:
    return _has_kernel(x.device.type) and not isinstance(conv.padding, str) and not is_miscomputed(conv, x)


def is_miscomputed(conv: nn.Conv2d, x: Tensor) -> bool:
    """Whether the fused kernel of PyTorch 2.14 and oneDNN 3.12 is known to be wrong for this convolution of `x`.

    One output channel at one position: of a kernel of 35 weights a channel and more, and two images, the sums are of
    something else, on AVX-512. Windows that lie in the padding altogether: it crashes at some strides and dilations.
    """
    assert not isinstance(conv.padding, str)
    windows = [dilation * (kernel - 1) + 1 for kernel, dilation in zip(conv.kernel_size, conv.dilation, strict=True)]
    places = [
        (size + 2 * padding - window) // stride + 1
        for size, padding, window, stride in zip(x.shape[2:], conv.padding, windows, conv.stride, strict=True)
    ]
    is_one_number = conv.out_channels == 1 and places == [1, 1]
    return is_one_number or any(p >= window for p, window in zip(conv.padding, windows, strict=True))


@cache
def _has_kernel(device: str) -> bool:
    return (
        device == "cpu" and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    )
