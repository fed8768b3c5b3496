"""A float32 `.tflite` as a PyTorch module: the same numbers, computed as PyTorch's own layers would compute them.

A feature map [N, H, W, C] of the file is an NCHW tensor here, in channels_last memory when its inputs are; all other
tensors keep their layout. The first dimension is the batch, of any size. A PAD before a window without padding becomes
that window's own padding: PyTorch's networks pay for no copy, so neither may these.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import torch
from amc_latency.device.gpu.tflite_ops import ACTIVATIONS, OPERATORS, SIGNS, Function, Source
from amc_latency.device.tflite.tflite_file import TfliteFile, UnsupportedModelError
from amc_latency.device.tflite.unpacked import unpacked
from torch import Tensor, nn


def load_module(model: bytes) -> TfliteModule:
    """The module that computes this `.tflite`. Raises `UnsupportedModelError`."""
    found = unpacked(model)
    try:
        return TfliteModule(TfliteFile(found, SIGNS))
    except UnsupportedModelError:
        raise
    except (struct.error, IndexError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise UnsupportedModelError(f"the file is damaged ({type(error).__name__}): export it again") from error


class TfliteModule(nn.Module):
    """Takes and returns the file's inputs and outputs, in order; `forward` returns a tuple."""

    def __init__(self, file: TfliteFile) -> None:
        super().__init__()
        self.input_shapes = [file.shape(index) for index in file.inputs]
        """As in the file: [N, H, W, C], or whatever it says."""
        self._inputs, self._outputs = file.inputs, file.outputs
        steps = _needed([_step(file, index) for index in range(len(file.operators))], file.outputs)
        self._steps = nn.ModuleList(steps)
        # Which inputs a folded max pool takes to be non-negative: filled by `_step`.
        self._non_negative = frozenset(file.non_negative_inputs)
        last_use = {source: number for number, step in enumerate(steps) for source in step.tensors}
        self._done_after = [
            [tensor for tensor, last in last_use.items() if last == number and tensor not in file.outputs]
            for number in range(len(steps))
        ]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        values = dict(zip(self._inputs, inputs, strict=True))
        for step, done in zip(self._steps, self._done_after, strict=True):
            values[step.target] = step(values)  # type: ignore[index]
            # A batch's feature maps are large, and the next layer's need the room.
            for index in done:
                del values[index]
        return tuple(values[index] for index in self._outputs)

    def random_inputs(self, batch: int, dtype: torch.dtype, device: torch.device | str) -> list[Tensor]:
        """`batch` inputs, the same on every call on one device: values in [-1, 1), feature maps in channels_last.

        Values in [0, 1) for an input that goes into a padded max pool: such a layer is written for what a ReLU leaves.
        """
        draw = torch.Generator(device).manual_seed(0)
        tensors = []
        for index, shape in zip(self._inputs, self.input_shapes, strict=True):
            nchw = (batch, shape[3], shape[1], shape[2]) if len(shape) == 4 else (batch, *shape[1:])
            values = torch.rand(nchw, generator=draw, device=device)
            values = (values if index in self._non_negative else 2 * values - 1).to(dtype)
            tensors.append(values.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else values)
        return tensors


class _Step(nn.Module):
    """One operator: `function` of its sources, then the activation fused into it."""

    def __init__(self, function: Function, sources: Sequence[Source], target: int, activation: int) -> None:
        super().__init__()
        self.function = function
        self.activation = ACTIVATIONS[activation]
        self.target = target
        self.tensors = [source for source in sources if isinstance(source, int)]
        self.constants = nn.ParameterList()
        self._arguments: list[tuple[bool, int] | None] = []
        """For each argument: whether it is a constant, and its index there or in the file."""
        for source in sources:
            if isinstance(source, np.ndarray):
                self._arguments.append((True, len(self.constants)))
                # A copy: the file's bytes can't be written to, and torch says so.
                self.constants.append(nn.Parameter(torch.from_numpy(source.copy()), requires_grad=False))
            else:
                self._arguments.append(None if source is None else (False, source))

    def forward(self, values: dict[int, Tensor]) -> Tensor:
        arguments = [
            None if each is None else self.constants[each[1]] if each[0] else values[each[1]]
            for each in self._arguments
        ]
        result = self.function(*arguments)
        return result if self.activation is None else self.activation(result)


def _needed(steps: Sequence[_Step], outputs: Sequence[int]) -> list[_Step]:
    """The steps that the outputs hang on: a PAD that was folded into all of its readers does not."""
    wanted, needed = set(outputs), []
    for step in reversed(steps):
        if step.target in wanted:
            wanted.update(step.tensors)
            needed.append(step)
    return needed[::-1]


def _step(file: TfliteFile, number: int) -> _Step:
    operator, name = file.operators[number], file.names[number]
    try:
        if name not in OPERATORS:
            raise UnsupportedModelError(f"known are {', '.join(OPERATORS)}")
        function, sources = OPERATORS[name].build(file, operator)
        activation = getattr(operator.builtinOptions, "fusedActivationFunction", 0)
        if activation not in ACTIVATIONS:
            raise UnsupportedModelError("its fused activation is none of RELU, RELU6, RELU_N1_TO_1")
    except UnsupportedModelError as error:
        raise UnsupportedModelError(f"operator {number}, {name}, can't be computed: {error}") from None
    return _Step(function, sources, int(operator.outputs[0]), activation)
