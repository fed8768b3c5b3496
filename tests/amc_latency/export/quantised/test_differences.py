"""Files in which one layer computes something else: it is named, and none after it."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from amc_latency.device.tflite.unpacked import unpacked
from amc_latency.lut.tflite.builder import packed
from torch import Tensor, nn
from torch.nn import functional

from amc_latency.export.export import Conversion, ExportError, check_same, converted, frozen, outputs_of_all
from amc_latency.export.quantised.calibration import calibrate
from amc_latency.export.quantised.differences import differences, differing_layer, first_difference
from amc_latency.export.quantised.recipe import quantise
from amc_latency.graph.rewriting.normal_form import normal_form

IMAGE = (3, 16, 16)


class Mixed(nn.Module):
    """A sum, a join, batch norms, a padded pool, a depthwise layer, a flattened map."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.point, self.pool = nn.Conv2d(8, 8, 1), nn.AvgPool2d(3, 2, 1, count_include_pad=False)
        self.head = nn.Linear(16 * 16, 5)
        self.norm.running_mean.normal_()
        self.norm.weight.data.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu6(self.norm(self.stem(x)))
        y = self.point(torch.relu(self.deep(x))) + x
        z = self.pool(torch.cat([x, y], 1))
        return torch.softmax(self.head(z.flatten(1)), 1)


IMAGES = torch.randn(30, *IMAGE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def file() -> Conversion:
    return converted(normal_form(frozen(Mixed()), IMAGE), IMAGE)


@pytest.mark.parametrize("every", [1, 2, 3])
def test_fake_quantisation_and_the_file_differ_by_rounding_alone(file: Conversion, every: int) -> None:
    assert file.graph is not None
    assert file.network is not None
    layers = len(file.graph.architecture.layers)
    policy = tuple("float32" if every > 1 and layer % every == 0 else "int8" for layer in range(layers))
    made = quantise(calibrate(file, IMAGES), policy)
    assert made.policy == policy
    found = differences(file.network, file.graph, file.operators, made.content, policy, IMAGES[:6], IMAGES[:6])
    assert [each.layer for each in found] == list(range(layers))
    for each in found:
        assert each.in_steps == (policy[each.layer] == "int8")
        # A value lies half a step from its integer; the averages are rounded, and then enlarged at the border.
        assert each.off < (2.5 if each.in_steps else 1e-5), each.text
    assert np.median([each.off for each in found if each.in_steps]) < 0.6
    assert first_difference(found, file.operators) is None


def test_a_layer_with_other_weights_in_the_file_is_named(file: Conversion) -> None:
    assert file.graph is not None
    made = quantise(calibrate(file, IMAGES), ("int8",) * len(file.graph.architecture.layers))
    model = unpacked(made.content)
    tensors = model.subgraphs[0].tensors
    (point,) = [layer for layer, name in enumerate(file.graph.layer_names) if name == "point"]
    output = file.operators[point][-1].output.encode()
    (operator,) = [each for each in model.subgraphs[0].operators if tensors[each.outputs[0]].name == output]
    weight = tensors[operator.inputs[1]]
    model.buffers[weight.buffer].data = np.array(model.buffers[weight.buffer].data)
    model.buffers[weight.buffer].data[:16] ^= 0x40
    said = differing_layer(file, packed(model), made.policy, IMAGES[:4], IMAGES[:4])
    assert said is not None
    assert said.startswith("point (CONV_2D) is the first whose output is off, by ")
    assert said.endswith(" steps, given the file's inputs")
    assert differing_layer(replace(file, network=None), packed(model), made.policy, IMAGES[:4], IMAGES[:4]) is None


def test_a_float_file_that_is_not_the_network_says_where() -> None:
    network = normal_form(frozen(Mixed()), IMAGE)
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.get_submodule("deep").weight.mul_(1.1)
    file = converted(network, IMAGE)
    wrong = replace(file, content=converted(other, IMAGE).content)
    expected = outputs_of_all(network, IMAGES[:2])
    check_same(network, file, IMAGES[:2], expected)
    with pytest.raises(
        ExportError, match=r"not kept\. deep \(DEPTHWISE_CONV_2D\) is the first .* % of its range, given"
    ):
        check_same(network, wrong, IMAGES[:2], expected)
