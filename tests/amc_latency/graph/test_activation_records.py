"""The records of activations, held against what PyTorch's modules compute."""

from __future__ import annotations

import pytest
import torch
from amc_latency.device.gpu.tflite_ops import OPERATORS
from amc_latency.lut.shapes import shape
from amc_latency.lut.shapes.activations import ACTIVATIONS, write
from amc_latency.lut.tflite.run import tflite_ops
from amc_latency.lut.tflite.writer import TfliteGraph

from amc_latency.graph import operations

VALUES = torch.linspace(-9, 9, 181)
ALONE = [name for name, each in ACTIVATIONS.items() if not each.has_slopes]


def test_both_sides_know_the_same_activations() -> None:
    assert list(operations.ACTIVATIONS) == list(ACTIVATIONS)
    assert tuple(ACTIVATIONS) == shape.ACTIVATIONS[1:]
    assert shape.FUSED_ACTIVATIONS == ("none", "relu", "relu6")


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_what_is_said_of_its_values_holds(name: str) -> None:
    made = operations.ACTIVATIONS[name].module()
    with torch.no_grad():
        found, positive = made(VALUES), made(VALUES.clamp(min=0))
    assert ACTIVATIONS[name].non_negative == bool((found >= 0).all())
    if ACTIVATIONS[name].sign == "keeps":
        assert bool((positive >= 0).all())
    assert sum(parameter.numel() for parameter in made.parameters()) == ACTIVATIONS[name].has_slopes


@pytest.mark.parametrize("name", ALONE)
def test_its_functions_compute_what_its_module_does(name: str) -> None:
    record = operations.ACTIVATIONS[name]
    expected = record.module()(VALUES)
    for function in record.functions:
        found = getattr(VALUES.clone(), function)() if isinstance(function, str) else function(VALUES.clone())
        torch.testing.assert_close(found, expected)
    if record.setting is not None:
        assert getattr(record.module(), record.setting) == record.unset
        assert record.wrong(record.unset) is None


@pytest.mark.parametrize("name", ALONE)
def test_what_is_written_is_what_a_log_and_a_gpu_know(name: str) -> None:
    graph = TfliteGraph()
    ops = tflite_ops(graph.finish([write(graph, graph.input(2, 2, 3), name)]))
    assert ops.keys() <= OPERATORS.keys()
    expected = {"hard_sigmoid": {"ADD", "MUL"}, "silu": {"LOGISTIC", "MUL"}}.get(name) or {ACTIVATIONS[name].ops[0]}
    assert set(ops) == expected
    assert ("MUL" in ops) == ACTIVATIONS[name].ends_in_product
    assert ("ADD" in ops) == ACTIVATIONS[name].begins_as_sum
