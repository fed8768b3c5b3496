"""Which layers can be int8: as the registry says, ai-edge-quantizer does."""

from __future__ import annotations

import pytest
import torch
from amc_latency.lut.shapes.precisions import can_be

from amc_latency.export.quantised.export import calibration_of, source_of
from amc_latency.export.quantised.recipe import quantise
from tests.amc_latency.op_networks import CASES


@pytest.mark.parametrize(
    "name",
    [
        *("activations as modules", "prelu, of a slope a channel and of one", "activations as clamps", "softmax"),
        *("slices by index", "numbers", "shuffle", "upsampling", "transposed convolutions", "pools as functions"),
    ],
)
def test_a_layer_that_can_be_int8_is_quantised(name: str) -> None:
    case = CASES[name]
    source = source_of(case.build().eval(), case.image)
    images = torch.randn(20, *case.image, generator=torch.Generator().manual_seed(0))
    made = quantise(calibration_of(source, images), ("int8",) * len(source.graph.layer_nodes))
    for layer, precision in zip(source.graph.architecture.layers, made.policy, strict=True):
        if layer.shape.kind == "signed_max_pool":
            # Some of them can, where TensorFlow's own padding is theirs; none needs to.
            assert not can_be(layer.shape, "int8")
        else:
            assert can_be(layer.shape, "int8") == (precision == "int8"), layer.shape
