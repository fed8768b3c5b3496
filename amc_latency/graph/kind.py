"""All that the walk, the cut and the exporter know of a kind of module or function, in one record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx, nn

if TYPE_CHECKING:
    from amc_latency.graph.layers.layer_list import LayerList, Value
    from amc_latency.graph.layers.layer_shapes import Size
    from amc_latency.lut.shapes.shape import LayerShape
    from amc_latency.lut.tflite.writer import TfliteGraph


@dataclass(frozen=True)
class Call:
    """A module or a function that is called in a traced network."""

    found: LayerList
    node: fx.Node
    name: str
    """the module's, or the node's"""
    module: nn.Module | None
    inputs: Sequence[Value]
    size: Size
    """of what it makes"""

    @property
    def x(self) -> Value:
        """Its first input."""
        return self.inputs[0]


@dataclass(frozen=True)
class Channels:
    """How the channels of a module lie in its attributes and tensors."""

    outputs: str
    """the attribute that counts them"""
    inputs: str = ""
    """the same of its inputs; empty where they are its outputs"""
    weight_dims: tuple[int, int] = (0, 1)
    """of its weight's dimensions those of outputs and inputs"""
    resize: Callable[[nn.Module, str, int], None] = setattr
    """set a count after a cut: by the module, the attribute's name and the new count"""
    bound: str = ""
    """which bound of `prune.keep.KINDS` holds for it; empty where it multiplies inputs by no weights of their own"""
    rows: Callable[[nn.Module, Tensor, int, torch.Generator], Tensor] | None = None
    """what its weights multiply, [rows, features] in their order, outputs first: at most so many positions an image"""
    refits: Callable[[nn.Module], bool] = lambda module: True
    """whether `rows` holds for this module"""


def _first(file: TfliteGraph, sources: list[int], shape: LayerShape) -> list[int]:
    return sources[:1]


def _none(module: nn.Module | None, shape: LayerShape, argument: float) -> list[np.ndarray]:
    return []


@dataclass(frozen=True)
class Made:
    """How a kind of layer, by its name in `amc_latency.lut.shapes.registry`, is written into an exported file."""

    fuses: bool = False
    """whether a ReLU after it becomes a part of it"""
    rectified: str = ""
    """the kind that it becomes then; empty if it stays"""
    weight_axes: tuple[int, ...] | None = None
    """its weight's dimensions, outputs first, in the file's order; None without weights, and it takes in no batch norm
    then"""
    reads: Callable[[fx.Node], Sequence[fx.Node] | None] = lambda node: node.all_input_nodes
    """what it reads, in order"""
    inputs: Callable[[TfliteGraph, list[int], LayerShape], list[int]] = _first
    """the file's tensors that its operator reads, from those of what it reads"""
    constants: Callable[[nn.Module | None, LayerShape, float], list[np.ndarray]] = _none
    """other constants than folded weights: by its module, its shape and its argument"""


@dataclass(frozen=True)
class Plain:
    """A function of bare parameters, and a module that computes the same with these as its own."""

    function: Any
    arguments: Sequence[str]
    """their names, in order"""
    build: Callable[[nn.Module, Mapping[str, Any], Mapping[str, Any]], nn.Module]
    """the module, on the meta device: by that which owns the tensors, the tensors and the other settings"""
    tensors: Sequence[str] = ("weight", "bias")
    """those of the arguments that are the module's own"""
    suits: Callable[[Mapping[str, Any]], bool] = lambda arguments: True
    """whether the module computes the same for these arguments"""


@dataclass(frozen=True)
class TorchKind:
    """Modules and functions that do the same."""

    name: str
    visit: Callable[[Call], Value | None]
    """adds its layer, if it is one, and returns what it makes; None where it is another operation after all. Raises
    `UserError`."""
    modules: Sequence[type[nn.Module]] = ()
    functions: Sequence[Any] = ()
    """functions, and names of methods"""
    takes_pad: bool = False
    """whether zeros may have been put around its input"""
    channels: Channels | None = None
    """of its modules; None if they have none of their own"""
    plain: Plain | None = None
    """the function that takes its modules' parameters; None if there is none"""
    made: Mapping[str, Made] = field(default_factory=dict)
    """the kinds of layers that are its own"""
