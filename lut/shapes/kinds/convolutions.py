"""Convolutions of any groups, and linear layers: what multiplies by weights and adds a bias."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import TYPE_CHECKING

from amc_latency.lut.shapes.kind import Kind, Log, Work, Writing
from amc_latency.lut.shapes.work import product

if TYPE_CHECKING:
    from amc_latency.device.tflite.tflite_file import Sign
    from amc_latency.lut.shapes.shape import LayerShape

POINTWISE = "pointwise"
"""Role in a log: a 1x1 convolution that is a matrix product."""


def any_sign(shape: LayerShape, argument: float) -> Sign:
    """Weights of both signs make anything."""
    return "any"


def _per_group(shape: LayerShape) -> int:
    return shape.per_group or shape.c_in


def _conv_weights(shape: LayerShape) -> int:
    return shape.taps * _per_group(shape) * shape.c_out


def _conv_constants(shape: LayerShape) -> Sequence[tuple[int, ...]]:
    return (shape.c_out, *shape.kernel_hw, _per_group(shape)), (shape.c_out,)


def _write_conv(to: Writing) -> int:
    window = (to.shape.stride, to.shape.padding_hw, to.shape.activation, to.shape.end, to.shape.dilation)
    return to.graph.conv(to.x, to.constants[0], to.constants[1], *window)


def _write_depthwise(to: Writing) -> int:
    window = (to.shape.stride, to.shape.padding_hw, to.shape.activation, to.shape.end, to.shape.dilation)
    return to.graph.depthwise(to.x, to.constants[0], to.constants[1], *window)


def _conv_work(shape: LayerShape, cache_bytes: float) -> Work:
    patches = shape.taps > 1 or shape.stride > 1
    return product(shape.h_out * shape.w_out, shape.taps * _per_group(shape), shape.c_out, patches)


def _depthwise_work(shape: LayerShape, cache_bytes: float) -> Work:
    taps = shape.taps * shape.h_out * shape.w_out
    # Channels go through the registers by 16, then by 4.
    fours = -(-(shape.c_out % 16) // 4)
    counts: Work = {"taps": taps, "blocks_of_16": taps * (shape.c_out // 16), "blocks_of_4": taps * fours}
    if shape.stride > 1:
        # Steps over whole pixels are what the core cannot foresee, so it waits for what the cache lacks.
        inputs = shape.h * shape.w * shape.c_in
        counts["missed_inputs"] = inputs * max(0.0, 1 - cache_bytes / (4 * inputs))
    return counts


def _conv_roles(shape: LayerShape) -> Set[str]:
    return {"conv", POINTWISE} if (shape.taps, shape.stride) == (1, 1) else {"conv"}


def _check_grouped(shape: LayerShape) -> str | None:
    if not shape.per_group or shape.c_in % shape.per_group:
        return "a grouped convolution, and no other layer, has groups of equal width"
    if shape.c_out % (shape.c_in // shape.per_group):
        return "each group of a grouped convolution makes as many channels"
    return None


def _check_linear(shape: LayerShape) -> str | None:
    return None if (shape.h, shape.w) == (1, 1) else "a linear layer's input is 1x1"


KINDS = (
    Kind(
        "conv",
        _write_conv,
        Log(
            {
                "conv": ("CONV_2D", "Convolution", "Convolution IGEMM"),
                POINTWISE: ("Convolution GEMM", "Fully Connected"),
            },
            _conv_roles,
        ),
        changes_channels=True,
        two_figures=True,
        window=True,
        on_maps=True,
        takes_activation=True,
        sign=any_sign,
        weights=_conv_weights,
        work=_conv_work,
        constants=_conv_constants,
    ),
    Kind(
        "depthwise",
        _write_depthwise,
        Log({"depthwise": (*("DEPTHWISE_CONV_2D", "Convolution", "Convolution DWConv", "Convolution VMulCAddC"),)}),
        window=True,
        on_maps=True,
        takes_activation=True,
        sign=any_sign,
        weights=lambda shape: shape.taps * shape.c_out,
        work=_depthwise_work,
        constants=lambda shape: ((1, *shape.kernel_hw, shape.c_in), (shape.c_in,)),
    ),
    Kind(
        "grouped",
        _write_conv,
        Log({"grouped": ("CONV_2D", "Convolution", "Convolution GEMM", "Convolution IGEMM")}),
        changes_channels=True,
        window=True,
        own_fields=("per_group",),
        on_maps=True,
        takes_activation=True,
        sign=any_sign,
        check=_check_grouped,
        weights=_conv_weights,
        work=_conv_work,
        constants=_conv_constants,
    ),
    Kind(
        "linear",
        lambda to: to.graph.linear(to.x, to.constants[0], to.constants[1], to.shape.activation),
        # A 1x1 convolution on a 1x1 input is a linear layer: TF-slim's classifiers are written that way.
        Log(
            {
                "linear": (
                    *("FULLY_CONNECTED", "CONV_2D", "Fully Connected"),
                    *("Convolution", "Convolution GEMM", "Convolution IGEMM"),
                )
            }
        ),
        changes_channels=True,
        two_figures=True,
        takes_activation=True,
        sign=any_sign,
        check=_check_linear,
        weights=lambda shape: shape.c_in * shape.c_out,
        work=lambda shape, cache_bytes: {"linear_weights": shape.c_in * shape.c_out},
        inputs=lambda shape: [(shape.c_in,)],
        constants=lambda shape: ((shape.c_out, shape.c_in), (shape.c_out,)),
    ),
)
