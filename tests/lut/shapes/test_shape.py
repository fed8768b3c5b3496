from __future__ import annotations

import pytest
from amc_latency.lut.shapes.shape import NOOP, LayerShape, ShapeError, network_text, parse_network, parse_shape
from hypothesis import given
from hypothesis import strategies as st

from tests.lut.any_shape import layer_shapes

STEM = LayerShape("conv", 3, 32, 224, 224, 3, 2, 1, "relu6")


@given(layer_shapes())
def test_text_names_exactly_one_shape(shape: LayerShape) -> None:
    assert parse_shape(shape.text) == shape
    assert str(shape) == shape.text


@given(st.lists(layer_shapes(), min_size=1, max_size=6))
def test_network_text_round_trip(shapes: list[LayerShape]) -> None:
    assert parse_network(network_text(shapes)) == tuple(shapes)


def test_text_is_the_documented_one() -> None:
    assert STEM.text == "conv 3x224x224>32 k3 s2 p1 relu6 float32"
    # What is rare is named only where it is not as ever: tables from before it are read as they are.
    grouped = LayerShape("grouped", 64, 64, 14, 14, 3, 2, 1, "relu", end=1, dilation=2, per_group=8)
    assert grouped.text == "grouped 64x14x14>64 k3 s2 p1+1 d2 g8 relu float32"
    oblong = LayerShape("conv", 8, 16, 17, 17, 1, kernel_w=7, padding_w=3)
    assert oblong.text == "conv 8x17x17>16 k1x7 s1 p0x3 none float32"
    assert LayerShape("concat", 96, 96, 7, 7, parts=3).text == "concat 96x7x7>96 k1 s1 p0 n3 none float32"


@given(layer_shapes(("conv", "depthwise", "grouped", "avg_pool", "max_pool")))
def test_a_windows_outputs_are_as_many_as_it_has_places(shape: LayerShape) -> None:
    def places(size: int, kernel: int, padding: int) -> int:
        last = size + padding + shape.end - (shape.dilation * (kernel - 1) + 1)
        return len(range(-padding, last + 1, shape.stride))

    width = (shape.kernel_w, shape.padding_w) if shape.kernel_w else (shape.kernel, shape.padding)
    assert shape.h_out == places(shape.h, shape.kernel, shape.padding)
    assert shape.w_out == places(shape.w, *width)


@pytest.mark.parametrize(
    ("shape", "macs", "params"),
    [
        (STEM, 3 * 3 * 3 * 32 * 112 * 112, 3 * 3 * 3 * 32 + 32),
        (LayerShape("conv", 512, 256, 14, 14), 512 * 256 * 14 * 14, 512 * 256 + 256),
        (LayerShape("depthwise", 64, 64, 113, 57, 3, 2, 1), 3 * 3 * 64 * 57 * 29, 3 * 3 * 64 + 64),
        (LayerShape("grouped", 64, 64, 14, 14, 3, 1, 1, per_group=8), 3 * 3 * 8 * 64 * 14 * 14, 3 * 3 * 8 * 64 + 64),
        (LayerShape("conv", 8, 16, 14, 14, 3, 1, 2, dilation=2), 3 * 3 * 8 * 16 * 14 * 14, 3 * 3 * 8 * 16 + 16),
        (LayerShape("conv", 8, 16, 17, 15, 1, kernel_w=7, padding_w=3), 7 * 8 * 16 * 17 * 15, 7 * 8 * 16 + 16),
        (LayerShape("conv", 8, 16, 17, 15, 3, kernel_w=1), 3 * 8 * 16 * 15 * 15, 3 * 8 * 16 + 16),
        (LayerShape("grouped", 12, 24, 9, 9, 3, 1, 1, per_group=4), 3 * 3 * 4 * 24 * 9 * 9, 3 * 3 * 4 * 24 + 24),
        (LayerShape("conv", 8, 16, 14, 14, 3, 2, end=1), 3 * 3 * 8 * 16 * 7 * 7, 3 * 3 * 8 * 16 + 16),
        (LayerShape("scale", 96, 96, 28, 28), 0, 0),
        (LayerShape("activation", 96, 96, 28, 28, activation="silu"), 0, 0),
        (LayerShape("activation", 96, 96, 28, 28, activation="prelu"), 0, 96),
        (LayerShape("linear", 1024, 1000), 1024 * 1000, 1024 * 1000 + 1000),
        (LayerShape("add", 24, 24, 56, 56), 0, 0),
        (LayerShape("max_pool", 64, 64, 112, 112, 3, 2, 1), 0, 0),
        (LayerShape("avg_pool", 64, 64, 8, 8, 2, 2), 0, 0),
        (LayerShape("global_pool", 1024, 1024, 7, 7), 0, 0),
        (NOOP, 0, 0),
    ],
    ids=lambda value: value.kind if isinstance(value, LayerShape) else "",
)
def test_macs_and_params_are_the_textbook_products(shape: LayerShape, macs: int, params: int) -> None:
    assert shape.macs == macs
    assert shape.params == params


def test_output_size() -> None:
    assert (STEM.h_out, STEM.w_out) == (112, 112)
    valid = LayerShape("conv", 8, 8, 7, 10, 3, 2)
    assert (valid.h_out, valid.w_out) == (3, 4)
    pooled = LayerShape("global_pool", 8, 8, 7, 9)
    assert (pooled.h_out, pooled.w_out) == (1, 1)
    larger = LayerShape("nearest", 8, 8, 7, 9, stride=2)
    assert (larger.h_out, larger.w_out) == (14, 18)
    vector = LayerShape("activation", 8, 8, activation="relu")
    assert (vector.h_out, vector.w_out) == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"kind": "convolution"}, "convolution"),
        ({"activation": "hardswish"}, "hardswish"),
        ({"precision": "int9"}, "int9"),
        ({"c_out": 0}, "positive"),
        ({"stride": 0}, "positive"),
        ({"padding": -1}, "positive"),
        ({"padding": 3}, "padding"),
        ({"h": 1, "w": 1, "kernel": 5}, "kernel is larger"),
        ({"kind": "depthwise", "c_out": 16}, "as many channels"),
        ({"kind": "add", "c_out": 16}, "as many channels"),
        ({"kind": "linear", "kernel": 1, "padding": 0}, "1x1"),
        ({"activation": "hard_swish"}, "cannot end in hard_swish"),
        ({"kind": "activation", "kernel": 1, "padding": 0}, "has an activation"),
        ({"kind": "grouped"}, "groups of equal width"),
        ({"per_group": 4}, "groups of equal width"),
        ({"kind": "grouped", "per_group": 3}, "groups of equal width"),
        ({"parts": 2}, "only concat and shuffle"),
        ({"kind": "concat", "kernel": 1, "padding": 0}, "joins two tensors or more"),
        ({"kind": "concat", "kernel": 1, "padding": 0, "parts": 9}, "each with a channel"),
        ({"kind": "shuffle", "kernel": 1, "padding": 0, "parts": 3}, "deals its channels out evenly"),
        ({"kind": "slice", "c_out": 9, "kernel": 1, "padding": 0}, "no more channels out"),
        ({"kind": "scale", "c_out": 9}, "as many channels"),
        ({"kind": "add", "end": 1}, "no padding at its end"),
        ({"kind": "add", "dilation": 2}, "no dilation"),
        ({"kind": "add", "kernel_w": 2}, "no kernel"),
        ({"kernel_w": 3, "padding_w": 1}, "like the height isn't told"),
        ({"padding_w": 1}, "like the height isn't told"),
        ({"kernel_w": 1, "padding_w": 1}, "padding must be smaller"),
        ({"kernel_w": 8}, "kernel is larger"),
        ({"kind": "grouped", "per_group": 4, "c_out": 9}, "makes as many channels"),
        ({"end": 3}, "padding must be smaller"),
        ({"dilation": 0}, "positive"),
        ({"dilation": 6}, "kernel is larger"),
    ],
)
def test_impossible_shapes_are_refused(arguments: dict[str, object], complaint: str) -> None:
    good = {"kind": "conv", "c_in": 8, "c_out": 8, "h": 7, "w": 7, "kernel": 3, "stride": 1, "padding": 1}
    LayerShape(**good)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=complaint):
        LayerShape(**(good | arguments))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "conv",
        STEM.text[:-1],
        STEM.text + " ",
        STEM.text.replace("k3", "k-3"),
        STEM.text.replace("conv", "konv"),
        STEM.text.replace("3x224x224", "0x224x224"),
        f"{STEM.text}\n",
    ],
)
def test_a_text_that_is_no_shape_is_quoted_or_explained(text: str) -> None:
    with pytest.raises(ShapeError):
        parse_shape(text)


def test_parse_error_shows_the_text_and_an_example() -> None:
    with pytest.raises(ShapeError, match=r"'gibberish'.*noop 1x1x1>1"):
        parse_shape("gibberish")
