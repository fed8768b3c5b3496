"""Work that several kinds of layers do, as TensorFlow Lite's float kernels of 2018 do it on one core."""

from __future__ import annotations

from amc_latency.lut.shapes.kind import Work

INPUT_BLOCK = 248
"""Inputs that a matrix product sums before it stores outputs: Eigen's block for a 16 kB cache and 12x4 registers."""
FAR_STRIDE = 1024
"""From this many outputs on, neighbours in the weights' other direction lie on different 4 kB pages."""


def product(rows: int, inputs: int, outputs: int, patches: bool) -> Work:
    """A matrix product, [rows x inputs] times [inputs x outputs], and what it costs to lay both out for it.

    `patches` if the rows are copied from the image first.
    """
    weights = inputs * outputs
    return {
        "macs": rows * weights,
        "weights": weights,
        "strided_weights": weights * min(outputs / FAR_STRIDE, 1.0),
        "outputs": rows * outputs * -(-inputs // INPUT_BLOCK),
        "patches": rows * inputs if patches else 0,
    }
