"""Sizes that are found without running a module are those that it makes, and load nothing of the compiler of torch."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from amc_latency.graph.trace import conv2d_size, put_sizes

PAIRS = st.tuples(st.integers(1, 4), st.integers(1, 4))


@settings(max_examples=60, deadline=None)
@given(PAIRS, PAIRS, st.tuples(st.integers(0, 3), st.integers(0, 3)), PAIRS, st.integers(1, 12), st.integers(1, 12))
def test_of_a_convolution(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    height: int,
    width: int,
) -> None:
    conv = nn.Conv2d(2, 3, kernel, stride, padding, dilation)
    try:
        expected = tuple(conv(torch.zeros(5, 2, height, width)).shape)
    except RuntimeError:
        expected = ()
    assert conv2d_size(conv, (5, 2, height, width)) == expected


class Own(nn.Module):
    """Each kind of module whose size is not found by running it on meta."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.ModuleList(
            [
                nn.Conv2d(3, 6, 3, (2, 1), (1, 0), bias=False),
                nn.BatchNorm2d(6),
                nn.ReLU6(),
                nn.MaxPool2d(3, 2, 1, ceil_mode=True),
                nn.AvgPool2d((2, 1), ceil_mode=True, count_include_pad=False),
                nn.AdaptiveAvgPool2d((2, None)),
                nn.Linear(9, 4),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return x


def test_of_every_module_that_is_not_run() -> None:
    model = Own().eval()
    expected: list[tuple[int, ...]] = []
    for step in model.steps:
        step.register_forward_hook(lambda _, x, y: expected.append(tuple(y.shape)))
    model(torch.zeros(2, 3, 15, 19))
    traced = fx.symbolic_trace(Own().to("meta").eval())
    put_sizes(traced, (3, 15, 19))
    found = [tuple(node.meta["tensor_meta"].shape[1:]) for node in traced.graph.nodes if node.op == "call_module"]
    assert found == [size[1:] for size in expected]


@pytest.mark.parametrize("model", ["bundled", "lenet5"])
def test_the_compiler_is_not_loaded(model: str) -> None:
    program = (
        "import sys; from amc_latency.models.load import NetworkOptions, load_network; "
        f"load_network(NetworkOptions({model!r})); print(*({{'torch._dynamo', 'sympy'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr
