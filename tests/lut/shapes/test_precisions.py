"""Precisions of layers: their texts, what they weigh, and which layers have none."""

from __future__ import annotations

from dataclasses import replace

import pytest
from amc_latency.lut.prediction.calibration import network_family, outputs_mb, weights_mb
from amc_latency.lut.shapes.family import family, related
from amc_latency.lut.shapes.precisions import boundary, can_be, in_precision, precisions_of
from amc_latency.lut.shapes.shape import LayerShape, ShapeError, parse_shape

CONV = LayerShape("conv", 32, 64, 14, 14, 3, 2, 1, "relu6")
INT8 = replace(CONV, precision="int8")
QUANTIZE = boundary("float32", "int8", 32, 14, 14)
DEQUANTIZE = boundary("int8", "float32", 64, 7, 7)


def test_the_precision_is_the_last_word() -> None:
    assert CONV.text == "conv 32x14x14>64 k3 s2 p1 relu6 float32"
    assert INT8.text == "conv 32x14x14>64 k3 s2 p1 relu6 int8"
    assert QUANTIZE.text == "quantize 32x14x14>32 k1 s1 p0 none int8"
    for shape in (CONV, INT8, QUANTIZE, DEQUANTIZE):
        assert parse_shape(shape.text) == shape


def test_weights_of_fewer_bits_take_fewer_bytes_and_biases_do_not() -> None:
    weights = 3 * 3 * 32 * 64
    assert CONV.params == INT8.params == weights + 64
    assert CONV.params_bytes == 4 * (weights + 64)
    assert INT8.params_bytes == weights + 4 * 64
    assert weights_mb([CONV, INT8]) == (CONV.params_bytes + INT8.params_bytes) / 1e6


def test_tensors_of_fewer_bits_take_fewer_bytes() -> None:
    assert CONV.output_bytes == 4 * 64 * 7 * 7
    assert INT8.output_bytes == 64 * 7 * 7
    assert (QUANTIZE.output_bytes, DEQUANTIZE.output_bytes) == (32 * 14 * 14, 4 * 64 * 7 * 7)
    assert outputs_mb([CONV, INT8]) == 5 * 64 * 7 * 7 / 1e6


def test_a_family_has_one_precision_and_a_calibration_holds_for_all() -> None:
    assert family(CONV) != family(INT8)
    assert related(family(CONV)) != related(family(INT8))
    pooled = LayerShape("global_pool", 64, 64, 7, 7)
    plain, mixed = (CONV, pooled), (QUANTIZE, INT8, DEQUANTIZE, pooled)
    assert network_family(plain) == network_family(mixed)
    assert network_family(plain) == network_family((INT8, replace(pooled, precision="int8"), DEQUANTIZE))
    assert network_family(plain) != network_family((replace(CONV, c_in=16), pooled))


def test_what_has_no_int8_is_refused_by_name() -> None:
    for activation in ("prelu", "relu6", "elu", "leaky_relu"):
        shape = LayerShape("activation", 8, 8, 4, 4, activation=activation)
        assert not can_be(shape, "int8")
        assert precisions_of(shape, ("int8", "float32")) == ("float32",)
        with pytest.raises(ShapeError, match=f"there is no {activation} in int8: activation .* {activation} int8"):
            in_precision(shape, "int8")
    assert can_be(LayerShape("activation", 8, 8, 4, 4, activation="hard_swish"), "int8")
    with pytest.raises(ShapeError, match="there is no noop in int8"):
        LayerShape("noop", 1, 1, precision="int8")
    with pytest.raises(ShapeError, match="a quantize stands between float32 and another precision"):
        LayerShape("quantize", 8, 8, 4, 4)
    with pytest.raises(ShapeError, match="layer precision 'int9' is none of int8, float32"):
        LayerShape("conv", 8, 8, precision="int9")
