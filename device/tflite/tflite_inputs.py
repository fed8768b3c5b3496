"""A `.tflite`'s inputs, and sizes for those that it leaves open.

A file may leave sizes of an input open: its signature has -1 there, and its shape a placeholder, mostly 1. Whoever
loads such a file runs it at the placeholder, so [1, 1, 1, 3] is timed as one pixel.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from amc_latency.android_bench.safe.records import RecordError, from_values
from amc_latency.android_bench.safe.text import shown_line
from amc_latency.device.rounds.measure import BadModelError
from amc_latency.device.workers.process import WorkerDied, WorkerProcess, confined, memory_for_workers

OPTION = "`input_shapes`"
"""The argument, as messages name it."""
MOST_VALUES = 1 << 28
"""of one input: a gigabyte of floats"""
_MOST_INPUTS = 1000
"""Each is told apart and shown, and all of them may be one tensor: a small file could say a million."""
_MOST_SIZES = 32
"""Of one shape: no runtime has tensors of more than a dozen."""
_MOST_NAME = 10_000
_WORKER = Path(__file__).resolve().with_name("shapes_worker.py")
_SHAPES_S = 60.0


class _Shapes(TypedDict, total=False):
    """What the worker answers: see `amc_latency.device.tflite.shapes_worker`."""

    error: str
    shapes: list[tuple[int, tuple[int, ...]]]


@dataclass(frozen=True)
class TfliteInput:
    """One input of a file."""

    index: int
    """of its tensor"""
    names: tuple[str, ...]
    """what it may be called: the tensor's name, and the signature's"""
    shape: tuple[int, ...]
    open: tuple[bool, ...]
    """which sizes the file leaves open"""

    @property
    def name(self) -> str:
        """The first of its names as it is shown: on one line."""
        return shown_line(self.names[0])

    @property
    def title(self) -> str:
        """Name and shape, `?` for what is open."""
        sizes = ("?" if free else str(size) for size, free in zip(self.shape, self.open, strict=True))
        return f"{self.name} ({'x'.join(sizes) or 'a single value'})"

    @property
    def has_placeholder(self) -> bool:
        """Whether an open size is none that anybody would mean: a batch of one is what everybody means."""
        of_batch = len(self.shape) > 1 and self.shape[0] == 1
        return any(self.open[1:] if of_batch else self.open)


def tflite_inputs(model: bytes) -> list[TfliteInput]:
    """The inputs of a file, in order. Raises `BadModelError` for one that is damaged, or has more than any network."""
    try:
        root = schema.Model.GetRootAs(model, 0)
        graph = root.Subgraphs(0)
        named: dict[int, str] = {}
        for number in range(min(1, root.SignatureDefsLength())):
            signature = root.SignatureDefs(number)
            _check_count(signature.InputsLength(), _MOST_INPUTS, "named inputs")
            pairs = [signature.Inputs(i) for i in range(signature.InputsLength())]
            named = {pair.TensorIndex(): _text(pair.Name()) for pair in pairs}
        _check_count(graph.InputsLength(), _MOST_INPUTS, "inputs")
        return [_input(graph, int(graph.Inputs(i)), named) for i in range(graph.InputsLength())]
    except BadModelError:
        raise
    except (struct.error, IndexError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise BadModelError("the file is damaged: its inputs can't be read; export it again") from error


def sized(model: bytes, given: Sequence[str]) -> bytes:
    """The file with `given`, "1x224x224x3" or "NAME=1x224x224x3", as the sizes that it leaves open.

    Shapes without a name are those of the open inputs, in order. The shapes of all tensors are written, so that every
    runtime takes the file as one of these sizes; nothing else in it changes.
    Raises `BadModelError` for a shape that doesn't fit, and where sizes are open that none was given for.
    """
    inputs = tflite_inputs(model)
    wanted = _wanted(inputs, given)
    for each in inputs:
        if each.has_placeholder and each.index not in wanted:
            listed = ", ".join(other.title for other in inputs if other.has_placeholder)
            name = f"{each.name}=" if len(inputs) > 1 else ""
            raise BadModelError(
                f"the file leaves sizes of its input open: {listed}; say at which to run it, such as "
                f"{OPTION} {name}{_example(each)}"
            )
    return _resized(model, wanted) if wanted else model


def _wanted(inputs: Sequence[TfliteInput], given: Sequence[str]) -> dict[int, tuple[int, ...]]:
    """The shape of each input that one was given for, by the index of its tensor."""
    titles = ", ".join(each.title for each in inputs)
    unnamed = [each for each in inputs if any(each.open)] or list(inputs)
    wanted: dict[int, tuple[int, ...]] = {}
    for text in given:
        name, separator, sizes = text.rpartition("=")
        if not re.fullmatch(r"[1-9][0-9]{0,6}(?:[xX][1-9][0-9]{0,6})*", sizes, re.ASCII):
            raise BadModelError(f"{OPTION} {text} is no shape: write it like 1x224x224x3, or NAME=1x224x224x3")
        left = [each for each in unnamed if each.index not in wanted]
        found = [each for each in inputs if name in each.names] if separator else left[:1]
        if not found:
            raise BadModelError(
                f"{OPTION} {text}: the file has no {'such' if separator else 'further'} input: {titles}"
            )
        (each,) = found
        if each.index in wanted:
            raise BadModelError(f"{OPTION} {text}: {each.name} was given a shape before")
        shape = tuple(map(int, re.split("[xX]", sizes)))
        fits = len(shape) == len(each.shape) and all(
            free or size == own for size, own, free in zip(shape, each.shape, each.open, strict=True)
        )
        if not fits:
            raise BadModelError(f"{OPTION} {text} does not fit the file's input {each.title}: only ? can be chosen")
        if math.prod(shape) > MOST_VALUES:
            raise BadModelError(f"{OPTION} {text} are {math.prod(shape):,} values, more than {MOST_VALUES:,}")
        wanted[each.index] = shape
    return wanted


def _resized(model: bytes, wanted: dict[int, tuple[int, ...]]) -> bytes:
    shapes = _shapes_at(model, wanted)
    changed = bytearray(model)
    graph = schema.Model.GetRootAs(changed, 0).Subgraphs(0)
    for index in range(graph.TensorsLength()):
        tensor, shape = graph.Tensors(index), shapes.get(index)
        # What the data decide has no size before it runs.
        if shape is None or tensor.ShapeLength() != len(shape) or not shape:
            continue
        tensor.ShapeAsNumpy()[:] = shape
        if tensor.ShapeSignatureLength() == len(shape):
            tensor.ShapeSignatureAsNumpy()[:] = shape
    result = bytes(changed)
    # Some writer might let two tensors share the bytes of their shapes.
    if {each.index: each.shape for each in tflite_inputs(result) if each.index in wanted} != wanted:
        raise BadModelError(f"the file's inputs share one shape: export it with fixed sizes, without {OPTION}")
    return result


def _shapes_at(model: bytes, wanted: dict[int, tuple[int, ...]]) -> dict[int, tuple[int, ...]]:
    """The shape of each tensor where the inputs have these, asked in a process of its own: the file may crash it."""
    command = confined([str(_WORKER)], memory_for_workers())
    try:
        worker = WorkerProcess(command, hint="Is ai-edge-litert installed?")
        try:
            worker.send({"wanted": list(wanted.items())}, model, _SHAPES_S)
            answer = from_values(worker.answer(), _Shapes)
        finally:
            worker.stop()
        if (reason := answer.get("error")) is None:
            return dict(answer["shapes"])
    except (WorkerDied, RecordError, KeyError) as error:
        reason = str(error)
    sizes = ", ".join("x".join(map(str, shape)) for shape in wanted.values())
    raise BadModelError(f"the file can't be run at {sizes}: {shown_line(reason, 300)}")


def _input(graph: Any, index: int, named: dict[int, str]) -> TfliteInput:
    tensor = graph.Tensors(index)
    _check_count(max(tensor.ShapeLength(), tensor.ShapeSignatureLength()), _MOST_SIZES, "sizes of one input")
    shape = _ints(tensor.ShapeAsNumpy())
    signature = _ints(tensor.ShapeSignatureAsNumpy())
    if len(signature) != len(shape):
        signature = shape
    own = _text(tensor.Name())
    names = dict.fromkeys(name for name in (own, own.removesuffix(":0"), named.get(index, "")) if name)
    unset = tuple(min(size, said) < 1 for size, said in zip(shape, signature, strict=True))
    return TfliteInput(index, tuple(names) or ("input",), shape, unset)


def _ints(values: Any) -> tuple[int, ...]:
    """A vector of a file; one that it lacks reads as the number 0."""
    return tuple(map(int, values)) if isinstance(values, np.ndarray) else ()


def _text(name: bytes | None) -> str:
    _check_count(len(name or b""), _MOST_NAME, "bytes of an input's name")
    return (name or b"").decode(errors="replace")


def _check_count(found: int, most: int, what: str) -> None:
    if found > most:
        raise BadModelError(f"the file has {found:,} {what}, and {most:,} are the most that is read")


def _example(each: TfliteInput) -> str:
    likely = [1, 224, 224, 3]
    sizes = zip(each.shape, each.open, strict=True)
    usual = likely if len(each.shape) == 4 else [1] + [128] * len(each.shape)
    return "x".join(str(usual[place] if free else size) for place, (size, free) in enumerate(sizes))
