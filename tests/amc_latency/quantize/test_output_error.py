"""How far outputs move: by numpy, and whether what is resumed is what is run from the beginning."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from amc_latency.errors import UserError
from amc_latency.graph.trace import trace
from amc_latency.quantize.error import OutputError
from amc_latency.quantize.fake import Simulator
from tests.amc_latency.quantize.networks import own_net
from tests.amc_latency.random_networks import random_network


class Shifted(nn.Module):
    """What a network returns, and a number more."""

    def __init__(self, inner: nn.Module, by: float) -> None:
        super().__init__()
        self.inner, self.by = inner, by

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + self.by


def images(n: int, size: tuple[int, ...]) -> Tensor:
    return torch.randn(n, *size, generator=torch.Generator().manual_seed(0))


def test_the_share_of_what_outputs_vary_by() -> None:
    net = own_net()
    x = images(40, (2, 4, 4))
    error = OutputError(Simulator(net, trace(net, (2, 4, 4))), net, x)
    with torch.no_grad():
        made = net(x).double().numpy()
    assert error.of(net) == 0
    # Three classes are each off by 0.5 on 40 images.
    expected = 40 * 3 * 0.25 / (40 * np.var(made, axis=0).sum())
    assert error.of(Shifted(net, 0.5)) == pytest.approx(expected, rel=1e-5)


def test_layers_one_by_one_are_as_whole_networks_are() -> None:
    net = own_net()
    x = images(40, (2, 4, 4))
    simulator = Simulator(net, trace(net, (2, 4, 4)))
    error, ranges = OutputError(simulator, net, x), simulator.ranges(net, x)
    float32 = ["float32"] * 7
    policies = [float32]
    policies += [[*float32[:i], precision, *float32[i + 1 :]] for i in range(7) for precision in ("int8", "simulated4")]
    policies += [["float32", "int8", "int8", "float32", "int8", "int8", "float32"], ["simulated3"] * 7]
    found = error.of_layers(policies, ranges)
    assert found[0] == 0
    for policy, share in zip(policies[1:], found[1:], strict=True):
        assert share > 0
        assert share == pytest.approx(error.of(simulator.network(net, policy, ranges)), rel=1e-5)
        rougher = [name.replace("int8", "simulated4") for name in policy]
        if rougher != policy:
            assert error.of_layers([rougher], ranges)[0] > share


@pytest.mark.parametrize("seed", [1, 2, 3, 8])
def test_random_networks_go_on_from_any_layer(seed: int) -> None:
    model, size = random_network(seed)
    model.eval()
    try:
        graph = trace(model, size)
    except UserError:
        return  # One that is refused, which `test_random_networks.py` looks at.
    x = images(16, size)
    simulator = Simulator(model, graph)
    error, ranges = OutputError(simulator, model, x), simulator.ranges(model, x)
    layers = len(graph.layer_nodes)
    policies = [["int8" if i == layer else "float32" for i in range(layers)] for layer in range(layers)]
    for policy, share in zip(policies, error.of_layers(policies, ranges), strict=True):
        assert share == pytest.approx(error.of(simulator.network(model, policy, ranges)), rel=1e-3, abs=1e-9)
