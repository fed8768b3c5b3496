"""Hard swishes and hard sigmoids that are written out become one operation, and what only looks like one stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from amc_latency.graph.rewriting.normal_form import normal_form
from amc_latency.graph.trace import trace

IMAGE = (3, 5, 5)


class Written(nn.Module):
    def __init__(self, forward: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.written, self.stem, self.relu6 = forward, nn.Conv2d(3, 4, 1), nn.ReLU6(inplace=True)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return self.written(self, 4 * self.stem(x)).mean((2, 3))


def doubled_meanwhile(net: Any, x: Tensor) -> Tensor:
    gate = functional.relu6(x + 3)
    x.mul_(2)
    return x * gate / 6


FORMS: dict[str, tuple[Callable[[Any, Tensor], Tensor], str]] = {
    "as in the paper": (lambda net, x: x * functional.relu6(x + 3) / 6, "hard_swish"),
    "the gate first": (lambda net, x: net.relu6(3.0 + x) / 6.0 * x, "hard_swish"),
    "by methods": (lambda net, x: x.add(3).clamp(0, 6).div(6).mul(x), "hard_swish"),
    "by functions": (lambda net, x: torch.mul(x, torch.clamp(torch.add(x, 3.0), 0, 6) * (1 / 6)), "hard_swish"),
    "by a module": (lambda net, x: net.gate(x) * x, "hard_swish"),
    "a sixth in figures": (lambda net, x: x * functional.relu6(x - -3) * 0.16666667, "hard_swish"),
    "in place, as timm's": (lambda net, x: x * x.add(3.0).clamp_(0.0, 6.0).div_(6.0), "hard_swish"),
    "the gate alone": (lambda net, x: functional.relu6(x + 3) / 6, "hard_sigmoid"),
}
OTHERS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "shifted by 2": lambda net, x: x * functional.relu6(x + 2) / 6,
    "by a fifth": lambda net, x: x * functional.relu6(x + 3) / 5,
    "another factor": lambda net, x: torch.tanh(x) * functional.relu6(x + 3) / 6,
    "another factor of a gate": lambda net, x: torch.tanh(x) * net.gate(x),
    "a sum": lambda net, x: x + functional.hardsigmoid(x),
    "the gate of what is no longer there": lambda net, x: (functional.relu6(x.add_(3)) / 6) * x,
    "the gate of what has changed since": doubled_meanwhile,
    "up to 5": lambda net, x: x * torch.clamp(x + 3, 0, 5) / 6,
}


def activations(model: nn.Module) -> list[str]:
    return [shape.activation for shape in trace(model, IMAGE).architecture.shapes() if shape.kind == "activation"]


@pytest.mark.parametrize("form", FORMS)
def test_a_written_out_activation_is_one_layer_and_the_same_function(form: str) -> None:
    forward, name = FORMS[form]
    torch.manual_seed(0)
    model = Written(forward).eval()
    image = torch.randn(2, *IMAGE)
    expected = model(image)
    found = normal_form(model, IMAGE)
    torch.testing.assert_close(found(image), expected, rtol=1e-6, atol=1e-6)
    # The 4 that the stem's outputs are multiplied by, the activation, the mean.
    assert len(trace(found, IMAGE).layer_names) == 4
    assert activations(found) == [name]


@pytest.mark.parametrize("form", OTHERS)
def test_what_is_another_function_stays(form: str) -> None:
    torch.manual_seed(0)
    model = Written(OTHERS[form]).eval()
    image = torch.randn(2, *IMAGE)
    expected = model(image)
    found = normal_form(model, IMAGE)
    torch.testing.assert_close(found(image), expected, rtol=1e-6, atol=1e-6)
    assert not any(node.target is functional.hardswish for node in torch.fx.symbolic_trace(found).graph.nodes)


def test_an_operation_that_is_read_elsewhere_too_stays_for_that() -> None:
    def forward(net: Any, x: Tensor) -> Tensor:
        gate = functional.relu6(x + 3)
        return x * gate / 6 + gate

    torch.manual_seed(0)
    model = Written(forward).eval()
    image = torch.randn(2, *IMAGE)
    expected = model(image)
    found = normal_form(model, IMAGE)
    torch.testing.assert_close(found(image), expected, rtol=1e-6, atol=1e-6)
    assert activations(found) == ["hard_swish"]
