"""Number formats by name: those that files have, and simulated ones, which no runtime runs.

A tensor of b bits has the integers -2^(b-1) .. 2^(b-1) - 1 and a scale and zero point of its own, so that zero is
exact; weights have a scale for each channel out, no zero point, and leave out the lowest integer: as TFLite does it
(https://ai.google.dev/edge/litert/models/quantization_spec).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from amc_latency.arguments.names import find


@dataclass(frozen=True)
class Format:
    """How many bits a layer's weights and the tensors that it reads and makes have; None for float32."""

    weights: int | None
    tensors: int | None


FLOAT32 = "float32"
SIMULATED = "simulated"
"""begins the names of what no file has: `simulated4`, or `simulated2x8` for weights of 2 bits and tensors of 8"""
_BITS = range(2, 9)

FORMATS: dict[str, Format] = {
    FLOAT32: Format(None, None),
    "int8": Format(8, 8),
    **{f"{SIMULATED}{bits}": Format(bits, bits) for bits in _BITS},
    **{f"{SIMULATED}{weights}x{tensors}": Format(weights, tensors) for weights in _BITS for tensors in _BITS},
}


def formats_of(precisions: Sequence[str]) -> tuple[Format, ...]:
    """The format of each layer. Raises `UserError` for a name that there is not, naming the nearest."""
    return tuple(find(FORMATS, name, "precision") for name in precisions)
