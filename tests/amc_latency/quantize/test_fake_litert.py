"""Fake quantisation beside what LiteRT computes of the quantised file: the same but for rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from amc_latency.device.tflite.outputs import TfliteRunner
from torch import nn

from amc_latency.export.quantised.export import calibration_of, source_of
from amc_latency.export.quantised.recipe import quantise
from amc_latency.quantize.fake import Simulator
from tests.amc_latency.quantize.networks import own_net
from tests.amc_latency.random_networks import random_network


def drawn(seed: int) -> tuple[nn.Module, tuple[int, int, int]]:
    model, size = random_network(seed)
    return model.eval(), size


@pytest.mark.parametrize(
    "made",
    [lambda: (own_net(), (2, 4, 4)), lambda: drawn(1), lambda: drawn(19), lambda: drawn(20), lambda: drawn(23)],
    ids=["own", "silu and slices", "convolutions", "sums", "two sums"],
)
def test_the_file_computes_what_was_simulated(made) -> None:  # type: ignore[no-untyped-def]
    model, size = made()
    source = source_of(model, size)
    graph, layers = source.graph, len(source.graph.layer_nodes)
    images = torch.randn(40, *size, generator=torch.Generator().manual_seed(0))
    calibration = calibration_of(source, images)
    simulator = Simulator(source.model, graph)
    ranges = simulator.ranges(source.model, images)
    mixed = tuple(["float32", "int8"][i] for i in np.random.default_rng(0).integers(0, 2, layers))
    for policy in (("int8",) * layers, mixed, ("float32",) * layers):
        quantised = quantise(calibration, policy)
        with TfliteRunner(quantised.content, "the quantised file") as runner:
            file = runner.real(images.numpy().transpose(0, 2, 3, 1))[0]
        with torch.inference_mode():
            exact = source.model(images).numpy()
            fake = simulator.network(source.model, quantised.policy, ranges)(images).numpy()
        low, high = min(exact.min(), 0), max(exact.max(), 0)
        step = (high - low) / 255
        if "int8" not in quantised.policy:
            assert np.abs(file - fake).max() < 1e-3 * step
            continue
        # Both are several steps from the exact network, in the same direction.
        assert np.abs(file - fake).max() < 4 * step
        assert np.abs(file - fake).mean() < 0.6 * step
