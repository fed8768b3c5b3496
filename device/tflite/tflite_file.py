"""What a `.tflite` says: operators, shapes, constants, and which paddings belong to the window that follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from ai_edge_litert import schema_py_generated as schema

_FUSED = schema.ActivationFunctionType
_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
_TYPES = {code: name for name, code in vars(schema.TensorType).items() if isinstance(code, int)}
_REDUCED = ("FLOAT16", "BFLOAT16", "INT16", "INT8", "UINT8", "INT4", "UINT4", "INT2")
"""Types of which a network's values, or its weights alone, are where they are no float32."""
Sign = Literal["any", "keeps", "non_negative"]
"""What is known of an operator's outputs: nothing, that none is below zero if no input is, or that none is."""


class UnsupportedModelError(ValueError):
    """A file that can't be computed here: which operator, and why."""


class TfliteFile:
    """A file's graph; tensors and operators go by their index in it. `signs` are the operators' by name."""

    def __init__(self, model: Any, signs: Mapping[str, Sign]) -> None:
        self._signs = signs
        graph = model.subgraphs[0]
        self._buffers = model.buffers
        self._tensors = graph.tensors
        self.operators = graph.operators
        self.inputs = [int(index) for index in graph.inputs]
        self.outputs = [int(index) for index in graph.outputs]
        # Files from before schema 3a keep the code in the older, one-byte field.
        codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
        self.names = [_NAMES.get(codes[each.opcodeIndex], "?") for each in self.operators]
        self._producer = {int(out): number for number, each in enumerate(self.operators) for out in each.outputs}
        self.non_negative_inputs: set[int] = set()
        for index, tensor in enumerate(self._tensors):
            if _TYPES.get(tensor.type) in _REDUCED:
                raise self._not_float(index)
        for index in (*self.inputs, *self._producer):
            if self._tensors[index].type != schema.TensorType.FLOAT32:
                raise self._not_float(index)

    def shape(self, index: int) -> tuple[int, ...]:
        """A tensor's shape as the file has it: [N, H, W, C], or whatever it says."""
        shape = self._tensors[index].shape
        return () if shape is None else tuple(int(size) for size in shape)

    def constant(self, index: int) -> np.ndarray | None:
        """The values of a tensor that the file holds, None for one that is computed."""
        tensor = self._tensors[index]
        data = self._buffers[tensor.buffer].data
        if index in self._producer or index in self.inputs or data is None:
            return None
        types = {
            schema.TensorType.FLOAT32: np.float32,
            schema.TensorType.INT32: np.int32,
            schema.TensorType.INT64: np.int64,
        }
        if tensor.type not in types:
            raise self._not_float(index)
        values = np.frombuffer(np.asarray(data, np.uint8).tobytes(), types[tensor.type])
        return values.reshape(self.shape(index))

    def needed_constant(self, operator: Any, position: int) -> np.ndarray:
        """An operator's input, which must be a constant."""
        values = self.constant(int(operator.inputs[position]))
        if values is None:
            raise UnsupportedModelError(f"its input {position} is no constant")
        if not values.size:
            raise UnsupportedModelError(f"its input {position} has no values")
        return values

    def optional_constant(self, operator: Any, position: int) -> np.ndarray | None:
        """The same for an input that may be missing, such as a bias."""
        if len(operator.inputs) <= position or operator.inputs[position] < 0:
            return None
        return self.needed_constant(operator, position)

    def fill(self, pad: Any) -> float:
        """What a PAD or PADV2 fills with."""
        values = self.optional_constant(pad, 2)
        return 0.0 if values is None else float(values.reshape(-1)[0])

    def unpadded(self, index: int, folds: Callable[[float, int], bool]) -> tuple[int, tuple[int, int]]:
        """What a window without padding really reads: its input and no padding, or a PAD's input and its symmetric
        padding (height, width) if `folds(fill, input)`.
        """
        number = self._producer.get(index)
        if number is None or self.names[number] not in ("PAD", "PADV2"):
            return index, (0, 0)
        pad = self.operators[number]
        sides = self.needed_constant(pad, 1)
        source = int(pad.inputs[0])
        around = sides.shape == (4, 2) and not sides[[0, 3]].any() and (sides[:, 0] == sides[:, 1]).all()
        if not around or not folds(self.fill(pad), source):
            return index, (0, 0)
        return source, (int(sides[1, 0]), int(sides[2, 0]))

    def maker(self, index: int) -> tuple[str, Any]:
        """The name of the operator that makes a tensor, and the operator; "" and None for inputs and constants."""
        number = self._producer.get(index)
        return ("", None) if number is None else (self.names[number], self.operators[number])

    def is_non_negative(self, index: int) -> bool:
        """Whether a tensor can't be below zero; inputs that this hangs on are taken to be so, and kept in mind."""
        # Each tensor once, and not by recursion: sums of sums are as many paths as 2 to their number.
        seen: set[int] = set()
        taken: set[int] = set()
        todo = [index]
        while todo:
            index = todo.pop()
            if index in seen:
                continue
            seen.add(index)
            if index in self.inputs:
                taken.add(index)
            elif index not in self._producer:
                values = self.constant(index)
                if values is None or not (values >= 0).all():
                    return False
            elif (kept := self._kept_by(self._producer[index])) is None:
                return False
            else:
                todo += kept
        self.non_negative_inputs |= taken
        return True

    def _kept_by(self, number: int) -> list[int] | None:
        """The tensors that an operator's output is non-negative with, none where it always is; None if it never is."""
        name, operator = self.names[number], self.operators[number]
        fused = getattr(operator.builtinOptions, "fusedActivationFunction", _FUSED.NONE)
        sign = self._signs.get(name, "any")
        if fused in (_FUSED.RELU, _FUSED.RELU6) or sign == "non_negative":
            return []
        return [int(each) for each in operator.inputs] if sign == "keeps" else None

    def _not_float(self, index: int) -> UnsupportedModelError:
        name, kind = self._tensors[index].name, _TYPES.get(self._tensors[index].type, "of no known type")
        title = name.decode(errors="replace") if isinstance(name, bytes) else name
        what = f"tensor {index} ({title}) is {kind.lower()}"
        if kind in _REDUCED:
            return UnsupportedModelError(
                f"the file is quantised: {what}, and only float32 is computed here; time it on the host or on a phone, "
                "or export it in float32"
            )
        return UnsupportedModelError(f"{what}; only float32 files are computed")
