"""PyTorch's names for the operations that the walk, the cut and the exporter know."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from amc_latency.graph.layers.layer_shapes import settings

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
ADDS = (operator.add, operator.iadd, torch.add, "add", "add_")
MULS = (operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_")
SUBS = (operator.sub, operator.isub, torch.sub, torch.subtract, "sub", "sub_")
DIVS = (operator.truediv, operator.itruediv, torch.div, torch.divide, torch.true_divide, "div", "div_")
OUT_OF_PLACE = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}
NEGATIVES = (operator.neg, torch.neg, torch.negative, "neg", "neg_")
CLAMPS = (torch.clamp, torch.clip, "clamp", "clip", functional.hardtanh)
CATS = (torch.cat, torch.concat, torch.concatenate)
SPLITS = (torch.chunk, "chunk", torch.split, "split", torch.tensor_split, "tensor_split")
TO_SIZES = ("view", "reshape", torch.reshape)
PERMUTES = (torch.permute, "permute")
RESHAPES = (*TO_SIZES, torch.flatten, "flatten", torch.squeeze, "squeeze", "unsqueeze")
SAME = (functional.dropout, torch.dropout, "contiguous", torch.clone, "clone", torch.detach, "detach", "float")


@dataclass(frozen=True)
class TorchActivation:
    """What an activation of `lut.shapes.activations` is called in PyTorch."""

    module: type[nn.Module]
    functions: Sequence[Any]
    """functions, and names of methods"""
    setting: str | None = None
    """of the module and the function alike"""
    unset: Any = None
    """what that is unless set"""
    wrong: Callable[[Any], str | None] = lambda value: None
    """why a value of the setting is not supported; None if it is"""


ACTIVATIONS = {
    "relu": TorchActivation(nn.ReLU, (functional.relu, torch.relu, functional.relu_, torch.relu_, "relu", "relu_")),
    "relu6": TorchActivation(nn.ReLU6, (functional.relu6,)),
    "hard_swish": TorchActivation(nn.Hardswish, (functional.hardswish,)),
    "hard_sigmoid": TorchActivation(nn.Hardsigmoid, (functional.hardsigmoid,)),
    "sigmoid": TorchActivation(nn.Sigmoid, (functional.sigmoid, torch.sigmoid, "sigmoid", "sigmoid_")),
    "silu": TorchActivation(nn.SiLU, (functional.silu,)),
    "tanh": TorchActivation(nn.Tanh, (functional.tanh, torch.tanh, "tanh", "tanh_")),
    "leaky_relu": TorchActivation(nn.LeakyReLU, (functional.leaky_relu,), "negative_slope", 0.01),
    "prelu": TorchActivation(nn.PReLU, ()),
    "elu": TorchActivation(
        nn.ELU,
        (functional.elu,),
        "alpha",
        1.0,
        lambda alpha: None if alpha == 1 else f"ELU with alpha {alpha} is not supported; only with 1",
    ),
    "gelu": TorchActivation(
        nn.GELU,
        (functional.gelu,),
        "approximate",
        "none",
        lambda how: None if how == "none" else "GELU's tanh approximation is not supported",
    ),
}
ACTIVATION_MODULES = {each.module: name for name, each in ACTIVATIONS.items()}
ACTIVATION_FUNCTIONS = {function: name for name, each in ACTIVATIONS.items() for function in each.functions}


def with_scalar(node: fx.Node) -> tuple[str, float] | None:
    """What arithmetic of a tensor and a plain number comes to: `add_scalar` or `mul_scalar`, and the number.

    None for everything else.
    """
    if node.op not in ("call_function", "call_method"):
        return None
    if node.target in NEGATIVES:
        return "mul_scalar", -1.0
    operands = operands_of(node)
    scalars = [float(each) for each in operands if isinstance(each, (int, float))]
    if len(operands) != 2 or len(scalars) != 1 or node.kwargs.get("rounding_mode") is not None:
        return None
    scalar, is_first = scalars[0], isinstance(operands[0], (int, float))
    # It multiplies the second one.
    alpha = float(node.kwargs.get("alpha", 1))  # type: ignore[arg-type]
    if node.target in ADDS and not (is_first and alpha != 1):
        return "add_scalar", alpha * scalar
    if node.target in MULS:
        return "mul_scalar", scalar
    if node.target in SUBS and not is_first:
        return "add_scalar", -alpha * scalar
    if node.target in DIVS and not is_first and scalar:
        return "mul_scalar", 1 / scalar
    return None


def operands_of(node: fx.Node) -> list[Any]:
    """What a sum, a product and the like is of, in order."""
    return [*node.args, *(node.kwargs[key] for key in ("input", "other") if key in node.kwargs)]


def clamped(node: fx.Node) -> str | None:
    """The activation, relu or relu6, that a `clamp` is; None for other bounds and other operations."""
    if node.op not in ("call_function", "call_method") or node.target not in CLAMPS:
        return None
    names = ("min_val", "max_val") if node.target is functional.hardtanh else ("min", "max")
    given = settings(node, names)
    defaults = (-1, 1) if node.target is functional.hardtanh else (None, None)
    low, high = (given.get(name, default) for name, default in zip(names, defaults, strict=True))
    if low != 0 or high not in (None, 6):
        return None
    return "relu" if high is None else "relu6"


def activation_of(node: fx.Node, root: nn.Module) -> str | None:
    """The activation that an operation of the network `root` is; None if it is another operation."""
    if node.op == "call_module":
        return ACTIVATION_MODULES.get(type(root.get_submodule(str(node.target))))
    return ACTIVATION_FUNCTIONS.get(node.target) or clamped(node) if node.op.startswith("call_") else None


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


def sliced_channels(node: fx.Node, channels: int) -> range | None:
    """Which of a tensor's channels `x[:, 2:5]` and the like take; None for what takes something else too."""
    index: Any = node.args[1] if node.target is operator.getitem else None
    if not isinstance(index, tuple) or len(index) < 2:
        return None
    taken, *rest = (each for i, each in enumerate(index) if i != 0)
    everything = (slice(None), Ellipsis)
    if index[0] != slice(None) or any(each not in everything for each in rest) or not isinstance(taken, slice):
        return None
    if any(isinstance(end, fx.Node) for end in (taken.start, taken.stop, taken.step)):
        return None
    found = range(*taken.indices(channels))
    return found if found.step == 1 and len(found) else None


def is_split(node: fx.Node) -> bool:
    """Whether it is an operation that splits a tensor."""
    return node.op != "call_module" and node.target in SPLITS


def is_spatial_mean(node: fx.Node) -> bool:
    """Whether a mean goes over height and width."""
    dims = settings(node, ("dim",)).get("dim")
    return isinstance(dims, (list, tuple)) and sorted(int(str(dim)) % 4 for dim in dims) == [2, 3]
