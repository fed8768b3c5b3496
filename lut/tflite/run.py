"""Reads and runs a `.tflite` file: operator counts, and outputs through LiteRT."""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amc_latency.lut.tflite.native_log import without_chatter

if TYPE_CHECKING:
    import numpy as np

_IDENTIFIER = b"TFL3"


class TfliteError(ValueError):
    """A file that is no `.tflite`, or one that can't be run as asked."""


def tflite_ops(model: bytes) -> dict[str, int]:
    """How often each operator occurs, by TFLite's name for it: `{"CONV_2D": 14}`. Raises `TfliteError`."""
    from ai_edge_litert import schema_py_generated as schema

    _check_identifier(model[:8], "the model")
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    try:
        root = schema.Model.GetRootAs(model, 0)
        graph = root.Subgraphs(0)
        codes = [root.OperatorCodes(graph.Operators(i).OpcodeIndex()) for i in range(graph.OperatorsLength())]
        # Files from before schema 3a keep the code in the older, one-byte field.
        counts = Counter(names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())] for code in codes)
    except (struct.error, IndexError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise TfliteError("the model is damaged: its operators can't be read; export it again") from error
    return dict(sorted(counts.items()))


def run_tflite(model: bytes | Path, images: np.ndarray, threads: int = 1) -> np.ndarray:
    """The first of `tflite_outputs`, which most models have alone. Raises `TfliteError`."""
    return tflite_outputs(model, images, threads)[0]


def tflite_outputs(model: bytes | Path, images: np.ndarray, threads: int = 1) -> list[np.ndarray]:
    """Each of the model's outputs [N, ...] for images [N, C, H, W], one by one through LiteRT with XNNPACK.

    The model takes float32 [1, H, W, C]; a feature map that it returns comes back as [N, C, H, W]. Raises
    `TfliteError`.
    """
    import numpy as np

    title = str(model) if isinstance(model, Path) else "the model"
    interpreter = _interpreter(model, title, threads)
    (source,), targets = interpreter.get_input_details()[:1], interpreter.get_output_details()
    nhwc = np.ascontiguousarray(images.transpose(0, 2, 3, 1), np.float32)
    if source["dtype"] is not np.float32 or tuple(source["shape"]) != (1, *nhwc.shape[1:]):
        raise TfliteError(
            f"{title} takes {source['shape'].tolist()} {np.dtype(source['dtype'])}; "
            f"the images are [1, {', '.join(map(str, nhwc.shape[1:]))}] float32"
        )
    outputs: list[list[np.ndarray]] = [[] for _ in targets]
    for image in nhwc:
        interpreter.set_tensor(source["index"], image[None])
        interpreter.invoke()
        for found, target in zip(outputs, targets, strict=True):
            found.append(interpreter.get_tensor(target["index"])[0])
    stacked = map(np.stack, outputs)
    return [each.transpose(0, 3, 1, 2) if each.ndim == 4 else each for each in stacked]


def _interpreter(model: bytes | Path, title: str, threads: int) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    try:
        if isinstance(model, Path):
            with model.open("rb") as file:
                _check_identifier(file.read(8), title)
            arguments: dict[str, Any] = {"model_path": str(model)}
        else:
            _check_identifier(model[:8], title)
            arguments = {"model_content": model}
        with without_chatter():
            interpreter = Interpreter(**arguments, num_threads=threads)
            interpreter.allocate_tensors()
    except OSError as error:
        raise TfliteError(f"can't read {title}: {error.strerror}") from error
    except TfliteError:
        raise
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise TfliteError(f"LiteRT can't load {title}: {reason}") from error
    return interpreter


def _check_identifier(start: bytes, title: str) -> None:
    if start[4:8] != _IDENTIFIER:
        raise TfliteError(f"{title} is not a .tflite file: bytes 4 to 7 are not '{_IDENTIFIER.decode()}'")
