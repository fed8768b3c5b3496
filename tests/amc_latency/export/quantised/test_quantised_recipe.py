"""Quantised files against integer arithmetic done by hand, and against what was asked of each layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from amc_latency.device.tflite.outputs import TfliteRunner
from amc_latency.lut.tflite.run import run_tflite, tflite_ops
from torch import Tensor, nn

from amc_latency.errors import OptionError
from amc_latency.export.export import Conversion, converted, frozen
from amc_latency.export.quantised.calibration import Calibration, calibrate
from amc_latency.export.quantised.policy import policy_of
from amc_latency.export.quantised.recipe import quantise
from amc_latency.graph.rewriting.normal_form import normal_form


def images(n: int, *size: int) -> Tensor:
    return torch.randn(n, *size, generator=torch.Generator().manual_seed(1))


def written(model: nn.Module, *size: int) -> Conversion:
    return converted(normal_form(frozen(model), size), size)


def calibrated(model: nn.Module, *size: int) -> Calibration:
    return calibrate(written(model, *size), images(30, *size))


def tensors_of(content: bytes) -> tuple[Any, dict[str, Any]]:
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    return model, {tensor.name.decode(): tensor for tensor in model.subgraphs[0].tensors}


class Branched(nn.Module):
    """Two sums, so that a tensor has two readers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.right, self.head = nn.Conv2d(8, 8, 1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.left(x) + x)
        x = self.right(x) + x
        return self.head(x.mean((2, 3)))


def test_a_convolution_is_the_integer_arithmetic_of_its_scales() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU6())
    content = quantise(calibrated(model, 4, 6, 6), ("int8",), "int8").content
    file, _ = tensors_of(content)
    (operator,) = file.subgraphs[0].operators
    x, weight, bias, y = (file.subgraphs[0].tensors[i] for i in (*operator.inputs, *operator.outputs))
    w = file.buffers[weight.buffer].data.view(np.int8).reshape(weight.shape).astype(np.int64)
    b = file.buffers[bias.buffer].data.view(np.int32).astype(np.int64)
    np.testing.assert_allclose(bias.quantization.scale, x.quantization.scale * weight.quantization.scale, rtol=1e-6)
    # Weights a channel: the largest of each is 127 steps.
    largest = model[0].weight.detach().flatten(1).abs().amax(1).numpy()
    np.testing.assert_allclose(weight.quantization.scale, largest / 127, rtol=1e-6)
    given = np.random.default_rng(0).integers(-128, 128, (5, 6, 6, 4)).astype(np.int8)
    with TfliteRunner(content) as runner:
        (found,) = runner(given)
    centred = given.astype(np.int64) - x.quantization.zeroPoint[0]
    patches = np.lib.stride_tricks.sliding_window_view(centred, (3, 3), axis=(1, 2))  # [N, 4, 4, in, 3, 3]
    sums = np.einsum("nhwikl,okli->nhwo", patches, w) + b
    real = np.clip(sums * bias.quantization.scale.astype(np.float64), 0, 6)
    steps = np.clip(np.rint(real / y.quantization.scale[0]) + y.quantization.zeroPoint[0], -128, 127)
    assert np.abs(steps - found).max() <= 1
    assert (steps == found).mean() > 0.99


@pytest.mark.parametrize("policy", ["int8", "float32,int8,float32,int8,int8,float32,int8", "float32"])
def test_each_layer_is_what_was_asked_of_it(policy: str) -> None:
    torch.manual_seed(0)
    model = Branched().eval()
    calibration = calibrated(model, 3, 16, 16)
    graph = calibration.file.graph
    assert graph is not None
    names = policy_of(policy, graph)
    made = quantise(calibration, names)
    assert made.policy == names
    assert not made.left_float
    file, tensors = tensors_of(made.content)
    for name, own in zip(names, calibration.file.operators, strict=True):
        assert own
        for operator in own:
            is_int8 = tensors[operator.output].type == schema.TensorType.INT8
            assert is_int8 == (name == "int8"), operator
    # A boundary once for each tensor, whoever reads it.
    codes = {getattr(schema.BuiltinOperator, name) for name in ("QUANTIZE", "DEQUANTIZE")}
    crossed = [
        int(each.inputs[0])
        for each in file.subgraphs[0].operators
        if file.operatorCodes[each.opcodeIndex].builtinCode in codes
    ]
    assert len(crossed) == len(set(crossed)) == {"int8": 2, "float32": 0}.get(policy, len(crossed))
    given = images(8, 3, 16, 16)
    with torch.inference_mode():
        expected = model(given).numpy()
    # Float outputs of a network whose values are of about 1: a step is about a hundredth.
    assert np.abs(run_tflite(made.content, given.numpy()) - expected).max() < (0.2 if "int8" in policy else 1e-5)


def test_what_cannot_be_int8_stays_float32_and_is_named() -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.PReLU(8), nn.MaxPool2d(3, 2, 1), nn.Conv2d(8, 8, 1), nn.ReLU6()]
    calibration = calibrated(nn.Sequential(*layers), 3, 8, 8)
    made = quantise(calibration, ("int8",) * 4)
    assert made.policy == ("int8", "float32", "float32", "int8")
    assert [why.split(":")[0] for why in made.left_float.values()] == ["PRELU", "PADV2"]
    assert list(made.left_float) == [1, 2]
    ops = tflite_ops(made.content)
    # In, out of the first convolution, into the second, out.
    assert (ops["QUANTIZE"], ops["DEQUANTIZE"]) == (2, 2)


def test_channels_without_weights_keep_their_bias() -> None:
    """The quantizer alone writes another bias: steps of 1e-9 / 127 times the input's don't reach it within int32."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    with torch.no_grad():
        model[0].weight[2], model[0].bias[2] = 0, 0.7
        model[2].weight[1], model[2].bias[1] = 0, -0.5
    calibration = calibrated(model, 3, 6, 6)
    content = quantise(calibration, ("int8", "int8")).content
    given = images(20, 3, 6, 6)
    found = run_tflite(content, given.numpy())
    np.testing.assert_allclose(found[:, 1], -0.5, atol=0.01)
    with torch.inference_mode():
        expected = model(given).numpy()
    # By the mean: the ends of ranges, which are moving averages, are cut off.
    assert np.abs(found - expected).mean() < 0.02


def test_a_tensor_that_is_always_zero_has_a_range() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1))
    with torch.no_grad():
        model[0].bias.fill_(-100)
    calibration = calibrated(model, 3, 6, 6)
    assert calibration.still == ("op000_conv_2d",)
    found = run_tflite(quantise(calibration, ("int8", "int8")).content, images(3, 3, 6, 6).numpy())
    expected = model[2].bias.detach().numpy()[None, :, None, None]
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=0.01)


def test_uint8_is_int8_moved_by_128() -> None:
    torch.manual_seed(0)
    calibration = calibrated(Branched(), 3, 16, 16)
    policy = ("int8",) * 7
    bytes_in = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3)).astype(np.uint8)
    files = {io: quantise(calibration, policy, io).content for io in ("int8", "uint8")}
    with TfliteRunner(files["int8"]) as signed, TfliteRunner(files["uint8"]) as unsigned:
        (low,), (high,) = signed((bytes_in.astype(np.int16) - 128).astype(np.int8)), unsigned(bytes_in)
        assert low.dtype == np.int8
        assert high.dtype == np.uint8
        assert (high.astype(int) == low.astype(int) + 128).all()
        for one, other in ((signed.input, unsigned.input), (signed.outputs[0], unsigned.outputs[0])):
            assert one["scale"] == other["scale"]
            assert one["zero_point"] + 128 == other["zero_point"]
    ops = {io: tflite_ops(content) for io, content in files.items()}
    assert ops["uint8"] == {**ops["int8"], "QUANTIZE": 2}
    assert "QUANTIZE" not in ops["int8"]


def test_integers_in_and_out_of_float_layers() -> None:
    torch.manual_seed(0)
    model = Branched().eval()
    made = quantise(calibrated(model, 3, 16, 16), ("float32",) * 7, "uint8")
    given = images(6, 3, 16, 16)
    with TfliteRunner(made.content) as runner:
        assert (runner.input["dtype"], runner.outputs[0]["dtype"]) == ("uint8", "uint8")
        (found,) = runner.real(given.numpy().transpose(0, 2, 3, 1))
    with torch.inference_mode():
        assert np.abs(found - model(given).numpy()).max() < 0.2


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        ("int7", "no precision is called 'int7'; there are float32 and int8. Did you mean 'int8'?"),
        (("int8",) * 3, "`precision` has 3 names, and the network 7 layers: give one for all, or one each"),
        ("int8,int8", "has 2 names, and the network 7 layers"),
        ("", "no precision is called ''"),
    ],
)
def test_policies_that_fit_no_network(precision: Any, message: str) -> None:
    graph = written(Branched(), 3, 16, 16).graph
    assert graph is not None
    with pytest.raises(OptionError) as raised:
        policy_of(precision, graph)
    assert message in str(raised.value)
