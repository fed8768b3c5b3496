"""Files that the writer makes, run through the real LiteRT and held against PyTorch's own functions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from amc_latency.lut.building.layer_model import layer_model
from amc_latency.lut.shapes.kinds.pools import avg_pool, max_pool
from amc_latency.lut.shapes.shape import FUSED_ACTIVATIONS, LayerShape
from amc_latency.lut.tflite.run import TfliteError, run_tflite, tflite_ops
from amc_latency.lut.tflite.writer import TfliteGraph
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

POOLS: dict[str, Any] = {"avg_pool": avg_pool, "max_pool": max_pool}
PYTORCH_ACTIVATIONS = {"none": lambda x: x, "relu": functional.relu, "relu6": functional.relu6}


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def built(shape: LayerShape) -> tuple[bytes, Tensor, Tensor]:
    """A file of one layer with random weights, an input for it, and what PyTorch makes of them."""
    graph = TfliteGraph()
    tensor = graph.input(shape.h, shape.w, shape.c_in)
    image = torch.from_numpy(values(2, shape.c_in, shape.h, shape.w) * 3)
    bias = values(shape.c_out, seed=1)
    k, s, (top, left), d = shape.kernel_hw, shape.stride, shape.padding_hw, shape.dilation
    window = (s, shape.padding_hw, shape.activation, shape.end)
    around = (left, left + shape.end, top, top + shape.end)
    match shape.kind:
        case "conv" | "grouped" | "depthwise":
            per_group = {"conv": shape.c_in, "grouped": shape.per_group, "depthwise": 1}[shape.kind]
            weight = values(shape.c_out, per_group, *k)  # PyTorch's order
            if shape.kind == "depthwise":
                out = graph.depthwise(tensor, weight.transpose(1, 2, 3, 0), bias, *window, d)
            else:
                out = graph.conv(tensor, weight.transpose(0, 2, 3, 1), bias, *window, d)
            padded, groups = functional.pad(image, around), shape.c_in // per_group
            expected = functional.conv2d(
                padded, torch.from_numpy(weight), torch.from_numpy(bias), s, 0, dilation=d, groups=groups
            )
        case "linear":
            weight = values(shape.c_out, shape.c_in)
            out = graph.linear(tensor, weight, bias, shape.activation)
            expected = functional.linear(image.flatten(1), torch.from_numpy(weight), torch.from_numpy(bias))
        case "add":
            out = graph.add(tensor, tensor, shape.activation)
            expected = image + image
        case "avg_pool" | "inner_avg_pool":
            counts = shape.kind == "avg_pool"
            out = avg_pool(graph, tensor, k, *window, count_include_pad=counts)
            expected = functional.avg_pool2d(image, k, s, (top, left), count_include_pad=counts)
        case "max_pool":
            out = max_pool(graph, tensor, k, *window)
            expected = functional.max_pool2d(functional.pad(image, around, value=-torch.inf), k, s)
        case _:
            out = graph.global_pool(tensor)
            expected = image.mean([2, 3])
    return graph.finish([out]), image, PYTORCH_ACTIVATIONS[shape.activation](expected)


def assert_equals_pytorch(shape: LayerShape) -> None:
    model, image, expected = built(shape)
    got = run_tflite(model, image.numpy())
    assert got.shape == tuple(expected.shape)
    assert got.shape[2:] in ((), (shape.h_out, shape.w_out))
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-5, atol=1e-4)


@st.composite
def small_windows(draw: st.DrawFn) -> LayerShape:
    kind = draw(st.sampled_from(("conv", "grouped", "depthwise", "avg_pool", "inner_avg_pool", "max_pool")))
    is_pool = kind.endswith("pool")
    dilation = 1 if is_pool else draw(st.integers(1, 3))
    sides = []
    for kernel in (side := draw(st.integers(1, 5)), draw(st.one_of(st.just(side), st.integers(1, 5)))):
        reach = dilation * (kernel - 1) + 1
        # PyTorch refuses pools with more padding than half a kernel.
        padding = draw(st.integers(0, kernel // 2 if is_pool else reach - 1))
        smallest = max(1, reach - 2 * padding)
        sides.append((kernel, padding, draw(st.integers(smallest, smallest + 9)), reach - 1))
    (kernel, padding, h, most), (kernel_w, padding_w, w, most_w) = sides
    if kind == "max_pool":
        # A window that saw nothing but padding would have no largest pixel.
        most, most_w = most - padding, most_w - padding_w
    # PyTorch's average knows no `end`.
    end = 0 if kind.endswith("avg_pool") else draw(st.integers(0, min(3, most, most_w)))
    if (kernel, padding) == (kernel_w, padding_w):
        kernel_w = padding_w = 0
    groups, per_group = draw(st.integers(1, 9)), draw(st.integers(1, 4)) if kind == "grouped" else 0
    c_in = groups * max(1, per_group)
    c_out = {"conv": draw(st.integers(1, 9)), "grouped": groups * draw(st.integers(1, 4))}.get(kind, c_in)
    stride, activation = draw(st.integers(1, 3)), draw(st.sampled_from(FUSED_ACTIVATIONS))
    return LayerShape(
        *(kind, c_in, c_out, h, w, kernel, stride, padding, activation),
        end=end,
        dilation=dilation,
        per_group=per_group,
        kernel_w=kernel_w,
        padding_w=padding_w,
    )


@settings(max_examples=200, deadline=None)
@given(small_windows())
def test_any_window_equals_pytorch(shape: LayerShape) -> None:
    assert_equals_pytorch(shape)


@settings(max_examples=80, deadline=None)
@given(st.tuples(st.integers(4, 12), st.integers(4, 12)), st.integers(2, 4), st.integers(1, 3), st.data())
def test_a_pool_that_rounds_up_equals_pytorch(
    size: tuple[int, int], kernel: int, stride: int, data: st.DataObject
) -> None:
    padding, count = data.draw(st.integers(0, kernel // 2)), data.draw(st.booleans())
    assume(stride <= kernel)
    image = torch.from_numpy(values(2, 3, *size))
    expected = [
        functional.avg_pool2d(image, kernel, stride, padding, ceil_mode=True, count_include_pad=count),
        functional.max_pool2d(image, kernel, stride, padding, ceil_mode=True),
    ]
    reached = [(side + 2 * padding + stride - 1 - kernel) // stride + 1 for side in size]
    # PyTorch leaves out a last window that would lie in the padding alone.
    assume(tuple(reached) == tuple(expected[0].shape[2:]))
    for pool, wanted in zip(("avg_pool", "max_pool"), expected, strict=True):
        graph = TfliteGraph()
        more = {"count_include_pad": count} if pool == "avg_pool" else {}
        out = POOLS[pool](graph, graph.input(*size, 3), kernel, stride, padding, end=stride - 1, **more)
        got = run_tflite(graph.finish([out]), image.numpy())
        assert got.shape == tuple(wanted.shape)
        np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", FUSED_ACTIVATIONS)
@pytest.mark.parametrize("size", [14, 15])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("kernel", "padding"), [(1, 0), (3, 0), (3, 1), (5, 2), (7, 3)])
@pytest.mark.parametrize("kind", ["conv", "depthwise"])
def test_convolutions_equal_pytorch(
    kind: str, kernel: int, padding: int, stride: int, size: int, activation: str
) -> None:
    assert_equals_pytorch(LayerShape(kind, 16, 16, size, size, kernel, stride, padding, activation))


@pytest.mark.parametrize(
    "shape",
    [
        *(LayerShape("linear", 24, 10, activation=activation) for activation in FUSED_ACTIVATIONS),
        *(LayerShape("add", 8, 8, 5, 6, activation=activation) for activation in FUSED_ACTIVATIONS),
        LayerShape("global_pool", 8, 8, 7, 7),
        LayerShape("global_pool", 12, 12, 1, 5),
        LayerShape("max_pool", 64, 64, 112, 112, 3, 2, 1),
    ],
    ids=str,
)
def test_other_kinds_equal_pytorch(shape: LayerShape) -> None:
    assert_equals_pytorch(shape)


def test_same_is_used_only_where_it_pads_as_pytorch_does() -> None:
    def ops(h: int, w: int, kernel: int, stride: int, padding: int) -> dict[str, int]:
        return tflite_ops(layer_model(LayerShape("conv", 4, 4, h, w, kernel, stride, padding)))

    assert ops(14, 14, 3, 1, 1) == {"CONV_2D": 1}
    assert ops(15, 15, 3, 2, 1) == {"CONV_2D": 1}
    assert ops(14, 14, 3, 2, 0) == {"CONV_2D": 1}
    assert ops(14, 14, 3, 2, 1) == {"CONV_2D": 1, "PAD": 1}
    assert ops(15, 14, 3, 2, 1) == {"CONV_2D": 1, "PAD": 1}
    assert ops(14, 14, 3, 1, 2) == {"CONV_2D": 1, "PAD": 1}


def test_an_end_is_same_where_tflite_puts_the_odd_zero_and_left_out_where_no_window_reads_it() -> None:
    def ops(h: int, kernel: int, stride: int, padding: int, end: int) -> dict[str, int]:
        return tflite_ops(layer_model(LayerShape("conv", 4, 4, h, h, kernel, stride, padding, end=end)))

    assert ops(14, 3, 2, 0, 1) == {"CONV_2D": 1}
    assert ops(14, 5, 2, 1, 1) == {"CONV_2D": 1}
    assert ops(15, 3, 2, 0, 1) == {"CONV_2D": 1}  # the last window ends at pixel 14
    assert ops(14, 5, 2, 0, 1) == {"CONV_2D": 1, "PAD": 1}


def test_dilation_is_same_where_the_dilated_window_is() -> None:
    dilated = LayerShape("conv", 4, 4, 9, 9, 3, 1, 2, dilation=2)
    assert tflite_ops(layer_model(dilated)) == {"CONV_2D": 1}
    assert tflite_ops(layer_model(replace(dilated, padding=1))) == {"CONV_2D": 1, "PAD": 1}


def test_max_pool_pads_below_any_value_unless_nothing_is_below_zero() -> None:
    def ops(activation: str) -> dict[str, int]:
        graph = TfliteGraph()
        x = graph.conv(graph.input(8, 8, 4), values(4, 1, 1, 4), values(4), activation=activation)
        return tflite_ops(graph.finish([max_pool(graph, x, 3, 2, 1)]))

    assert ops("none") == {"CONV_2D": 1, "MAX_POOL_2D": 1, "PADV2": 1}
    assert ops("relu") == {"CONV_2D": 1, "MAX_POOL_2D": 1, "PAD": 1}


def test_a_second_padded_max_pool_is_still_above_zero() -> None:
    graph = TfliteGraph()
    pool = graph.input(16, 16, 4, non_negative=True)
    for _ in range(2):
        pool = max_pool(graph, pool, 3, 2, 1)
    assert tflite_ops(graph.finish([pool])) == {"MAX_POOL_2D": 2, "PAD": 2}


def test_buffers_are_aligned_to_16_bytes() -> None:
    model = layer_model(LayerShape("conv", 3, 5, 8, 8, 3, 2, 1))
    root = schema.Model.GetRootAs(model, 0)
    offsets = [root.Buffers(i)._tab for i in range(1, root.BuffersLength())]
    starts = [table.Vector(table.Offset(4)) for table in offsets]
    assert len(starts) == 3
    assert [start % 16 for start in starts] == [0, 0, 0]


def test_signature_and_tensor_names() -> None:
    interpreter = Interpreter(model_content=layer_model(LayerShape("add", 8, 8, 4, 4)))
    assert interpreter.get_signature_list() == {"serving_default": {"inputs": ["x", "x1"], "outputs": ["y"]}}
    runner = interpreter.get_signature_runner("serving_default")
    one = np.ones((1, 4, 4, 8), np.float32)
    assert (runner(x=one, x1=2 * one)["y"] == 3).all()
    padded = Interpreter(model_content=layer_model(LayerShape("conv", 3, 8, 8, 8, 3, 2, 1)))
    assert padded.get_output_details()[0]["name"] == "op001_conv_2d"


def test_the_quantizer_accepts_a_file() -> None:
    quantizer = pytest.importorskip("ai_edge_quantizer.quantizer")
    recipe = pytest.importorskip("ai_edge_quantizer.recipe")
    model = layer_model(LayerShape("conv", 16, 32, 8, 8, 3, 1, 1, "relu6"))
    quantised = quantizer.Quantizer(bytearray(model), recipe.weight_only_wi8_afp32()).quantize()
    assert len(quantised.quantized_model) < len(model) / 2


def test_files_that_are_no_tflite(tmp_path: Path) -> None:
    image = values(1, 4, 4, 4)
    text = tmp_path / "notes.tflite"
    text.write_text("not a model, only a text file")
    with pytest.raises(TfliteError, match=r"notes\.tflite is not a .tflite file"):
        run_tflite(text, image)
    with pytest.raises(TfliteError, match=r"missing\.tflite: No such file"):
        run_tflite(tmp_path / "missing.tflite", image)
    model = layer_model(LayerShape("conv", 4, 4, 4, 4))
    with pytest.raises(TfliteError, match=r"not a \.tflite"):
        tflite_ops(b"")
    for length in (8, 20, len(model) // 2, len(model) - 40):
        with pytest.raises(TfliteError, match="can't load"):
            run_tflite(model[:length], image)
    with pytest.raises(TfliteError, match="damaged"):
        tflite_ops(model[:20])
    with pytest.raises(TfliteError, match=r"takes \[1, 4, 4, 4\].*\[1, 5, 4, 4\]"):
        run_tflite(model, values(1, 4, 5, 4))
