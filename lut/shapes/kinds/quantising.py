"""Boundaries between layers of different precisions: from float32, and to it."""

from __future__ import annotations

from amc_latency.lut.shapes.kind import Kind, Log, Writing


def _unwritten(to: Writing) -> int:
    raise NotImplementedError(f"no way yet to write {to.shape}")


KINDS = (
    Kind("quantize", _unwritten, Log({"quantize": ("QUANTIZE",)})),
    Kind("dequantize", _unwritten, Log({"dequantize": ("DEQUANTIZE",)})),
)
