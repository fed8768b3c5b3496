"""A `.tflite` as objects of the schema, wherever its writer put the constants."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from amc_latency.device.tflite.tflite_file import UnsupportedModelError


def unpacked(model: bytes) -> Any:
    """The file as a `ModelT`, each of whose buffers holds its own data. Raises `UnsupportedModelError`.

    FlatBuffers end at 2 GiB, so that some writers, as ai-edge-quantizer, put large constants behind the FlatBuffer and
    leave their place and size in the buffer: `offset` and `size` in schema.fbs, which mean something above 1.
    """
    if model[4:8] != b"TFL3":
        raise UnsupportedModelError("it is no .tflite file")
    try:
        found = schema.ModelT.InitFromPackedBuf(model, 0)
        for buffer in found.buffers:
            if buffer.offset > 1 and buffer.size > 1:
                if buffer.offset + buffer.size > len(model):
                    raise UnsupportedModelError("the file ends before its constants do: copy or export it again")
                buffer.data = np.frombuffer(model, np.uint8, buffer.size, buffer.offset)
                buffer.offset = buffer.size = 0
    except UnsupportedModelError:
        raise
    except (struct.error, IndexError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise UnsupportedModelError(f"the file is damaged ({type(error).__name__}): export it again") from error
    return found
