"""A file's tensors as an operator wants them: maps [1, H, W, C], or vectors [1, C]."""

from __future__ import annotations

from collections.abc import Sequence

from amc_latency.errors import ExportError
from amc_latency.lut.tflite.writer import TfliteGraph


def as_map(file: TfliteGraph, x: int) -> int:
    """A vector as the map of one pixel that it is."""
    return file.reshape(x, (1, 1, 1, file.shape(x)[-1])) if len(file.shape(x)) == 2 else x


def as_vector(file: TfliteGraph, x: int) -> int:
    """A map of one pixel as a vector. Raises `ExportError` for one of several."""
    _, *h_w, _ = file.shape(x)
    if not h_w:
        return x
    if h_w != [1, 1]:
        raise ExportError("a flattened feature map stands where logits [N, classes] or the like are expected")
    return file.flatten(x)


def of_one_rank(file: TfliteGraph, sources: Sequence[int]) -> list[int]:
    """What a layer reads: of maps of one pixel and vectors all as the latter."""
    ranks = {len(file.shape(source)) for source in sources}
    return list(sources) if len(ranks) == 1 else [as_vector(file, source) for source in sources]
