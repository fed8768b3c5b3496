"""The process in which somebody's `.tflite` computes its outputs of given inputs.

Run by file path (by `confined.py`), so it imports nothing of this package. The first answer is `{"ready": true}`. The
first job is a line `{"bytes": N, "tensors": [..]}` and the model's N bytes: the names of the tensors that count as its
outputs, or null for those that are; it gets `{"inputs": [..], "outputs": [..]}`, each
`{"shape": [..], "dtype": "..", "scale": .., "zero_point": ..}`. Each further one is `{"bytes": N, "count": n}` and the
values of n inputs of a file that takes one, in its type and order; it gets `{"values": ["..", ..]}`, each output's of
all n in base64. Whatever fails gets `{"error": ".."}`. Each job also has `"cpu_s"`, the CPU time that ends the process.
One thread: on a busy computer several wait for each other.
"""

from __future__ import annotations

import base64
import json
import math
import os
import resource
import sys
from typing import Any

import numpy as np


def main() -> None:
    """Answer jobs until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from ai_edge_litert.interpreter import Interpreter

    interpreter: Any = None
    answer: dict[str, Any] = {"ready": True}
    while True:
        print(json.dumps(answer), file=answers, flush=True)
        job = json.loads(sys.stdin.buffer.readline() or "null")
        if job is None:
            return
        limit_cpu(job["cpu_s"])
        try:
            content = sys.stdin.buffer.read(job["bytes"])
            if interpreter is None:
                named = job["tensors"]
                interpreter = Interpreter(
                    model_content=content, num_threads=1, experimental_preserve_all_tensors=named is not None
                )
                interpreter.allocate_tensors()
                targets = interpreter.get_output_details() if named is None else by_name(interpreter, named)
                sides = interpreter.get_input_details(), targets
                answer = {"inputs": [told(each) for each in sides[0]], "outputs": [told(each) for each in sides[1]]}
            else:
                answer = {"values": computed(interpreter, targets, content, job["count"])}
        except Exception as error:
            answer = {"error": " ".join(str(error).split())[:300] or type(error).__name__}


def limit_cpu(seconds: float) -> None:
    """End this process by SIGXCPU when it has used so much more CPU time, also where its parent is gone."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = math.ceil(used.ru_utime + used.ru_stime + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def told(details: dict[str, Any]) -> dict[str, Any]:
    """What a tensor is."""
    scale, zero_point = details["quantization"]
    dtype = np.dtype(details["dtype"]).name
    shape = list(map(int, details["shape"]))
    return {"shape": shape, "dtype": dtype, "scale": float(scale), "zero_point": int(zero_point)}


def by_name(interpreter: Any, names: list[str]) -> list[dict[str, Any]]:
    """The tensors of these names."""
    all_details = {each["name"]: each for each in interpreter.get_tensor_details()}
    return [all_details[name] for name in names]


def computed(interpreter: Any, targets: list[dict[str, Any]], content: bytes, count: int) -> list[str]:
    """Each of the tensors `targets` of `count` inputs, one by one."""
    (source,) = interpreter.get_input_details()
    images = np.frombuffer(content, source["dtype"]).reshape(count, *source["shape"])
    found: list[list[bytes]] = [[] for _ in targets]
    for image in images:
        interpreter.set_tensor(source["index"], image)
        interpreter.invoke()
        for values, target in zip(found, targets, strict=True):
            values.append(interpreter.get_tensor(target["index"]).tobytes())
    return [base64.b64encode(b"".join(values)).decode() for values in found]


if __name__ == "__main__":
    main()
