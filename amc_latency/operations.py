"""PyTorch's names for the operations that the walk, the cut and the exporter know."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from amc_latency.layer_shapes import settings

ADDS = (operator.add, operator.iadd, torch.add, "add", "add_")
MULS = (operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_")
CATS = (torch.cat, torch.concat, torch.concatenate)
SPLITS = (torch.chunk, "chunk", torch.split, "split", torch.tensor_split, "tensor_split")
TO_SIZES = ("view", "reshape", torch.reshape)
RESHAPES = (*TO_SIZES, torch.flatten, "flatten", torch.squeeze, "squeeze", "unsqueeze")
SAME = (functional.dropout, torch.dropout, "contiguous", "clone", "detach", "float")
ACTIVATION_MODULES: dict[type[nn.Module], str] = {
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.Hardswish: "hard_swish",
    nn.Hardsigmoid: "hard_sigmoid",
    nn.Sigmoid: "sigmoid",
    nn.SiLU: "silu",
    nn.Tanh: "tanh",
    nn.LeakyReLU: "leaky_relu",
    nn.ELU: "elu",
    nn.GELU: "gelu",
}
ACTIVATION_FUNCTIONS: dict[Any, str] = {
    **dict.fromkeys((functional.relu, torch.relu, functional.relu_, torch.relu_, "relu", "relu_"), "relu"),
    functional.relu6: "relu6",
    functional.hardswish: "hard_swish",
    functional.hardsigmoid: "hard_sigmoid",
    **dict.fromkeys((functional.sigmoid, torch.sigmoid, "sigmoid", "sigmoid_"), "sigmoid"),
    functional.silu: "silu",
    **dict.fromkeys((functional.tanh, torch.tanh, "tanh", "tanh_"), "tanh"),
    functional.leaky_relu: "leaky_relu",
    functional.elu: "elu",
    functional.gelu: "gelu",
}


def parts_of(node: fx.Node) -> list[fx.Node] | None:
    """What a concatenation joins, in order; None if it isn't told one by one."""
    given = node.args[0] if node.args else node.kwargs.get("tensors")
    return [part for part in given if isinstance(part, fx.Node)] if isinstance(given, (list, tuple)) else None


def names_channels(node: fx.Node) -> bool:
    """Whether a `view` or `reshape` is told how many channels it makes, a number that a cut would change."""
    if node.op == "call_module" or node.target not in TO_SIZES:
        return False
    given: Any = node.args[1:] or (node.kwargs.get("shape"),)
    _, *sizes = given[0] if isinstance(given[0], (list, tuple)) else given
    return bool(sizes) and sizes[0] != -1 and any(size != 1 for size in sizes)


def is_split(node: fx.Node) -> bool:
    """Whether it is an operation that splits a tensor."""
    return node.op != "call_module" and node.target in SPLITS


def is_spatial_mean(node: fx.Node) -> bool:
    """Whether a mean goes over height and width."""
    dims = settings(node, ("dim",)).get("dim")
    return isinstance(dims, (list, tuple)) and sorted(int(str(dim)) % 4 for dim in dims) == [2, 3]
