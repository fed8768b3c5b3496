from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lut.shape import ACTIVATIONS, NOOP, LayerShape, ShapeError, network_text, parse_network, parse_shape

STEM = LayerShape("conv", 3, 32, 224, 224, 3, 2, 1, "relu6")


@st.composite
def layer_shapes(draw: st.DrawFn) -> LayerShape:
    kind = draw(st.sampled_from(("conv", "depthwise", "linear", "add", "avg_pool", "max_pool", "global_pool")))
    size = st.integers(1, 300)
    c_in, activation = draw(st.integers(1, 4096)), draw(st.sampled_from(ACTIVATIONS))
    c_out = draw(st.integers(1, 4096)) if kind in ("conv", "linear") else c_in
    if kind == "linear":
        return LayerShape(kind, c_in, c_out, activation=activation)
    kernel = draw(st.integers(1, 7))
    padding = draw(st.integers(0, kernel - 1))
    h, w = (max(draw(size), kernel - 2 * padding) for _ in range(2))
    return LayerShape(kind, c_in, c_out, h, w, kernel, draw(st.integers(1, 4)), padding, activation)


@given(layer_shapes())
def test_text_names_exactly_one_shape(shape: LayerShape) -> None:
    assert parse_shape(shape.text) == shape
    assert str(shape) == shape.text


@given(st.lists(layer_shapes(), min_size=1, max_size=6))
def test_network_text_round_trip(shapes: list[LayerShape]) -> None:
    assert parse_network(network_text(shapes)) == tuple(shapes)


def test_text_is_the_documented_one() -> None:
    assert STEM.text == "conv 3x224x224>32 k3 s2 p1 relu6 float32"


@pytest.mark.parametrize(
    ("shape", "macs", "params"),
    [
        (STEM, 3 * 3 * 3 * 32 * 112 * 112, 3 * 3 * 3 * 32 + 32),
        (LayerShape("conv", 512, 256, 14, 14), 512 * 256 * 14 * 14, 512 * 256 + 256),
        (LayerShape("depthwise", 64, 64, 113, 57, 3, 2, 1), 3 * 3 * 64 * 57 * 29, 3 * 3 * 64 + 64),
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


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"kind": "convolution"}, "convolution"),
        ({"activation": "hardswish"}, "hardswish"),
        ({"dtype": "int8"}, "int8"),
        ({"c_out": 0}, "positive"),
        ({"stride": 0}, "positive"),
        ({"padding": -1}, "positive"),
        ({"padding": 3}, "padding"),
        ({"h": 1, "w": 1, "kernel": 5}, "kernel is larger"),
        ({"kind": "depthwise", "c_out": 16}, "as many channels"),
        ({"kind": "add", "c_out": 16}, "as many channels"),
        ({"kind": "linear"}, "1x1"),
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
