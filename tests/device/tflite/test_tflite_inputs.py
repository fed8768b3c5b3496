"""Inputs whose sizes a `.tflite` leaves open: refused, or run at what was asked for on every runtime."""

from __future__ import annotations

import flatbuffers
import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from amc_latency.device.gpu.tflite_torch import load_module
from amc_latency.device.rounds.measure import BadModelError
from amc_latency.device.tflite.tflite_inputs import sized, tflite_inputs
from amc_latency.lut.tflite.writer import TfliteGraph
from torch.nn import functional as F

RNG = np.random.default_rng(0)
WEIGHT = RNG.uniform(-1, 1, (8, 3, 3, 3)).astype(np.float32)


class OpenGraph(TfliteGraph):
    """A graph whose file leaves sizes of its inputs open."""

    def open(self, *signatures: list[int]) -> None:
        for index, signature in zip(self._inputs, signatures, strict=True):
            self._subgraph.tensors[index].shapeSignature = np.array(signature, np.int32)


def conv_file(signature: list[int], height: int = 1, width: int = 1) -> bytes:
    """A padded convolution of 3 to 8 channels and a global average."""
    graph = OpenGraph()
    image = graph.input(height, width, 3)
    graph.open(signature)
    features = graph.conv(image, WEIGHT, np.zeros(8, np.float32), stride=1, padding=1)
    return graph.finish([graph.global_pool(features)])


def two_inputs() -> bytes:
    graph = OpenGraph()
    one, other = graph.input(1, 1, 3), graph.input(1, 1, 3)
    graph.open([-1, -1, -1, 3], [1, -1, -1, 3])
    return graph.finish([graph.add(one, other)])


def litert(model: bytes, image: np.ndarray) -> np.ndarray:
    interpreter = Interpreter(model_content=model)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def test_a_file_of_one_pixel_computes_the_whole_image() -> None:
    model = sized(conv_file([-1, -1, -1, 3]), ["1x20x24x3"])
    image = RNG.uniform(-1, 1, (1, 20, 24, 3)).astype(np.float32)
    nchw, weight = torch.from_numpy(image.transpose(0, 3, 1, 2)), torch.from_numpy(WEIGHT.transpose(0, 3, 1, 2))
    expected = F.conv2d(nchw, weight, padding=1).mean((2, 3)).numpy()
    assert np.allclose(litert(model, image), expected, atol=1e-5)
    # The GPU's worker reads shapes from the file.
    module = load_module(model)
    assert [tuple(values.shape) for values in module.random_inputs(1, torch.float32, "cpu")] == [(1, 3, 20, 24)]
    assert np.allclose(module(nchw)[0].numpy(), expected, atol=1e-5)


def test_every_tensor_has_its_shape_and_nothing_else_changes() -> None:
    before = conv_file([-1, -1, -1, 3])
    after = sized(before, ["1x6x10x3"])
    graph = schema.Model.GetRootAs(after, 0).Subgraphs(0)
    shapes = {tuple(graph.Tensors(index).ShapeAsNumpy()) for index in range(graph.TensorsLength())}
    assert {(1, 6, 10, 3), (1, 6, 10, 8), (1, 8)} <= shapes
    assert len(after) == len(before)
    assert tflite_inputs(after)[0].open == (False,) * 4
    changed = [at for at, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    # Two sizes of each feature map, and three of the signature, of four bytes each.
    assert len(changed) <= 4 * (2 + 2 + 2 + 3)


@pytest.mark.parametrize(
    ("signature", "refused"),
    [
        ([-1, -1, -1, 3], True),
        ([1, -1, 1, 3], True),
        ([1, 1, -1, 3], True),
        ([1, 1, 1, -1], True),
        # A batch of one is what everybody means.
        ([-1, 1, 1, 3], False),
        ([1, 1, 1, 3], False),
    ],
)
def test_a_placeholder_is_refused_with_advice(signature: list[int], refused: bool) -> None:
    model = conv_file(signature)
    if not refused:
        assert sized(model, []) is model
        return
    with pytest.raises(BadModelError, match=r"leaves sizes of its input open: x \(.*`input_shapes`"):
        sized(model, [])


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("1x224x224", "does not fit the file's input x"),
        ("1x224x224x4", "does not fit"),
        ("1x224x224x3x1", "does not fit"),
        ("1x0x224x3", "is no shape"),
        ("1,224,224,3", "is no shape"),
        ("", "is no shape"),
        ("1x-1x224x3", "is no shape"),
        ("y=1x224x224x3", "no such input"),
        ("1x99999x99999x3", "values, more than"),
    ],
)
def test_a_wrong_shape_is_refused_in_a_line(given: str, complaint: str) -> None:
    with pytest.raises(BadModelError, match=complaint) as refusal:
        sized(conv_file([-1, -1, -1, 3]), [given])
    assert "\n" not in str(refusal.value)


def test_sizes_that_the_file_fixes_stay() -> None:
    with pytest.raises(BadModelError, match=r"x \(1x16x16x3\): only \? can be chosen"):
        sized(conv_file([1, 16, 16, 3], 16, 16), ["1x32x32x3"])
    with pytest.raises(BadModelError, match=r"x \(1x\?x16x3\)"):
        sized(conv_file([1, -1, 16, 3], 16, 16), ["1x32x32x3"])


def test_several_inputs_by_name_or_in_order() -> None:
    for given in (["1x4x6x3", "1x4x6x3"], ["x1=1x4x6x3", "1x4x6x3"], ["x=1x4x6x3", "x1=1x4x6x3"]):
        assert [each.shape for each in tflite_inputs(sized(two_inputs(), given))] == [(1, 4, 6, 3)] * 2
    with pytest.raises(BadModelError, match=r"open: x \(\?x\?x\?x3\), x1 \(1x\?x\?x3\).*`input_shapes` x1=1x224x224x3"):
        sized(two_inputs(), ["x=1x4x6x3"])
    with pytest.raises(BadModelError, match="no further input"):
        sized(two_inputs(), ["1x4x6x3"] * 3)
    with pytest.raises(BadModelError, match="was given a shape before"):
        sized(two_inputs(), ["x=1x4x6x3", "x=1x4x6x3"])
    with pytest.raises(BadModelError, match="can't be run at 1x4x6x3, 1x5x7x3"):
        sized(two_inputs(), ["1x4x6x3", "1x5x7x3"])


def test_a_damaged_file_is_named() -> None:
    model = conv_file([-1, -1, -1, 3])
    with pytest.raises(BadModelError, match="damaged"):
        sized(model[:8] + b"\xff" * 40, [])


def test_a_small_file_of_more_inputs_sizes_or_letters_than_any_network_is_refused_at_once() -> None:
    model = schema.ModelT.InitFromPackedBuf(conv_file([1, 8, 8, 3], 8, 8), 0)
    graph = model.subgraphs[0]
    image = graph.tensors[graph.inputs[0]]
    for holder, field, value, what in (
        (graph, "inputs", np.full(100_000, graph.inputs[0], np.int32), "100,000 inputs"),
        (image, "shape", np.ones(100_000, np.int32), "100,000 sizes"),
        (image, "shapeSignature", np.ones(100_000, np.int32), "100,000 sizes"),
        (image, "name", b"n" * 100_000, "100,000 bytes of an input's name"),
    ):
        kept = getattr(holder, field)
        setattr(holder, field, value)
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        with pytest.raises(BadModelError, match=f"the file has {what}"):
            tflite_inputs(bytes(builder.Output()))
        setattr(holder, field, kept)


def test_a_name_is_shown_on_one_line() -> None:
    model = schema.ModelT.InitFromPackedBuf(conv_file([1, -1, -1, 3]), 0)
    graph = model.subgraphs[0]
    graph.tensors[graph.inputs[0]].name = b"\x1b[2J\n" + b"n" * 500
    builder = flatbuffers.Builder(1 << 12)
    builder.Finish(model.Pack(builder), b"TFL3")
    with pytest.raises(BadModelError, match=r"open: \\x1b\[2J\\nn{100,200}\.\.\. \(1x\?x\?x3\); say") as caught:
        sized(bytes(builder.Output()), [])
    assert len(str(caught.value)) < 400
