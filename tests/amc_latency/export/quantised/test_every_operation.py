"""Each operation that the walk knows, in int8: what shapes say of it is what its file is, and is what it computes."""

from __future__ import annotations

import pytest
import torch
from amc_latency.lut.shapes.precisions import can_be

from amc_latency.export.export import converted, frozen
from amc_latency.export.quantised.calibration import calibrate
from amc_latency.export.quantised.differences import differences, first_difference
from amc_latency.export.quantised.recipe import quantise
from tests.amc_latency.op_networks import CASES


@pytest.mark.parametrize("name", CASES)
def test_an_int8_file_of_it(name: str) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    images = torch.randn(24, *case.image)
    file = converted(frozen(case.build()), case.image)
    assert file.graph is not None
    assert file.network is not None
    shapes = file.graph.architecture.shapes()
    made = quantise(calibrate(file, images), ("int8",) * len(shapes))
    for shape, precision in zip(shapes, made.policy, strict=True):
        # A prediction of the network goes by what shapes can be. A max pool of what is below zero can be int8 where
        # TFLite's own padding will do, which its shape leaves open.
        if shape.kind != "signed_max_pool":
            assert (precision == "int8") == can_be(shape, "int8"), shape
    given = file.network, file.graph, file.operators, made.content, made.policy, images[:3], images[:3]
    first = first_difference(differences(*given), file.operators)
    assert first is None, first.text
