"""Boundaries between layers of different precisions: from float32, and to it."""

from __future__ import annotations

from amc_latency.lut.shapes.kind import Kind, Log, Writing


def _write_quantize(to: Writing) -> int:
    return to.int8.quantize(to.x)


def _write_dequantize(to: Writing) -> int:
    return to.int8.dequantize(to.x)


KINDS = (
    Kind("quantize", _write_quantize, Log({"quantize": ("QUANTIZE", "Convert")}), is_boundary=True, reads_float=True),
    Kind("dequantize", _write_dequantize, Log({"dequantize": ("DEQUANTIZE", "Convert")}), is_boundary=True),
)
