"""Files whose constants lie behind the FlatBuffer, as ai-edge-quantizer writes large ones."""

from __future__ import annotations

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from amc_latency.device.tflite.tflite_file import UnsupportedModelError
from amc_latency.device.tflite.tflite_inputs import tflite_inputs
from amc_latency.device.tflite.unpacked import unpacked
from amc_latency.lut.building.layer_model import layer_model
from amc_latency.lut.shapes.shape import LayerShape
from amc_latency.lut.tflite.builder import packed
from amc_latency.lut.tflite.run import run_tflite, tflite_ops

LAYER = LayerShape("conv", 256, 512, 8, 8, 1, 1, 0, "relu6")
"""of 512 kB of weights: the quantizer keeps up to 256 kB within."""


@pytest.fixture(scope="module")
def moved() -> bytes:
    """A layer's file with its weights moved behind the FlatBuffer, by hand."""
    content = layer_model(LAYER)
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    sizes = [0 if each.data is None else len(each.data) for each in model.buffers]
    largest = int(np.argmax(sizes))
    data = model.buffers[largest].data.tobytes()
    # 1 and 1 first, so that the fields have their place; then where the bytes are.
    model.buffers[largest] = schema.BufferT(data=None, offset=1, size=1)
    start = -(-len(packed(model)) // 16) * 16
    model.buffers[largest] = schema.BufferT(data=None, offset=start, size=len(data))
    return packed(model).ljust(start, b"\0") + data


def test_constants_behind_the_flatbuffer_are_read(moved: bytes) -> None:
    plain = layer_model(LAYER)
    image = np.random.default_rng(0).uniform(-1, 1, (1, 256, 8, 8)).astype(np.float32)
    # LiteRT, which reads both, says that the file was moved rightly.
    np.testing.assert_array_equal(run_tflite(moved, image), run_tflite(plain, image))
    own = [each.data.tobytes() for each in unpacked(moved).buffers if each.data is not None]
    assert own == [each.data.tobytes() for each in unpacked(plain).buffers if each.data is not None]
    assert packed(unpacked(moved)) == packed(unpacked(plain))
    assert tflite_ops(moved) == {"CONV_2D": 1}
    assert tflite_inputs(moved) == tflite_inputs(plain)


def test_a_file_that_was_cut_off_is_refused(moved: bytes) -> None:
    with pytest.raises(UnsupportedModelError, match="ends before its constants do"):
        unpacked(moved[:-100])
    with pytest.raises(UnsupportedModelError, match="damaged"):
        unpacked(moved[:40])
    with pytest.raises(UnsupportedModelError, match=r"no \.tflite"):
        unpacked(b"")


def by_quantizer(recipe: str) -> bytes:
    """The layer by a recipe of ai-edge-quantizer's own."""
    from ai_edge_quantizer import recipe as recipes
    from ai_edge_quantizer.quantizer import Quantizer

    content = layer_model(LAYER)
    quantizer = Quantizer(bytearray(content), getattr(recipes, recipe)())
    images = [{"x": np.random.default_rng(0).uniform(-1, 1, (1, 8, 8, 256)).astype(np.float32)} for _ in range(3)]
    ranges = quantizer.calibrate({"serving_default": images}, num_threads=1) if quantizer.need_calibration else None
    return bytes(quantizer.quantize(ranges, enable_progress_report=False).quantized_model)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ("static_wi8_ai8", r"is quantised: tensor \d+ \(.*\) is int8"),
        ("dynamic_wi8_afp32", r"is quantised: tensor \d+ \(op000_weight\) is int8"),
        ("weight_only_wi8_afp32", r"is quantised: tensor \d+ \(op000_weight\) is int8"),
        ("weight_only_wi4_afp32", r"is quantised: tensor \d+ \(op000_weight\) is int4"),
    ],
)
def test_a_gpu_refuses_what_the_quantizer_wrote_and_says_what_it_is(recipe: str, says: str) -> None:
    from amc_latency.device.gpu.tflite_torch import load_module

    model = by_quantizer(recipe)
    # Some of these lie behind the FlatBuffer, and are the same file once packed anew.
    image = np.random.default_rng(1).uniform(-1, 1, (1, 256, 8, 8)).astype(np.float32)
    if "static" not in recipe:
        np.testing.assert_array_equal(run_tflite(packed(unpacked(model)), image), run_tflite(model, image))
    with pytest.raises(UnsupportedModelError, match=f"{says}.*time it on the host or on a phone"):
        load_module(model)
