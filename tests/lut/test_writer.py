"""Files that the writer makes, run through the real LiteRT and held against PyTorch's own functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from lut.shape import ACTIVATIONS, NOOP, LayerShape, ShapeError
from lut.tflite import TfliteError, run_tflite, tflite_ops
from lut.writer import TfliteGraph, layer_model

PYTORCH_ACTIVATIONS = {"none": lambda x: x, "relu": functional.relu, "relu6": functional.relu6}


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)


def built(shape: LayerShape) -> tuple[bytes, Tensor, Tensor]:
    """A file of one layer with random weights, an input for it, and what PyTorch makes of them."""
    graph = TfliteGraph()
    tensor = graph.input(shape.h, shape.w, shape.c_in)
    image = torch.from_numpy(values(2, shape.c_in, shape.h, shape.w) * 3)
    bias = values(shape.c_out, seed=1)
    k, s, p = shape.kernel, shape.stride, shape.padding
    match shape.kind:
        case "conv":
            weight = values(shape.c_out, shape.c_in, k, k)  # PyTorch's order
            out = graph.conv(tensor, weight.transpose(0, 2, 3, 1), bias, s, p, shape.activation)
            expected = functional.conv2d(image, torch.from_numpy(weight), torch.from_numpy(bias), s, p)
        case "depthwise":
            weight = values(shape.c_out, 1, k, k)
            out = graph.depthwise(tensor, weight.transpose(1, 2, 3, 0), bias, s, p, shape.activation)
            expected = functional.conv2d(
                image, torch.from_numpy(weight), torch.from_numpy(bias), s, p, groups=shape.c_in
            )
        case "linear":
            weight = values(shape.c_out, shape.c_in)
            out = graph.linear(tensor, weight, bias, shape.activation)
            expected = functional.linear(image.flatten(1), torch.from_numpy(weight), torch.from_numpy(bias))
        case "add":
            out = graph.add(tensor, tensor, shape.activation)
            expected = image + image
        case "avg_pool":
            out = graph.avg_pool(tensor, k, s, p, shape.activation)
            expected = functional.avg_pool2d(image, k, s, p)
        case "max_pool":
            out = graph.max_pool(tensor, k, s, p, shape.activation)
            expected = functional.max_pool2d(image, k, s, p)
        case _:
            out = graph.global_pool(tensor)
            expected = image.mean([2, 3])
    return graph.finish([out]), image, PYTORCH_ACTIVATIONS[shape.activation](expected)


def assert_equals_pytorch(shape: LayerShape) -> None:
    model, image, expected = built(shape)
    got = run_tflite(model, image.numpy())
    assert got.shape == tuple(expected.shape)
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-5, atol=1e-4)


@st.composite
def small_windows(draw: st.DrawFn) -> LayerShape:
    kind = draw(st.sampled_from(("conv", "depthwise", "avg_pool", "max_pool")))
    kernel = draw(st.integers(1, 5))
    # PyTorch refuses pools with more padding than half a kernel.
    padding = draw(st.integers(0, kernel // 2 if kind.endswith("pool") else kernel - 1))
    smallest = max(1, kernel - 2 * padding)
    h, w = draw(st.integers(smallest, smallest + 9)), draw(st.integers(smallest, smallest + 9))
    c_in = draw(st.integers(1, 9))
    c_out = draw(st.integers(1, 9)) if kind == "conv" else c_in
    stride, activation = draw(st.integers(1, 3)), draw(st.sampled_from(ACTIVATIONS))
    return LayerShape(kind, c_in, c_out, h, w, kernel, stride, padding, activation)


@settings(max_examples=250, deadline=None)
@given(small_windows())
def test_any_window_equals_pytorch(shape: LayerShape) -> None:
    assert_equals_pytorch(shape)


@pytest.mark.parametrize("activation", ACTIVATIONS)
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
        *(LayerShape("linear", 24, 10, activation=activation) for activation in ACTIVATIONS),
        *(LayerShape("add", 8, 8, 5, 6, activation=activation) for activation in ACTIVATIONS),
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


def test_max_pool_pads_below_any_value_unless_nothing_is_below_zero() -> None:
    def ops(activation: str) -> dict[str, int]:
        graph = TfliteGraph()
        x = graph.conv(graph.input(8, 8, 4), values(4, 1, 1, 4), values(4), activation=activation)
        return tflite_ops(graph.finish([graph.max_pool(x, 3, 2, 1)]))

    assert ops("none") == {"CONV_2D": 1, "MAX_POOL_2D": 1, "PADV2": 1}
    assert ops("relu") == {"CONV_2D": 1, "MAX_POOL_2D": 1, "PAD": 1}


def test_a_second_padded_max_pool_is_still_above_zero() -> None:
    graph = TfliteGraph()
    pool = graph.input(16, 16, 4, non_negative=True)
    for _ in range(2):
        pool = graph.max_pool(pool, 3, 2, 1)
    assert tflite_ops(graph.finish([pool])) == {"MAX_POOL_2D": 2, "PAD": 2}


ONE_OF_EACH = [
    LayerShape("conv", 3, 32, 32, 32, 3, 2, 1, "relu6"),
    LayerShape("conv", 40, 24, 7, 7, activation="relu"),
    LayerShape("depthwise", 24, 24, 14, 14, 3, 2, 1, "relu6"),
    LayerShape("linear", 48, 10),
    LayerShape("add", 24, 24, 7, 7, activation="relu"),
    LayerShape("avg_pool", 24, 24, 8, 8, 2, 2),
    LayerShape("avg_pool", 24, 24, 8, 8, 3, 2, 1),
    LayerShape("max_pool", 24, 24, 8, 8, 3, 2, 1),
    LayerShape("max_pool", 24, 24, 8, 8, 2, 2),
    LayerShape("global_pool", 24, 24, 7, 7),
    NOOP,
]


@pytest.mark.parametrize("shape", ONE_OF_EACH, ids=str)
def test_layer_model_runs_in_xnnpack_alone(shape: LayerShape) -> None:
    interpreter = Interpreter(model_content=layer_model(shape))
    interpreter.allocate_tensors()
    sources, (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert len(sources) == (2 if shape.kind == "add" else 1)
    for source in sources:
        assert int(np.prod(source["shape"])) == shape.h * shape.w * shape.c_in
        interpreter.set_tensor(source["index"], values(*source["shape"]))
    interpreter.invoke()
    assert int(np.prod(target["shape"])) == shape.h_out * shape.w_out * shape.c_out
    assert np.isfinite(interpreter.get_tensor(target["index"])).all()
    # LiteRT lists the replaced operators too; one delegate that reads the inputs and makes the output ran them all.
    (delegate,) = [op for op in interpreter._get_ops_details() if op["op_name"] == "DELEGATE"]
    assert {source["index"] for source in sources} <= set(delegate["inputs"].tolist())
    assert target["index"] in delegate["outputs"].tolist()


@pytest.mark.parametrize("shape", ONE_OF_EACH, ids=str)
def test_layer_model_says_what_its_shape_says(shape: LayerShape) -> None:
    """MACs, parameters and the fused activation, read back out of the file."""
    graph = unpacked(layer_model(shape)).subgraphs[0]
    layer = graph.operators[-1]
    tensors = [graph.tensors[index] for index in layer.inputs]
    if shape.kind in ("conv", "depthwise", "linear"):
        weight, bias = (list(tensor.shape) for tensor in tensors[1:])
        pixels = np.prod(graph.tensors[layer.outputs[0]].shape[1:-1])
        assert np.prod(weight) * pixels == shape.macs
        assert np.prod(weight) + np.prod(bias) == shape.params
    activation = getattr(layer.builtinOptions, "fusedActivationFunction", 0)
    expected = {"none": 0, "relu": 1, "relu6": 3}  # ActivationFunctionType in schema.fbs
    assert activation == expected[shape.activation]


def unpacked(model: bytes) -> Any:
    return schema.ModelT.InitFromPackedBuf(bytearray(model), 0)


def test_weights_are_ordinary_and_the_same_each_time() -> None:
    shape = LayerShape("linear", 1200, 1000)  # more weights than the writer's block of random values
    model = layer_model(shape)
    assert layer_model(shape) == model
    for buffer in unpacked(model).buffers[1:]:
        weights = np.asarray(buffer.data, np.uint8).view(np.float32)
        assert np.abs(weights).min() > 1e-3
        assert np.abs(weights).max() < 1
        assert (weights < 0).any()
        assert (weights > 0).any()


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


@pytest.mark.parametrize("kind", ["global_pool", "noop"])
def test_an_activation_that_cannot_be_fused_is_refused(kind: str) -> None:
    with pytest.raises(ShapeError, match="no fused activation"):
        layer_model(LayerShape(kind, 4, 4, 4, 4, activation="relu"))


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
