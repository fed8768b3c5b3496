"""Which tensors each layer reads: by hand, and by size on random networks."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest
import torch
from amc_latency.lut.shapes.architecture import INPUT, Architecture
from torch import Tensor, nn
from torch.nn import functional

from amc_latency.errors import UserError
from amc_latency.graph.trace import trace
from tests.amc_latency.random_networks import random_network


class Net(nn.Module):
    """Three pointwise convolutions of 4 channels, and a `forward` that is given."""

    def __init__(self, forward: Any) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.norm, self.drop, self.last = nn.BatchNorm2d(4), nn.Dropout(), nn.Linear(4 * 8 * 8, 3)
        self.compute = forward

    def forward(self, x: Tensor) -> Any:
        return self.compute(self, x)


def residual(net: Any, x: Tensor) -> Tensor:
    x = net.a(x)  # 0
    y = net.norm(net.b(x)).relu()  # 1, norm and activation in it
    return torch.cat([x + y, x], 1)  # 2: sum, 3: join


def flattened(net: Any, x: Tensor) -> Tensor:
    x = net.drop(functional.pad(net.a(x), (0, 0, 0, 0))).flatten(1)
    return net.last(net.drop(x))


def split(net: Any, x: Tensor) -> Tensor:
    one, two = net.a(x).chunk(2, 1)  # 1 and 2: slices of 0
    return one * two


def dealt_out(net: Any, x: Tensor) -> Tensor:
    n, _, h, w = x.shape
    x = net.a(x).view(n, 2, 2, h, w).transpose(1, 2).reshape(n, 4, h, w)  # 1: a shuffle of 0
    return net.b(x) + 1.0


@pytest.mark.parametrize(
    ("forward", "reads", "outputs"),
    [
        (residual, [(INPUT,), (0,), (0, 1), (2, 0)], (3,)),
        (flattened, [(INPUT,), (0,)], (1,)),
        (split, [(INPUT,), (0,), (0,), (1, 2)], (3,)),
        (dealt_out, [(INPUT,), (0,), (1,), (2,)], (3,)),
        (lambda net, x: net.b(x) + net.a(net.c(x)), [(INPUT,), (INPUT,), (1,), (0, 2)], (3,)),
        (lambda net, x: (y := net.a(x)) + y, [(INPUT,), (0,)], (1,)),
        (lambda net, x: (net.b(y := net.a(x)), y), [(INPUT,), (0,)], (1, 0)),
        (lambda net, x: functional.silu(net.a(net.a(x))), [(INPUT,), (0,), (1,)], (2,)),
    ],
    ids=["residual", "flattened", "split", "shuffle", "two of the image", "doubled", "two outputs", "called twice"],
)
def test_each_layer_knows_what_it_reads(forward: Any, reads: list[tuple[int, ...]], outputs: tuple[int, ...]) -> None:
    found = trace(Net(forward).eval(), (4, 8, 8)).architecture
    assert list(found.reads) == reads
    assert found.outputs == outputs
    pairs = [(tensor, layer) for layer, each in enumerate(reads) for tensor in each]
    assert {tensor: list(layers) for tensor, layers in found.readers.items()} == {
        tensor: [layer for made, layer in pairs if made == tensor] for tensor in range(INPUT, len(reads))
    }


@pytest.mark.parametrize("seed", range(12))
def test_what_a_layer_reads_is_as_large_as_its_input(seed: int) -> None:
    model, size = random_network(seed)
    try:
        architecture = trace(model.eval(), size).architecture
    except UserError:
        return  # One that is refused, which `test_random_networks.py` looks at.
    values = {
        i: layer.shape.c_out * layer.shape.h_out * layer.shape.w_out for i, layer in enumerate(architecture.layers)
    }
    values[INPUT] = prod(size)
    for i, (layer, reads) in enumerate(zip(architecture.layers, architecture.reads, strict=True)):
        shape = layer.shape
        assert reads
        assert max(reads) < i
        own = shape.c_in * shape.h * shape.w
        if shape.kind == "concat":
            # A tensor that is joined to itself is read once.
            assert sum(values[tensor] for tensor in reads) <= own
        elif shape.kind == "scale":
            assert [values[tensor] for tensor in reads if values[tensor] != shape.c_in] in ([own], [])
        else:
            assert {values[tensor] for tensor in reads} == {own}
    used = {tensor for reads in architecture.reads for tensor in reads} | set(architecture.outputs)
    assert set(range(len(architecture.layers))) <= used


def test_layers_by_hand_are_a_chain_unless_said() -> None:
    layer = trace(Net(lambda net, x: net.a(x)).eval(), (4, 8, 8)).architecture.layers[0]
    chain = Architecture((layer, type(layer)(layer.shape, None, None)), ())
    assert chain.reads == ((INPUT,), (0,))
    assert chain.outputs == (1,)
