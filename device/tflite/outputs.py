"""What a `.tflite` computes, in a process of its own: the file may crash it, and gets neither network nor files."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal, TypedDict

import numpy as np
from amc_latency.android_bench.safe.limits import WORKER_ANSWER_BYTES
from amc_latency.android_bench.safe.records import RecordError, from_values
from amc_latency.android_bench.safe.text import shown_line
from amc_latency.device.rounds.measure import BadModelError
from amc_latency.device.workers.process import WorkerDied, WorkerProcess, confined, memory_for_workers
from msgspec import Meta

_WORKER = Path(__file__).resolve().with_name("outputs_worker.py")
_LOAD_S, _RUN_S = 60.0, 60.0
"""To load a file, and beside that for each input that it computes."""
_SENT_BYTES = 32_000_000
"""Of inputs in one job."""
_MOST_SIZES = 32
_Size = Annotated[int, Meta(ge=1, le=2**31 - 1)]


class Value(TypedDict):
    """An input or output of a file."""

    shape: Annotated[list[_Size], Meta(max_length=_MOST_SIZES)]
    dtype: Literal["float32", "int8", "uint8", "int16", "int32", "int64", "float16", "bool"]
    scale: Annotated[float, Meta(ge=0, le=1e30)]
    """a step of an integer's in real values; 0 where it is no quantised one"""
    zero_point: Annotated[int, Meta(ge=-(2**31), le=2**31)]


class _Answer(TypedDict, total=False):
    """See `amc_latency.device.tflite.outputs_worker`."""

    error: str
    inputs: list[Value]
    outputs: list[Value]
    values: list[str]


class TfliteRunner:
    """A loaded file that takes one input: `runner(values)` is what it computes. Used as a context.

    With `tensors`, the names of some, these are what it returns, in place of the file's outputs.
    Raises `BadModelError` for a file that can't be loaded or run, and for one that takes several inputs.
    """

    def __init__(self, model: bytes, title: str = "the file", tensors: Sequence[str] | None = None) -> None:
        self._title = title
        command = confined([str(_WORKER)], memory_for_workers())
        self._worker = WorkerProcess(command, hint="Is ai-edge-litert installed?")
        try:
            answer = self._asked({"tensors": tensors and list(tensors)}, model, _LOAD_S)
            self.inputs, self.outputs = answer.get("inputs", []), answer.get("outputs", [])
            if len(self.inputs) != 1 or not self.outputs:
                count = f"{len(self.inputs)} inputs and {len(self.outputs)} outputs"
                raise BadModelError(f"{title} has {count}; what takes one image and returns something can be run")
        except BaseException:
            self._worker.stop()
            raise

    def __enter__(self) -> TfliteRunner:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._worker.stop()

    @property
    def input(self) -> Value:
        """What it takes."""
        return self.inputs[0]

    def __call__(self, values: np.ndarray) -> list[np.ndarray]:
        """Each output [N, ..] of inputs [N, ..] that are run one by one, as they leave the file, without its batch."""
        answered = WORKER_ANSWER_BYTES // 2 // sum(map(_bytes, self.outputs))
        most = max(1, min(_SENT_BYTES // _bytes(self.input), answered))
        parts = [self._run(values[first : first + most]) for first in range(0, len(values), most)]
        return [np.concatenate(each) for each in zip(*parts, strict=True)]

    def real(self, values: np.ndarray) -> list[np.ndarray]:
        """The same from real values to real values, float32: what is quantised is so by the file's own scales."""
        found = self(quantised(values, self.input))
        return [dequantised(each, of) for each, of in zip(found, self.outputs, strict=True)]

    def _run(self, values: np.ndarray) -> list[np.ndarray]:
        shape = self.input["shape"]
        wanted = np.ascontiguousarray(values, np.dtype(self.input["dtype"])).reshape(len(values), *shape)
        answer = self._asked({"count": len(wanted)}, wanted.tobytes(), _LOAD_S + _RUN_S * len(wanted))
        found = answer.get("values", ())
        try:
            if len(found) != len(self.outputs):
                raise ValueError
            return [self._array(text, of, len(wanted)) for text, of in zip(found, self.outputs, strict=True)]
        except (ValueError, binascii.Error) as error:
            raise BadModelError(f"{self._title}: the process that ran it answers nonsense") from error

    def _array(self, text: str, of: Value, count: int) -> np.ndarray:
        batch, *rest = of["shape"] or [1]
        values = np.frombuffer(base64.b64decode(text, validate=True), of["dtype"])
        return values.reshape(count, *rest) if batch == 1 else values.reshape(count, batch, *rest)

    def _asked(self, job: dict[str, Any], payload: bytes, timeout_s: float) -> _Answer:
        try:
            self._worker.send({**job, "cpu_s": timeout_s}, payload, timeout_s)
            answer = from_values(self._worker.answer(), _Answer)
        except (WorkerDied, RecordError) as error:
            raise BadModelError(f"{self._title} can't be run: {shown_line(str(error), 300)}") from error
        if (reason := answer.get("error")) is not None:
            raise BadModelError(f"LiteRT can't run {self._title}: {shown_line(reason, 300)}")
        return answer


def quantised(values: np.ndarray, of: Value) -> np.ndarray:
    """Real values as the nearest that an input can be given."""
    if of["scale"] == 0:
        return values.astype(of["dtype"])
    ends = np.iinfo(of["dtype"])
    return np.clip(np.rint(values / of["scale"]) + of["zero_point"], ends.min, ends.max).astype(of["dtype"])


def dequantised(values: np.ndarray, of: Value) -> np.ndarray:
    """An output's values as the real ones that they stand for, float32."""
    if of["scale"] == 0:
        return values.astype(np.float32)
    return np.float32(of["scale"]) * (values.astype(np.float32) - np.float32(of["zero_point"]))


def said(value: Value) -> str:
    """An input or an output in words: its type, sizes and what an integer stands for."""
    sizes = f"{value['dtype']} [{', '.join(map(str, value['shape']))}]"
    return sizes if value["scale"] == 0 else f"{sizes}, each {value['scale']:.6g} x (q {-value['zero_point']:+d})"


def _bytes(of: Value) -> int:
    return math.prod(of["shape"]) * np.dtype(of["dtype"]).itemsize
