"""The fused updates of the agents' networks, against what they are short for."""

from __future__ import annotations

import copy

import torch

from amc_latency.search.agents.ddpg import _two_hidden, polyak_update


def test_a_target_network_moves_a_share_of_the_way() -> None:
    torch.manual_seed(0)
    target, source = _two_hidden(11, 300), _two_hidden(11, 300)
    expected = [0.99 * a + 0.01 * b for a, b in zip(target.parameters(), source.parameters(), strict=True)]
    before = [parameter.clone() for parameter in source.parameters()]
    polyak_update(target, source, 0.01)
    for a, b in zip(target.parameters(), expected, strict=True):
        torch.testing.assert_close(a, b)
    for a, b in zip(source.parameters(), before, strict=True):
        assert torch.equal(a, b)


def test_fused_adam_is_adam_by_the_formulas() -> None:
    torch.manual_seed(0)
    network = _two_hidden(11, 300)
    plain = [parameter.detach().clone().double() for parameter in network.parameters()]
    means, squares = ([torch.zeros_like(parameter) for parameter in plain] for _ in range(2))
    double = copy.deepcopy(network).double()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3, fused=True)
    for step in range(1, 21):
        x = torch.randn(64, 11)
        optimizer.zero_grad()
        network(x).square().mean().backward()
        optimizer.step()
        for parameter, values in zip(double.parameters(), plain, strict=True):
            parameter.data.copy_(values)
        slopes = torch.autograd.grad(double(x.double()).square().mean(), list(double.parameters()))
        for values, mean, square, slope in zip(plain, means, squares, slopes, strict=True):
            mean.mul_(0.9).add_(slope, alpha=0.1)
            square.mul_(0.999).addcmul_(slope, slope, value=0.001)
            values -= 1e-3 * (mean / (1 - 0.9**step)) / ((square / (1 - 0.999**step)).sqrt() + 1e-8)
    for parameter, values in zip(network.parameters(), plain, strict=True):
        torch.testing.assert_close(parameter.detach().double(), values, rtol=1e-2, atol=1e-3)
