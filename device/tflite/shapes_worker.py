"""The process that asks LiteRT how large each tensor of somebody's `.tflite` is where its inputs have other sizes.

Run by file path (by `confined.py`), so it imports nothing of this package. The first answer is `{"ready": true}`. A job
is a line `{"bytes": N, "wanted": [[INDEX, [SIZE, ..]], ..]}` and then the model's N bytes; it gets
`{"shapes": [[INDEX, [SIZE, ..]], ..]}` or `{"error": ".."}`.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def main() -> None:
    """Answer jobs until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    answer: dict[str, Any] = {"ready": True}
    while True:
        print(json.dumps(answer), file=answers, flush=True)
        job = json.loads(sys.stdin.buffer.readline() or "null")
        if job is None:
            return
        try:
            answer = {"shapes": shapes(sys.stdin.buffer.read(job["bytes"]), job["wanted"])}
        except Exception as error:
            answer = {"error": " ".join(str(error).split())[:300] or type(error).__name__}


def shapes(model: bytes, wanted: list[tuple[int, list[int]]]) -> list[tuple[int, list[int]]]:
    """Each tensor's index and shape where the inputs have these."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    # XNNPACK would hide the tensors in between.
    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_content=model, experimental_op_resolver_type=plain)
    for index, shape in wanted:
        interpreter.resize_tensor_input(index, shape)
    interpreter.allocate_tensors()
    return [(each["index"], list(map(int, each["shape"]))) for each in interpreter.get_tensor_details()]


if __name__ == "__main__":
    main()
