"""Transposed convolutions as layer shapes, and their files against PyTorch's own function."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from amc_latency.android_bench.printed.op_profile import Op
from amc_latency.lut.building.layer_model import layer_model
from amc_latency.lut.building.plan import sweep_shapes
from amc_latency.lut.imports.op_join import JoinError, join
from amc_latency.lut.prediction.estimate import cost_model, features
from amc_latency.lut.prediction.layers import LayerLatencies
from amc_latency.lut.shapes.architecture import Architecture, Layer
from amc_latency.lut.shapes.kind import Writing
from amc_latency.lut.shapes.registry import KINDS, kind_of
from amc_latency.lut.shapes.shape import FUSED_ACTIVATIONS, LayerShape, ShapeError, parse_shape
from amc_latency.lut.tflite.run import run_tflite, tflite_ops
from amc_latency.lut.tflite.writer import TfliteGraph
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional

DOUBLED = LayerShape("transposed", 16, 8, 7, 9, 2, 2, activation="relu")
CROPPED = LayerShape("transposed", 16, 8, 7, 9, 3, 2, 1, end=1)
"""Twice the size by a kernel of 3: SAME would leave the odd row out at the start, so a SLICE does."""


def test_its_arithmetic() -> None:
    assert DOUBLED.text == "transposed 16x7x9>8 k2 s2 p0 relu float32"
    assert CROPPED.text == "transposed 16x7x9>8 k3 s2 p1+1 none float32"
    assert (DOUBLED.h_out, DOUBLED.w_out) == (2 * 7, 2 * 9)
    assert (CROPPED.h_out, CROPPED.w_out) == (6 * 2 - 2 + 3 + 1, 8 * 2 - 2 + 3 + 1)
    # Each of 7 x 9 pixels in is multiplied by all weights.
    assert DOUBLED.macs == 7 * 9 * 2 * 2 * 16 * 8
    assert CROPPED.macs == 7 * 9 * 3 * 3 * 16 * 8
    assert CROPPED.params == 3 * 3 * 16 * 8 + 8
    assert parse_shape("transposed 100x7x9>333 k3 s2 p1+1 none float32").c_out == 333


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("transposed 4x5x5>4 k3 s2 p0 d2 none float32", "has no dilation"),
        ("transposed 4x5x5>4 k3 s2 p0+2 none float32", "output padding is smaller than its stride"),
        ("transposed 4x5x5>4 k3 s2 p3 none float32", "padding must be smaller than the kernel"),
        ("transposed 4x1x5>4 k3 s1 p2 none float32", "leaves nothing"),
        ("transposed 4x5x5>4 k3 s1 p1 g2 none float32", "no other layer, has groups"),
    ],
)
def test_what_there_is_none_of(text: str, complaint: str) -> None:
    with pytest.raises(ShapeError, match=complaint):
        parse_shape(text)


def test_an_unknown_kind_is_told_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"'tranposed' is none of conv, depthwise, .*; did you mean transposed\?"):
        kind_of("tranposed")


@st.composite
def shapes(draw: st.DrawFn) -> LayerShape:
    stride, sides = draw(st.integers(1, 3)), []
    for kernel in (side := draw(st.integers(1, 5)), draw(st.one_of(st.just(side), st.integers(1, 5)))):
        sides.append((kernel, draw(st.integers(0, kernel - 1)), draw(st.integers(1, 6))))
    (kernel, padding, h), (kernel_w, padding_w, w) = sides
    if (kernel, padding) == (kernel_w, padding_w):
        kernel_w = padding_w = 0
    end, activation = draw(st.integers(0, stride - 1)), draw(st.sampled_from(FUSED_ACTIVATIONS))
    c_in, c_out = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    try:
        return LayerShape(
            *("transposed", c_in, c_out, h, w, kernel, stride, padding, activation),
            end=end,
            kernel_w=kernel_w,
            padding_w=padding_w,
        )
    except ShapeError as error:
        assume("leaves nothing" not in str(error))
        raise


@settings(max_examples=200, deadline=None)
@given(shapes(), st.integers(0, 2**16))
def test_any_equals_pytorch(shape: LayerShape, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape.c_in, shape.c_out, *shape.kernel_hw, generator=draw)
    bias, image = (torch.randn(*size, generator=draw) for size in ((shape.c_out,), (1, shape.c_in, shape.h, shape.w)))
    graph = TfliteGraph()
    x = graph.input(shape.h, shape.w, shape.c_in)
    constants = [np.ascontiguousarray(weight.numpy().transpose(1, 2, 3, 0)), bias.numpy()]
    got = run_tflite(graph.finish([KINDS["transposed"].write(Writing(graph, [x], shape, constants))]), image.numpy())
    expected = functional.conv_transpose2d(image, weight, bias, shape.stride, shape.padding_hw, shape.end)
    expected = {"none": lambda y: y, "relu": torch.relu, "relu6": functional.relu6}[shape.activation](expected)
    assert got.shape[2:] == (shape.h_out, shape.w_out)
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "ops"),
    [
        (DOUBLED, {"TRANSPOSE_CONV": 1}),
        (LayerShape("transposed", 16, 8, 7, 7, 4, 2, 1), {"TRANSPOSE_CONV": 1}),  # SAME: 1 row over at either end
        (LayerShape("transposed", 16, 8, 7, 7, 3, 1, 1), {"TRANSPOSE_CONV": 1}),
        (CROPPED, {"TRANSPOSE_CONV": 1, "SLICE": 1}),
        (LayerShape("transposed", 16, 8, 7, 7, 3, 2, 1), {"TRANSPOSE_CONV": 1}),  # 13 rows of 15
    ],
    ids=str,
)
def test_a_slice_is_needed_only_where_same_is_another(shape: LayerShape, ops: dict[str, int]) -> None:
    model = layer_model(shape)
    assert tflite_ops(model) == ops
    interpreter = Interpreter(model_content=model)
    interpreter.allocate_tensors()
    # One delegate, XNNPACK, runs it all.
    names = [op["op_name"] for op in interpreter._get_ops_details()]
    assert names.count("DELEGATE") == 1
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert (source["shape"].tolist(), target["shape"].tolist()) == (
        [1, shape.h, shape.w, shape.c_in],
        [1, shape.h_out, shape.w_out, shape.c_out],
    )


def test_its_staircase_has_two_axes() -> None:
    """Its channels in and out are timed and predicted as a convolution's are."""
    architecture = Architecture((Layer(LayerShape("transposed", 16, 24, 7, 7, 2, 2), None, 0),), (24,))
    timed = [shape.c_out for shape in sweep_shapes(architecture, [(8, 16, 24)]) if shape.kind == "transposed"]
    assert sorted(timed) == [8, 16, 24]
    assert DOUBLED.two_figures


def test_what_was_not_timed_is_read_off_its_staircase() -> None:
    def us(c_in: int, c_out: int) -> float:
        return 5 + (2 + 0.5 * c_in) * -(-c_out // 16)

    def shape(c_in: int, c_out: int) -> LayerShape:
        return LayerShape("transposed", c_in, c_out, 7, 7, 2, 2)

    timed = {shape(c_in, c_out): us(c_in, c_out) for c_in in (8, 32, 64) for c_out in range(8, 129, 8)}
    latencies = LayerLatencies(timed, {}, Path("table.tsv"))
    assert shape(48, 88) not in timed
    assert latencies.latency_us(shape(48, 88)) == pytest.approx(us(48, 88), rel=0.03)  # 6 steps of 16


def test_its_work_is_a_product_that_makes_each_pixels_patch() -> None:
    work = features(DOUBLED, 1e5)
    assert work["macs"] == DOUBLED.macs
    assert work["weights"] == 2 * 2 * 16 * 8
    assert work["outputs"] == 7 * 9 * 2 * 2 * 8
    # No published log has one, so an estimate says that it is far from what was fitted.
    assert cost_model("pixel1").far(DOUBLED)


def op(node_type: str) -> Op:
    return Op(node_type=node_type, name=node_type, avg_ms=1.0, first_ms=1.0, times_called=1)


def test_its_ops_in_a_log() -> None:
    for name, crop in (("TRANSPOSE_CONV", "SLICE"), ("Deconvolution (NHWC, F32) IGEMM", "Slice (ND, X32)")):
        joined = join([op(name), op(crop), op(name)], [CROPPED, DOUBLED], ["", ""])
        assert [len(layer.ops) for layer in joined.layers] == [2, 1]
        with pytest.raises(JoinError, match="left over"):
            join([op(name), op(crop)], [DOUBLED], [""])
