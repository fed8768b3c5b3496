"""Fake quantisation: by arithmetic, against networks that round by hand, and on random networks."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from amc_latency.lut.shapes.architecture import INPUT
from torch import Tensor
from torch.nn import functional

from amc_latency.errors import UserError
from amc_latency.graph.trace import trace
from amc_latency.quantize.fake import FakeTensor, Simulator, fake_quantized, rounded_weights
from amc_latency.quantize.ranges import Range, steps_of
from tests.amc_latency.quantize.networks import own_net
from tests.amc_latency.random_networks import random_network


def nearest(x: Tensor, values: Tensor) -> Tensor:
    """Of ascending `values`, by the middles between them."""
    return values[torch.bucketize(x, (values[1:] + values[:-1]) / 2)]


def rounded(x: Tensor, found: Range, bits: int = 8) -> Tensor:
    """The nearest of the values that integers stand for."""
    low, high = min(found[0], 0.0), max(found[1], 0.0)
    scale = (high - low) / (2**bits - 1)
    below = round(-low / scale)
    return nearest(x, torch.arange(-below, 2**bits - below) * scale)


def rounded_rows(weight: Tensor, bits: int = 8) -> Tensor:
    """Each row alone, symmetric about zero."""
    most = 2 ** (bits - 1) - 1
    rows = []
    for row in weight.flatten(1):
        rows.append(nearest(row, torch.arange(-most, most + 1) * float(row.abs().max()) / most))
    return torch.stack(rows).reshape(weight.shape)


def test_scale_and_zero_point_of_a_range() -> None:
    scale, zero_point = steps_of((-1.0, 3.0), 8)
    # 255 steps of 4 / 255; -1 is 63.75 steps below zero, and the lowest integer is -128.
    assert scale == pytest.approx(4 / 255)
    assert zero_point == -128 + 64
    # Zero is always within.
    assert steps_of((1.0, 3.0), 4) == (pytest.approx(3 / 15), -8)
    assert steps_of((-3.0, -1.0), 4) == (pytest.approx(3 / 15), 7)
    # What was zero on all images.
    assert steps_of((0.0, 0.0), 8) == (pytest.approx(1 / 255), -128)


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_a_tensor_takes_the_nearest_value_and_gradients_pass_within_the_range(bits: int) -> None:
    x = torch.rand(200, generator=torch.Generator().manual_seed(0)) * 6 - 2
    x[40] = 0
    x.requires_grad_()
    module = FakeTensor((-1.0, 3.0), bits)
    made = module(x)
    assert torch.allclose(made, rounded(x.detach(), (-1.0, 3.0), bits), atol=1e-6)
    assert len(made.unique()) <= 2**bits
    assert made[40] == 0
    made.sum().backward()
    lowest, highest = float(made.detach().min()), float(made.detach().max())
    step = 4 / (2**bits - 1)
    inside = (x > lowest - step / 2 + 1e-6) & (x < highest + step / 2 - 1e-6)
    assert x.grad is not None
    assert (x.grad[inside] == 1).all()
    assert (x.grad[(x < lowest - step / 2 - 1e-6) | (x > highest + step / 2 + 1e-6)] == 0).all()


@pytest.mark.parametrize("bits", [2, 5, 8])
def test_weights_have_a_scale_for_each_channel(bits: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 4, 3, 3, generator=generator) * torch.logspace(-3, 3, 6).view(6, 1, 1, 1)
    weight[2] = 0
    made = rounded_weights(weight, 0, bits)
    expected = rounded_rows(weight, bits)
    assert torch.allclose(made[2], torch.zeros(4, 3, 3))
    for channel in (0, 1, 3, 4, 5):
        assert torch.allclose(made[channel], expected[channel], atol=1e-6 * float(weight[channel].abs().max()))
        assert float(made[channel].abs().max()) == pytest.approx(float(weight[channel].abs().max()))
    across = rounded_weights(weight.transpose(0, 1), 1, bits)
    assert torch.equal(across.transpose(0, 1), made)
    needs = weight.clone().requires_grad_()
    rounded_weights(needs, 0, bits).sum().backward()
    assert needs.grad is not None
    assert (needs.grad == 1).all()


def by_hand(net: Any, x: Tensor, ranges: dict[int, Range], bits: list[int | None]) -> Tensor:
    """The same network, its batch norm folded, rounding wherever an int8 file would."""

    def weights(layer: int, weight: Tensor) -> Tensor:
        wanted = bits[layer]
        return weight if wanted is None else rounded_rows(weight, wanted)

    def read(layer: int, value: Tensor, tensor: int) -> Tensor:
        wanted = bits[layer]
        return value if wanted is None else rounded(value, within[tensor], wanted)

    def made(layer: int, value: Tensor) -> Tensor:
        wanted = bits[layer]
        return value if wanted is None else rounded(value, within[layer], wanted)

    within = dict(ranges)
    if bits[3] is not None:
        within[3] = within[2]  # A pool keeps its input's.
    if bits[4] is not None:
        within[4] = (0.0, 255 / 256)
    scale = net.norm.weight / torch.sqrt(net.norm.running_var + net.norm.eps)
    shift = net.norm.bias - net.norm.running_mean * scale
    stem = weights(0, net.stem.weight * scale.view(-1, 1, 1, 1))
    x0 = made(0, functional.conv2d(read(0, x, INPUT), stem, shift, padding=1).clamp(0, 6))
    deep = weights(1, net.deep.weight)
    x1 = made(1, functional.conv2d(read(1, x0, 0), deep, net.deep.bias, padding=1, groups=4))
    x2 = made(2, read(2, x0, 0) + read(2, x1, 1))
    x3 = made(3, functional.max_pool2d(read(3, x2, 2), 2))
    x4 = made(4, torch.sigmoid(read(4, x3, 3)))
    x5 = made(5, torch.cat([read(5, x3, 5), read(5, x4, 5)], 1).flatten(1))
    return made(6, functional.linear(read(6, x5, 5), weights(6, net.last.weight), net.last.bias))


def test_a_mixed_network_is_what_rounding_by_hand_makes() -> None:
    net = own_net()
    graph = trace(net, (2, 4, 4))
    kinds = [layer.shape.kind for layer in graph.architecture.layers]
    assert kinds == ["conv", "depthwise", "add", "max_pool", "activation", "concat", "linear"]
    x = torch.randn(32, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    ranges = dict(Simulator(net, graph).ranges(net, x))
    assert sorted(ranges) == list(range(INPUT, 7))
    assert ranges[INPUT] == (float(x.min()), float(x.max()))
    # In batches it is the same.
    parts = Simulator(net, graph).ranges(net, x, batch=7)
    assert all(parts[tensor] == pytest.approx(found, rel=1e-5) for tensor, found in ranges.items())
    with torch.no_grad():
        assert torch.equal(fake_quantized(net, graph, ["float32"] * 7, ranges)(x), net(x))
        for policy in itertools.islice(itertools.product(["simulated5", "float32"], repeat=7), 0, None, 11):
            made = fake_quantized(net, graph, policy, ranges)(x)
            expected = by_hand(net, x, ranges, [5 if each == "simulated5" else None for each in policy])
            # What lies right between two values may go to either.
            assert float((made - expected).abs().mean()) < 2e-3 * float(expected.std()), policy
        coarse = fake_quantized(net, graph, ["simulated3"] * 7, ranges)(x)
        expected = by_hand(net, x, ranges, [3] * 7)
        assert float((coarse - expected).abs().mean()) < 0.02 * float(expected.std())
        assert float((coarse - net(x)).abs().mean()) > 0.1 * float(expected.std())


def test_it_trains_the_network_that_it_was_made_of() -> None:
    net = own_net()
    graph = trace(net, (2, 4, 4))
    x = torch.randn(8, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    fake = fake_quantized(net, graph, ["simulated4"] * 7, Simulator(net, graph).ranges(net, x))
    assert {id(each) for each in fake.parameters()} == {id(each) for each in net.parameters()}
    before = functional.cross_entropy(fake(x), torch.zeros(8, dtype=torch.int64))
    before.backward()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in net.parameters())
    with torch.no_grad():
        for each in net.parameters():
            assert each.grad is not None
            each -= 0.05 * each.grad
        assert functional.cross_entropy(fake(x), torch.zeros(8, dtype=torch.int64)) < before


def test_names_and_numbers_that_do_not_fit_are_refused() -> None:
    net = own_net()
    graph = trace(net, (2, 4, 4))
    ranges = Simulator(net, graph).ranges(net, torch.randn(4, 2, 4, 4))
    with pytest.raises(UserError, match=r"no precision is called 'int9'.*Did you mean 'int8'"):
        fake_quantized(net, graph, ["int9"] * 7, ranges)
    with pytest.raises(ValueError, match="6 precisions for a network of 7 layers"):
        fake_quantized(net, graph, ["int8"] * 6, ranges)
    with pytest.raises(UserError, match="need calibration images"):
        Simulator(net, graph).ranges(net, torch.zeros(0, 2, 4, 4))


@pytest.mark.parametrize("seed", range(12))
def test_random_networks_run_in_any_precisions(seed: int) -> None:
    model, size = random_network(seed)
    model.eval()
    try:
        graph = trace(model, size)
    except UserError:
        return  # One that is refused, which `test_random_networks.py` looks at.
    x = torch.randn(16, *size, generator=torch.Generator().manual_seed(seed))
    ranges = Simulator(model, graph).ranges(model, x)
    layers = len(graph.architecture.layers)
    drawn = np.random.default_rng(seed).integers(0, 2, layers)
    mixed = [["float32", "int8"][i] for i in drawn]
    with torch.inference_mode():
        expected = model(x)
        assert torch.equal(fake_quantized(model, graph, ["float32"] * layers, ranges)(x), expected)
        for policy in (mixed, ["int8"] * layers):
            made = fake_quantized(model, graph, policy, ranges)(x)
            assert made.shape == expected.shape
            assert made.isfinite().all()
            assert "int8" not in policy or not torch.equal(made, expected)
