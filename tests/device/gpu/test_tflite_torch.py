"""A `.tflite` as a PyTorch module: its outputs against LiteRT's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from amc_latency.device.gpu.tflite_torch import TfliteModule, load_module
from amc_latency.device.tflite.tflite_file import UnsupportedModelError
from amc_latency.lut.building.layer_model import layer_model
from amc_latency.lut.shapes.activations import write as write_activation
from amc_latency.lut.shapes.kinds.pools import max_pool
from amc_latency.lut.shapes.shape import ACTIVATIONS, NOOP, LayerShape
from amc_latency.lut.tflite.writer import TfliteGraph

from amc_latency.export.export import to_tflite
from amc_latency.models.load import NetworkOptions, load_network
from amc_latency.models.untrained import with_norm_statistics

OP, OPTIONS, PADDING, FUSED = (
    schema.BuiltinOperator,
    schema.BuiltinOptions,
    schema.Padding,
    schema.ActivationFunctionType,
)
RNG = np.random.default_rng(0)
TWO_STEPS = ("silu", "hard_sigmoid")
"""Activations that TFLite has no operator of its own for."""


class Graph(TfliteGraph):
    """Takes any operator, so that files are tested which this project does not write."""

    def op(self, code: int, inputs: list[int], out: tuple[int, ...], kind: int = 0, options: Any = None) -> int:
        return self._operator(code, inputs, out, kind, options)

    def value(self, values: Any) -> int:
        return self.constant("constant", np.asarray(values))


def floats(*shape: int) -> np.ndarray:
    return RNG.uniform(-1, 1, shape).astype(np.float32)


def litert(model: bytes, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Image by image: the file's own batch is one."""
    interpreter = Interpreter(model_content=model)
    interpreter.allocate_tensors()
    found = []
    for image in range(len(inputs[0])):
        for details, values in zip(interpreter.get_input_details(), inputs, strict=True):
            interpreter.set_tensor(details["index"], values[image : image + 1])
        interpreter.invoke()
        found.append([interpreter.get_tensor(details["index"]) for details in interpreter.get_output_details()])
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def ours(module: TfliteModule, inputs: list[np.ndarray]) -> list[np.ndarray]:
    tensors = [torch.from_numpy(values) for values in inputs]
    with torch.inference_mode():
        outputs = module(*(each.permute(0, 3, 1, 2) if each.dim() == 4 else each for each in tensors))
    return [(each.permute(0, 2, 3, 1) if each.dim() == 4 else each).numpy() for each in outputs]


def check(model: bytes, low: float = -3.0, batch: int = 3) -> TfliteModule:
    """Inputs reach beyond 6, so that a missing ReLU6 shows."""
    module = load_module(model)
    inputs = [RNG.uniform(low, 9, (batch, *shape[1:])).astype(np.float32) for shape in module.input_shapes]
    expected, found = litert(model, inputs), ours(module, inputs)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    return module


@pytest.mark.parametrize(
    "shape",
    [
        NOOP,
        LayerShape("conv", 5, 7, 9, 11, 3, 2, 1, "relu6"),
        LayerShape("conv", 5, 7, 8, 8, 3, 2, 1, "relu6"),
        LayerShape("conv", 5, 7, 8, 8, 3, 1, 1, "relu"),
        LayerShape("conv", 8, 24, 6, 6),
        LayerShape("conv", 3, 4, 12, 12, 7, 2, 3),
        LayerShape("depthwise", 6, 6, 8, 8, 3, 1, 1, "relu6"),
        LayerShape("depthwise", 6, 6, 8, 8, 3, 2, 1),
        LayerShape("linear", 9, 5, activation="relu"),
        LayerShape("add", 4, 4, 5, 6, activation="relu6"),
        LayerShape("avg_pool", 4, 4, 8, 8, 3, 2, 1),
        LayerShape("avg_pool", 4, 4, 8, 8, 2, 2),
        LayerShape("global_pool", 6, 6, 7, 5),
        LayerShape("conv", 5, 7, 9, 9, 3, 1, 2, dilation=2),
        LayerShape("conv", 5, 7, 8, 8, 3, 2, activation="relu", end=1),
        LayerShape("grouped", 6, 6, 8, 8, 3, 2, 1, "relu", per_group=2),
        LayerShape("depthwise", 6, 6, 9, 9, 3, 1, 2, dilation=2),
        LayerShape("max_pool", 4, 4, 8, 8, 3, 2, end=1),
        LayerShape("avg_pool", 4, 4, 8, 8, 3, 2, end=1),
        LayerShape("transposed", 6, 4, 5, 6, 2, 2, 0, "relu6"),
        LayerShape("transposed", 6, 4, 5, 6, 4, 2, 1),
        LayerShape("transposed", 6, 4, 5, 6, 3, 1, 1),
        LayerShape("transposed", 6, 4, 5, 6, 3, 2, 0, end=1),
        LayerShape("transposed", 6, 4, 5, 6, 3, 2, 1, "relu", end=1),
        LayerShape("mul", 4, 4, 5, 6, activation="relu6"),
        LayerShape("scale", 4, 4, 5, 6),
        LayerShape("concat", 14, 14, 5, 6, parts=4),
        LayerShape("slice", 7, 3, 5, 6),
        LayerShape("softmax", 7, 7, 5, 6),
        LayerShape("nearest", 4, 4, 5, 6, stride=3),
        LayerShape("bilinear", 4, 4, 5, 6, stride=2),
        *(LayerShape("activation", 4, 4, 5, 6, activation=name) for name in ACTIVATIONS[1:] if name not in TWO_STEPS),
    ],
    ids=str,
)
def test_layers_compute_what_litert_computes(shape: LayerShape) -> None:
    module = check(layer_model(shape))
    assert len(module._steps) == 1, "a padding is a copy of its own"


@pytest.mark.parametrize(
    "shape",
    [
        LayerShape("shuffle", 6, 6, 5, 4, parts=3),
        LayerShape("transposed", 6, 4, 5, 6, 1, 2),
        LayerShape("avg_pool", 4, 4, 9, 8, 3, 2, end=1),
        *(LayerShape("activation", 4, 4, 5, 6, activation=name) for name in TWO_STEPS),
    ],
    ids=str,
)
def test_layers_of_several_operators(shape: LayerShape) -> None:
    check(layer_model(shape))


@pytest.mark.parametrize("size", [8, 9])
def test_a_max_pool_as_it_is_written_after_a_relu(size: int) -> None:
    module = check(layer_model(LayerShape("max_pool", 4, 4, size, size, 3, 2, 1)), low=0)
    assert len(module._steps) == 1
    (values,) = module.random_inputs(2, torch.float32, "cpu")
    # On 9 pixels TFLite's own padding will do, which no value loses to.
    assert (values.min() >= 0) == (size == 8)


def test_a_max_pool_of_anything_is_never_won_by_its_padding() -> None:
    graph = TfliteGraph()
    x = graph.input(8, 8, 3)
    scaled = graph.conv(x, floats(3, 1, 1, 3), np.full(3, -50, np.float32))
    module = check(graph.finish([max_pool(graph, scaled, 3, 2, 1)]))
    assert len(module._steps) == 2


def test_zeros_before_a_max_pool_that_may_be_negative_stay() -> None:
    graph = Graph()
    x = graph.conv(graph.input(8, 8, 3), floats(3, 1, 1, 3), np.full(3, -50, np.float32))
    padded = graph.op(OP.PAD, [x, graph.value(np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32))], (1, 10, 10, 3))
    check(graph.finish([max_pool(graph, padded, 3, 2)]))


@pytest.mark.parametrize("size", [(8, 9), (7, 12)])
@pytest.mark.parametrize("kind", ["conv", "depthwise", "grouped", "dilated", "avg", "max"])
def test_tensorflows_own_padding(kind: str, size: tuple[int, int]) -> None:
    graph = Graph()
    x, (h, w) = graph.input(*size, 4), size
    stride = 1 if kind == "dilated" else 2
    out = (1, -(-h // stride), -(-w // stride), 4)
    fused = FUSED.RELU_N1_TO_1
    bias = graph.value(floats(4))
    match kind:
        case "avg" | "max":
            code = OP.AVERAGE_POOL_2D if kind == "avg" else OP.MAX_POOL_2D
            options = schema.Pool2DOptionsT(PADDING.SAME, 2, 2, 3, 3)
            y = graph.op(code, [x], out, OPTIONS.Pool2DOptions, options)
        case "depthwise":
            options = schema.DepthwiseConv2DOptionsT(PADDING.SAME, 2, 2, 1, fused, 1, 1)
            weight = graph.value(floats(1, 3, 3, 4))
            y = graph.op(OP.DEPTHWISE_CONV_2D, [x, weight, bias], out, OPTIONS.DepthwiseConv2DOptions, options)
        case _:
            spread, inputs = (2 if kind == "dilated" else 1), (2 if kind == "grouped" else 4)
            options = schema.Conv2DOptionsT(PADDING.SAME, stride, stride, fused, spread, spread)
            weight = graph.value(floats(4, 3, 3, inputs))
            y = graph.op(OP.CONV_2D, [x, weight, bias], out, OPTIONS.Conv2DOptions, options)
    check(graph.finish([y]))


def test_zeros_before_a_max_pool_fold_where_a_gate_keeps_all_above_zero() -> None:
    graph = TfliteGraph()
    x = write_activation(graph, graph.conv(graph.input(8, 8, 4), floats(4, 1, 1, 4), floats(4)), "relu")
    gated = graph.mul(x, write_activation(graph, graph.global_pool(x, keep_dims=True), "hard_sigmoid"))
    module = check(graph.finish([max_pool(graph, graph.concat([gated, x]), 3, 2, 1)]))
    # Two for the hard sigmoid, none for the padding.
    assert len(module._steps) == 8


def test_the_other_operators() -> None:
    graph = Graph()
    x = graph.input(4, 5, 6)
    size = (1, 4, 5, 6)
    scale = graph.value(floats(6))
    y = graph.op(OP.MUL, [x, scale], size, OPTIONS.MulOptions, schema.MulOptionsT())
    y = graph.op(OP.ADD, [y, graph.value(floats(1, 4, 5, 1))], size, OPTIONS.AddOptions, schema.AddOptionsT())
    swish = graph.op(OP.HARD_SWISH, [y], size, OPTIONS.HardSwishOptions, schema.HardSwishOptionsT())
    parts = [graph.op(code, [swish], size) for code in (OP.RELU, OP.RELU6, OP.LOGISTIC)]
    joined = graph.op(
        OP.CONCATENATION,
        parts,
        (1, 4, 5, 18),
        OPTIONS.ConcatenationOptions,
        schema.ConcatenationOptionsT(axis=-1),
    )
    pooled = graph.global_pool(joined)
    squeezed = graph.op(
        OP.MUL,
        [joined, graph.op(OP.RESHAPE, [pooled, graph.value(np.array([1, 1, 1, 18], np.int32))], (1, 1, 1, 18))],
        (1, 4, 5, 18),
        OPTIONS.MulOptions,
        schema.MulOptionsT(FUSED.RELU),
    )
    flat = graph.flatten(squeezed)
    logits = graph.linear(flat, floats(7, 4 * 5 * 18), floats(7))
    chances = graph.op(OP.SOFTMAX, [logits], (1, 7), OPTIONS.SoftmaxOptions, schema.SoftmaxOptionsT(beta=1.0))
    check(graph.finish([chances, squeezed]))


def test_a_padding_of_one_side_is_a_step_of_its_own() -> None:
    graph = Graph()
    x = graph.input(6, 6, 3)
    sides = graph.value(np.array([[0, 0], [0, 1], [0, 1], [0, 0]], np.int32))
    padded = graph.op(OP.PAD, [x, sides], (1, 7, 7, 3), OPTIONS.PadOptions, schema.PadOptionsT())
    module = check(graph.finish([graph.conv(padded, floats(4, 3, 3, 3), floats(4), 2)]))
    assert len(module._steps) == 2


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "resnet18"])
def test_whole_networks_compute_what_litert_computes(name: str) -> None:
    network = with_norm_statistics(load_network(NetworkOptions(name, input="3x64x64", classes=10)))
    module = check(to_tflite(network.model, network.spec.input), low=-9, batch=2)
    shapes = network.graph.architecture.shapes()
    # A step a layer: no copy is paid for that PyTorch's own network does not pay for.
    assert len(module._steps) == len(shapes)


def test_feature_maps_stay_in_channels_last_memory() -> None:
    module = load_module(layer_model(LayerShape("conv", 8, 16, 6, 6, 3, 2, 1, "relu6")))
    module.to(memory_format=torch.channels_last)
    (x,) = module.random_inputs(4, torch.float32, "cpu")
    assert x.shape == (4, 8, 6, 6)
    assert -1 <= x.min() < -0.9 < 0.9 < x.max() < 1
    (y,) = module(x)
    for tensor in (x, y, module._steps[0].constants[0]):
        assert tensor.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(x, module.random_inputs(4, torch.float32, "cpu")[0])


def rounded() -> bytes:
    graph = Graph()
    x = graph.absolute(graph.input(4, 5, 6))
    return graph.finish([graph.op(OP.ROUND, [x], (1, 4, 5, 6))])


def moved_images() -> bytes:
    graph = Graph()
    order = graph.value(np.array([1, 0, 2, 3], np.int32))
    return graph.finish([graph.op(OP.TRANSPOSE, [graph.input(1, 5, 6), order], (1, 1, 5, 6))])


def stretched(bilinear: bool) -> bytes:
    graph = Graph()
    x, size = graph.input(4, 4, 6), graph.value(np.array([8, 8 if bilinear else 7], np.int32))
    if bilinear:
        aligned = schema.ResizeBilinearOptionsT(alignCorners=True)
        return graph.finish(
            [graph.op(OP.RESIZE_BILINEAR, [x, size], (1, 8, 8, 6), OPTIONS.ResizeBilinearOptions, aligned)]
        )
    kind, plain = OPTIONS.ResizeNearestNeighborOptions, schema.ResizeNearestNeighborOptionsT()
    return graph.finish([graph.op(OP.RESIZE_NEAREST_NEIGHBOR, [x, size], (1, 8, 7, 6), kind, plain)])


def mixed_images() -> bytes:
    graph = Graph()
    x = graph.input(4, 5, 6)
    return graph.finish([graph.op(OP.RESHAPE, [x, graph.value(np.array([20, 6], np.int32))], (20, 6))])


def standing_still() -> bytes:
    graph = Graph()
    options = schema.Pool2DOptionsT(strideH=0, strideW=1, filterHeight=2, filterWidth=2)
    return graph.finish(
        [graph.op(OP.MAX_POOL_2D, [graph.input(4, 4, 6)], (1, 4, 4, 6), OPTIONS.Pool2DOptions, options)]
    )


def joined_into_a_number() -> bytes:
    graph = Graph()
    parts = [graph.input(2, 2, 1), graph.input(2, 2, 1)]
    options = schema.ConcatenationOptionsT(axis=3)
    return graph.finish([graph.op(OP.CONCATENATION, parts, (), OPTIONS.ConcatenationOptions, options)])


def no_weights() -> bytes:
    model, four, none = layer_model(LayerShape("conv", 7, 8, 4, 4)), (8, 1, 1, 7), (8, 1, 1, 0)
    assert np.array(four, np.int32).tobytes() in model
    return model.replace(np.array(four, np.int32).tobytes(), np.array(none, np.int32).tobytes())


def nothing_stretched() -> bytes:
    graph = Graph()
    x, size = graph.input(0, 4, 6), graph.value(np.array([8, 8], np.int32))
    kind, plain = OPTIONS.ResizeNearestNeighborOptions, schema.ResizeNearestNeighborOptionsT()
    return graph.finish([graph.op(OP.RESIZE_NEAREST_NEIGHBOR, [x, size], (1, 8, 8, 6), kind, plain)])


def whole_numbers() -> bytes:
    graph = Graph()
    sizes = graph.value(np.array([1, 2], np.int32))
    graph.input(4)
    graph._inputs.append(sizes)
    return graph.finish([0])


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (rounded, "operator 1, ROUND, can't be computed: known are CONV_2D"),
        (moved_images, "operator 0, TRANSPOSE, can't be computed: it moves the batch"),
        (lambda: stretched(bilinear=True), "RESIZE_BILINEAR, can't be computed: it enlarges otherwise"),
        (lambda: stretched(bilinear=False), "RESIZE_NEAREST_NEIGHBOR, can't be computed: it enlarges otherwise"),
        (mixed_images, r"operator 0, RESHAPE, can't be computed: from \[1, 4, 5, 6\] to \[20, 6\]"),
        (whole_numbers, r"tensor 0 \(op000_constant\) is int32; only float32"),
        (standing_still, "MAX_POOL_2D, can't be computed: its stride is 0x1"),
        (joined_into_a_number, "CONCATENATION, can't be computed: it has a tensor without dimensions"),
        (no_weights, "damaged|can't be computed"),
        (nothing_stretched, "RESIZE_NEAREST_NEIGHBOR, can't be computed: it enlarges otherwise"),
        (lambda: b"no model at all", "no .tflite"),
        (lambda: layer_model(NOOP)[:60], "damaged"),
    ],
)
def test_what_cannot_be_computed_is_named(model: Callable[[], bytes], says: str) -> None:
    with pytest.raises(UnsupportedModelError, match=says):
        load_module(model())


@pytest.mark.timeout(20)
@pytest.mark.parametrize("sums", [40, 2000])
def test_sums_of_sums_before_a_pool_are_looked_at_once_each(sums: int) -> None:
    graph = Graph()
    x = graph.input(8, 8, 1)
    for _ in range(sums):
        x = graph.add(x, x)
    padded = graph.op(OP.PAD, [x, graph.value(np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32))], (1, 10, 10, 1))
    module = load_module(graph.finish([max_pool(graph, padded, 3, 2)]))
    assert len(module._steps) == sums + 1
    (values,) = module.random_inputs(1, torch.float32, "cpu")
    assert values.min() >= 0
