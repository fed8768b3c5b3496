"""One-layer files: that they are what their shape says, and where LiteRT runs them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from amc_latency.lut.building.layer_model import layer_model
from amc_latency.lut.shapes.shape import ACTIVATIONS, NOOP, LayerShape, ShapeError


def run(shape: LayerShape) -> tuple[Interpreter, list[dict[str, Any]], dict[str, Any]]:
    interpreter = Interpreter(model_content=layer_model(shape))
    interpreter.allocate_tensors()
    sources, (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    draw = np.random.default_rng(0)
    for source in sources:
        interpreter.set_tensor(source["index"], draw.normal(size=source["shape"]).astype(np.float32))
    interpreter.invoke()
    return interpreter, sources, target


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
    LayerShape("avg_pool", 24, 24, 14, 14, 3, 2, end=1),
    LayerShape("max_pool", 24, 24, 14, 14, 3, 2, end=1),
    LayerShape("conv", 24, 16, 14, 14, 3, 1, 2, "relu", dilation=2),
    LayerShape("conv", 3, 16, 14, 14, 3, 2, activation="relu6", end=1),
    LayerShape("depthwise", 24, 24, 14, 14, 5, 2, 1, end=1),
    LayerShape("depthwise", 24, 24, 7, 7, activation="relu"),
    LayerShape("grouped", 24, 24, 14, 14, 3, 2, 1, "relu", per_group=8),
    LayerShape("transposed", 24, 16, 7, 7, 2, 2, 0, "relu"),
    LayerShape("transposed", 24, 16, 7, 7, 4, 2, 1),
    LayerShape("transposed", 24, 16, 7, 7, 3, 2, 0, end=1),
    LayerShape("mul", 24, 24, 7, 7),
    LayerShape("scale", 24, 24, 7, 7, activation="relu"),
    LayerShape("concat", 24, 24, 7, 7, parts=5),
    LayerShape("slice", 24, 10, 7, 7),
    LayerShape("shuffle", 24, 24, 7, 7, parts=3),
    LayerShape("softmax", 24, 24),
    LayerShape("bilinear", 24, 24, 7, 7, stride=2),
    *(LayerShape("activation", 24, 24, 7, 7, activation=name) for name in ACTIVATIONS[1:]),
    NOOP,
]
OUTSIDE = [
    LayerShape("nearest", 24, 24, 7, 7, stride=2),
    LayerShape("concat", 24, 24, 7, 7, parts=7),
    LayerShape("signed_max_pool", 24, 24, 8, 8, 3, 2, 1),
]
"""What XNNPACK leaves to LiteRT's own kernels."""
INPUTS = {"add": 2, "mul": 2, "scale": 2}


@pytest.mark.parametrize("shape", ONE_OF_EACH, ids=str)
def test_layer_model_runs_in_xnnpack_alone(shape: LayerShape) -> None:
    interpreter, sources, target = run(shape)
    # LiteRT lists the replaced operators too; one delegate that reads the inputs and makes the output ran them all.
    (delegate,) = [op for op in interpreter._get_ops_details() if op["op_name"] == "DELEGATE"]
    assert {source["index"] for source in sources} <= set(delegate["inputs"].tolist())
    assert target["index"] in delegate["outputs"].tolist()


@pytest.mark.parametrize("shape", [*ONE_OF_EACH, *OUTSIDE], ids=str)
def test_layer_model_reads_and_makes_what_its_shape_says(shape: LayerShape) -> None:
    interpreter, sources, target = run(shape)
    assert len(sources) == INPUTS.get(shape.kind, shape.parts if shape.kind == "concat" else 1)
    pixels, channels = shape.h * shape.w, [int(source["shape"][-1]) for source in sources]
    if shape.kind == "concat":
        assert sum(channels) == shape.c_in
        assert max(channels) - min(channels) <= 1
    else:
        assert set(channels) == {shape.c_in}
    sizes = [int(np.prod(source["shape"][1:-1])) for source in sources]
    assert sizes == ([pixels, 1] if shape.kind == "scale" else [pixels] * len(sources))
    assert int(np.prod(target["shape"])) == shape.h_out * shape.w_out * shape.c_out
    assert np.isfinite(interpreter.get_tensor(target["index"])).all()


@pytest.mark.parametrize("shape", ONE_OF_EACH, ids=str)
def test_layer_model_says_what_its_shape_says(shape: LayerShape) -> None:
    """MACs, parameters and the fused activation, read back out of the file."""
    graph = unpacked(layer_model(shape)).subgraphs[0]
    layer = graph.operators[-1]
    tensors = [graph.tensors[index] for index in layer.inputs]
    if shape.params and shape.kind != "activation":
        # A transposed convolution's first input is its output's size, and each pixel that it reads has all weights.
        is_transposed = shape.kind == "transposed"
        weight, bias = (list(tensors[index].shape) for index in ((1, 3) if is_transposed else (1, 2)))
        pixels = np.prod(tensors[2].shape[1:-1] if is_transposed else graph.tensors[layer.outputs[0]].shape[1:-1])
        assert np.prod(weight) * pixels == shape.macs
        assert np.prod(weight) + np.prod(bias) == shape.params
    activation = getattr(layer.builtinOptions, "fusedActivationFunction", 0)
    expected = {"none": 0, "relu": 1, "relu6": 3}  # ActivationFunctionType in schema.fbs
    assert activation == (0 if shape.kind == "activation" else expected[shape.activation])


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


@pytest.mark.parametrize("kind", ["global_pool", "concat", "slice", "shuffle", "softmax", "bilinear", "noop"])
def test_an_activation_that_cannot_be_fused_is_refused(kind: str) -> None:
    with pytest.raises(ShapeError, match="no fused activation"):
        layer_model(LayerShape(kind, 4, 4, 4, 4, activation="relu", parts=2 if kind == "concat" else 1))
