"""The ways in which a network's code asks for sizes: all are traced, and the batch's stays open."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from amc_latency.errors import UserError
from amc_latency.graph import tracing
from amc_latency.graph.rewriting.normal_form import normal_form
from amc_latency.graph.trace import trace
from tests.amc_latency.op_networks import Written, conv, ending

SIZES: dict[str, Callable[[Tensor], Any]] = {
    "data.size": lambda x: x.data.size(),
    "data.shape": lambda x: x.data.shape,
    "detach": lambda x: x.detach().size(),
    "torch.detach": lambda x: torch.detach(x).shape,
    "a copy": lambda x: torch.clone(x).data.clone().size(),
    "by name": lambda x: (x.size(0), x.size(dim=1), x.size(dim=-2), x.size(dim=3)),
    "one by one": lambda x: [x.size(i) for i in range(x.ndimension())],
    "as integers": lambda x: map(int, x.data.size()),
    "len": lambda x: (len(x), *x.shape[1:]),
    "numpy": lambda x: (x.size(0), *np.array(x.shape[1:])),
    "a tensor": lambda x: (x.size(0), *torch.tensor(x.shape[1:]).tolist()),
    "torch.Size": lambda x: (x.size(0), *torch.Size(x.shape[1:])),
}
FEATURES: dict[str, Callable[[Tensor], Any]] = {
    "numel": lambda x: x.numel() // x.size(0),
    "torch.numel": lambda x: torch.numel(x) // x.size(0),
    "nelement": lambda x: x.data.nelement() // x.shape[0],
    "numel of one": lambda x: x[0].numel(),
    "numel of a shape": lambda x: x.shape.numel() // len(x),
    "numel of a part of a shape": lambda x: x.data.size()[1:].numel(),
    "math.prod": lambda x: math.prod(x.shape[1:]),
    "numpy.prod": lambda x: np.prod(x.size()[1:]),
    "torch.prod": lambda x: int(torch.tensor(x.size()[1:]).prod()),
    "a quotient": lambda x: int(x.numel() / x.size(0)),
}


def assert_traced(model: nn.Module, groups: tuple[int, ...]) -> None:
    image, images = (3, 4, 5), torch.randn(7, 3, 4, 5)
    with torch.no_grad():
        expected = model.eval()(images)
        normal = normal_form(model, image)
        assert torch.equal(normal(images), expected)
    assert trace(normal, image).architecture.group_channels == groups


@pytest.mark.parametrize("name", SIZES)
def test_a_shuffle_by_these_sizes_is_traced(name: str) -> None:
    def shuffled(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x)
        n, c, h, w = SIZES[name](x)
        return net.ending(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))

    assert_traced(Written(shuffled, stem=conv(3, 6), ending=ending(6)), ())


@pytest.mark.parametrize("name", FEATURES)
def test_a_flattening_by_these_sizes_is_traced(name: str) -> None:
    def flattened(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x)
        return net.head(x.view(-1, FEATURES[name](x)))

    assert_traced(Written(flattened, stem=conv(3, 6), head=nn.Linear(6 * 20, 3)), (6,))


def test_a_batch_in_a_view_stays_open() -> None:
    """`len` gives a number: it is the batch's in the graph all the same, and so is what is reckoned with it."""

    def squared(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x)
        return net.ending(x.view(int(2 * len(x)) // 2, 6, 4, 5))

    assert_traced(Written(squared, stem=conv(3, 6), ending=ending(6)), (6,))


def test_code_that_loops_over_images_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_MOST_OPERATIONS", 1000)

    def by_image(net: Any, x: Tensor) -> Tensor:
        return torch.stack([net.stem(x[i : i + 1])[0] for i in range(len(x))]).mean((2, 3))

    with pytest.raises(UserError, match="more than 1,000 operations: does its code loop over the images"):
        normal_form(Written(by_image, stem=conv(3, 6)), (3, 4, 5))
