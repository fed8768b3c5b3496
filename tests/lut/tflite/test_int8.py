"""Int8 layers as they are written: LiteRT computes what the integers stand for, and the quantiser writes the same."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer
from ai_edge_quantizer.recipe import static_wi8_ai8
from amc_latency.lut.building import layer_model as layer_model_module
from amc_latency.lut.building.layer_model import layer_model
from amc_latency.lut.shapes.activations import ACTIVATIONS
from amc_latency.lut.shapes.precisions import INT8, why_not
from amc_latency.lut.shapes.registry import KINDS
from amc_latency.lut.shapes.shape import LayerShape
from amc_latency.lut.tflite.int8 import SCALE, WEIGHT_SCALE, ZERO_POINT
from amc_latency.lut.tflite.run import tflite_ops
from torch.nn import functional

CONVOLUTIONS = [
    LayerShape("conv", 16, 32, 14, 14, activation="relu6"),
    LayerShape("conv", 16, 24, 14, 14, 3, 1, 1),
    LayerShape("conv", 8, 12, 15, 14, 3, 2, 1, "relu"),
    LayerShape("conv", 8, 1, 5, 5),
    LayerShape("conv", 8, 12, 9, 9, 3, 1, 2, dilation=2),
    LayerShape("grouped", 16, 32, 7, 7, 3, 1, 1, per_group=8),
    LayerShape("depthwise", 16, 16, 14, 14, 3, 1, 1, "relu6"),
    LayerShape("depthwise", 16, 16, 14, 14, 3, 2, 1),
    LayerShape("depthwise", 24, 24, 9, 9, 5, 1, 2),
    LayerShape("linear", 64, 10),
]
OTHERS = [
    LayerShape("add", 16, 16, 6, 6),
    LayerShape("add", 16, 16, 6, 6, activation="relu"),
    LayerShape("max_pool", 16, 16, 7, 7, 3, 2, 1),
    LayerShape("avg_pool", 16, 16, 8, 8, 2, 2),
    LayerShape("global_pool", 16, 16, 7, 7),
    LayerShape("concat", 30, 30, 5, 5, parts=2),
    LayerShape("slice", 32, 16, 5, 5),
    LayerShape("nearest", 8, 8, 5, 5, stride=2),
]
"""Kinds whose outputs are easily said in real numbers."""
MORE = [
    LayerShape("conv", 16, 16, 14, 14, 3, 1, 1, end=1),
    LayerShape("linear", 64, 10, activation="relu6"),
    LayerShape("transposed", 16, 8, 7, 7, 2, 2),
    LayerShape("transposed", 16, 8, 7, 7, 3, 2, 1, end=1),
    LayerShape("mul", 16, 16, 6, 6, activation="relu6"),
    LayerShape("scale", 16, 16, 6, 6),
    LayerShape("add_scalar", 16, 16, 6, 6),
    LayerShape("mul_scalar", 16, 16, 6, 6),
    LayerShape("avg_pool", 16, 16, 8, 8, 3, 2, 1),
    LayerShape("inner_avg_pool", 16, 16, 8, 8, 3, 2, 1),
    LayerShape("concat", 24, 24, 5, 5, parts=6),
    LayerShape("shuffle", 16, 16, 5, 5, parts=2),
    LayerShape("bilinear", 8, 8, 5, 5, stride=2),
    LayerShape("softmax", 10, 10),
    *(LayerShape("activation", 16, 16, 7, 7, activation=name) for name, each in ACTIVATIONS.items() if each.int8),
]
"""All others that can be int8, and rarer cases of those above."""


def int8(shape: LayerShape) -> LayerShape:
    return replace(shape, precision="int8")


def run(content: bytes, inputs: Sequence[np.ndarray] = ()) -> tuple[list[np.ndarray], np.ndarray]:
    """What the file makes of `inputs`, or of integers, or floats, drawn for each."""
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    rng, given = np.random.default_rng(0), list(inputs)
    for i, each in enumerate(interpreter.get_input_details()):
        if inputs:
            pass
        elif each["dtype"] is np.int8:
            given.append(rng.integers(-128, 128, each["shape"], np.int8))
        else:
            given.append(rng.uniform(-1, 7, each["shape"]).astype(np.float32))
        interpreter.set_tensor(each["index"], given[i])
    interpreter.invoke()
    return given, interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def real(integers: np.ndarray) -> torch.Tensor:
    """What tensors stand for, [N, C, H, W]."""
    values = torch.from_numpy((integers.astype(np.float64) - ZERO_POINT) * SCALE)
    return values.permute(0, 3, 1, 2) if values.ndim == 4 else values


def integers(values: torch.Tensor) -> np.ndarray:
    """What stands for real values, without their rounding to whole ones."""
    values = values.permute(0, 2, 3, 1) if values.ndim == 4 else values
    return np.clip(values.numpy() / SCALE + ZERO_POINT, -128, 127)


def constants(content: bytes) -> list[np.ndarray]:
    """The weights and the bias in the file, as real values."""
    graph = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0)).subgraphs[0]
    buffers = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0)).buffers
    found = []
    for tensor in graph.tensors:
        if b"weight" not in tensor.name and b"bias" not in tensor.name:
            continue
        dtype = np.int8 if tensor.type == schema.TensorType.INT8 else np.int32
        data = np.frombuffer(bytes(buffers[tensor.buffer].data), dtype).reshape(tensor.shape).astype(np.float64)
        along = [1] * data.ndim
        along[tensor.quantization.quantizedDimension] = -1
        assert len(tensor.quantization.scale) == data.shape[tensor.quantization.quantizedDimension]
        found.append(data * tensor.quantization.scale.reshape(along))
    return found


@pytest.mark.parametrize("shape", CONVOLUTIONS, ids=str)
def test_products_are_pytorchs_of_what_the_integers_stand_for(shape: LayerShape) -> None:
    content = layer_model(int8(shape))
    (given,), made = run(content)
    weight, bias = map(torch.from_numpy, constants(content))
    x = real(given)
    if shape.kind == "linear":
        expected = functional.linear(x, weight, bias)
    else:
        order = (3, 0, 1, 2) if shape.kind == "depthwise" else (0, 3, 1, 2)
        groups = shape.c_in // (shape.per_group or shape.c_in) if shape.kind != "depthwise" else shape.c_in
        expected = functional.conv2d(
            x, weight.permute(order), bias, shape.stride, shape.padding, shape.dilation, groups
        )
    if shape.activation != "none":
        expected = expected.clamp(0, 6 if shape.activation == "relu6" else None)
    assert made.dtype == np.int8
    # A step: LiteRT rounds the product of scales to 31 bits.
    assert np.abs(made - integers(expected)).max() <= 1.0
    assert len(np.unique(made)) > 3


@pytest.mark.parametrize("shape", OTHERS, ids=str)
def test_other_layers_are_pytorchs_of_what_the_integers_stand_for(shape: LayerShape) -> None:
    given, made = run(layer_model(int8(shape)))
    x = [real(each) for each in given]
    expected = {
        "add": lambda: x[0] + x[-1],
        "max_pool": lambda: functional.max_pool2d(x[0], shape.kernel, shape.stride, shape.padding),
        "avg_pool": lambda: functional.avg_pool2d(x[0], shape.kernel, shape.stride),
        "global_pool": lambda: x[0].mean((2, 3)),
        "concat": lambda: torch.cat(x, 1),
        "slice": lambda: x[0][:, : shape.c_out],
        "nearest": lambda: functional.interpolate(x[0], scale_factor=2, mode="nearest"),
    }[shape.kind]()
    assert np.abs(made - integers(expected)).max() <= 1.0


@pytest.mark.parametrize(
    ("shape", "steps"),
    [
        (LayerShape("add_scalar", 16, 16, 6, 6), 1),
        (LayerShape("mul_scalar", 16, 16, 6, 6), 1),
        (LayerShape("activation", 16, 16, 6, 6, activation="hard_sigmoid"), 1),
        # An average of 9, of which 4 count in a corner: half a step of the first rounding is 9/8, of the share's one.
        (LayerShape("inner_avg_pool", 16, 16, 8, 8, 3, 2, 1), 3),
    ],
    ids=str,
)
def test_constants_that_are_no_weights_are_as_large_as_in_float(shape: LayerShape, steps: float) -> None:
    (given,), made = run(layer_model(int8(shape)))
    x = real(given)
    # The figure itself, by the float32 file of the same layer at 1.
    ones = np.ones((1, shape.h, shape.w, shape.c_in), np.float32)
    figure = float(run(layer_model(shape), [ones])[1].flat[0])
    expected = {
        "add_scalar": lambda: x + (figure - 1),
        "mul_scalar": lambda: x * figure,
        "activation": lambda: functional.hardsigmoid(x),
        "inner_avg_pool": lambda: functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    }[shape.kind]()
    assert np.abs(made - integers(expected)).max() <= steps


def test_boundaries_round_to_steps_and_back() -> None:
    shape = LayerShape("quantize", 8, 8, 5, 5, precision="int8")
    (given,), made = run(layer_model(shape))
    assert (given.dtype, made.dtype) == (np.float32, np.int8)
    assert np.array_equal(made, np.clip(np.rint(given / SCALE) + ZERO_POINT, -128, 127).astype(np.int8))
    (stored,), values = run(layer_model(replace(shape, kind="dequantize")))
    assert (stored.dtype, values.dtype) == (np.int8, np.float32)
    np.testing.assert_allclose(values, (stored.astype(np.float64) - ZERO_POINT) * SCALE, rtol=1e-6)


def quantised(content: bytes) -> bytes:
    """The float32 file, all int8, by ai-edge-quantizer: each tensor is said to range over 0..6."""
    graph = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0)).subgraphs[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "float32.tflite"
        path.write_bytes(content)
        made = quantizer.Quantizer(str(path), static_wi8_ai8())
        low, high = np.zeros((1, 1), np.float32), np.full((1, 1), 6, np.float32)
        ranges = {tensor.name.decode(): {"min": low, "max": high} for tensor in graph.tensors if not tensor.buffer}
        return bytes(made.quantize(ranges).quantized_model)


def full_range(*shape: int) -> np.ndarray:
    """Weights whose largest is 0.1 in every channel, along whichever axis they are counted: our writer's range."""
    values, place = np.random.default_rng(0).uniform(-0.1, 0.1, shape).astype(np.float32), np.indices(shape).sum(0)
    return np.select([place % 6 == 0, place % 6 == 3], [np.float32(0.1), np.float32(-0.1)], values)


@pytest.mark.parametrize("shape", [*CONVOLUTIONS, *OTHERS, *MORE], ids=str)
def test_operators_and_outputs_are_the_quantisers(shape: LayerShape, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_model_module, "_weights", full_range)
    ours, theirs = layer_model(int8(shape)), quantised(layer_model(shape))
    assert tflite_ops(ours) == tflite_ops(theirs)
    given, made = run(ours)
    # As far apart as two orders of rounding.
    assert np.abs(run(theirs, given)[1].astype(int) - made).max() <= 1
    assert len(np.unique(made)) > 3


def test_every_kind_that_can_be_int8_is_among_those_compared() -> None:
    possible = {name for name, kind in KINDS.items() if why_not(name, "relu", INT8) is None and not kind.is_boundary}
    assert possible == {shape.kind for shape in (*CONVOLUTIONS, *OTHERS, *MORE)}


def test_weights_take_a_byte_and_their_scale_is_that_of_the_float_file() -> None:
    shape = LayerShape("conv", 64, 128, 7, 7)
    # 64 * 128 weights of 4 bytes against 1; biases are of 4 in both.
    saved = len(layer_model(shape)) - len(layer_model(int8(shape)))
    scales = 128 * (4 + 8) * 2  # a float32 scale and an int64 zero point a channel, of weights and bias
    assert abs(saved - (3 * 64 * 128 - scales)) < 600
    weight, bias = constants(layer_model(int8(shape)))
    plain = schema.ModelT.InitFromObj(schema.Model.GetRootAs(layer_model(shape), 0))
    wanted = {
        name: np.frombuffer(bytes(plain.buffers[each.buffer].data), np.float32).reshape(each.shape)
        for each in plain.subgraphs[0].tensors
        for name in ("weight", "bias")
        if name.encode() in each.name
    }
    assert np.abs(weight - wanted["weight"]).max() <= WEIGHT_SCALE / 2 * 1.001
    assert np.abs(bias - wanted["bias"]).max() <= SCALE * WEIGHT_SCALE
