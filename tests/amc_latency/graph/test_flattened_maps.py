"""What a network does with a flattened feature map: the file has it equal to PyTorch, or it is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from amc_latency.errors import UserError
from amc_latency.export.export import export
from amc_latency.graph.rewriting.normal_form import normal_form
from amc_latency.graph.trace import trace
from amc_latency.prune.cut import cut
from tests.amc_latency.op_networks import Written, conv

IMAGE = (3, 4, 6)


def net(forward: Callable[[Any, Tensor], Tensor], **more: nn.Module) -> Written:
    """`forward` of itself and two maps' worth of features: `a` is 4 channels of 4x6 = 96 values, `b` 4 of 6x4."""
    layers = {"map_a": conv(3, 4), "map_b": conv(3, 4, kernel=3, padding=(2, 0))}
    layers |= {"linear": nn.Linear(96, 96), "norm": nn.BatchNorm1d(96)}

    def written(self: Any, x: Tensor) -> Tensor:
        return forward(self, x)

    return Written(written, **layers, **more)


def a(self: Any, x: Tensor) -> Tensor:
    return torch.relu(self.map_a(x)).flatten(1)


def b(self: Any, x: Tensor) -> Tensor:
    return torch.relu(self.map_b(x)).flatten(1)


REFUSED: dict[str, tuple[Callable[[Any, Tensor], Tensor], int, str]] = {
    "a residual": (lambda s, x: s.head((y := a(s, x)) + s.linear(y)), 96, "add: add of a flattened 4x6 map and a"),
    "a gate": (lambda s, x: s.head((y := a(s, x)) * torch.sigmoid(s.linear(y))), 96, "mul: mul of a flattened 4x6 map"),
    "two maps": (lambda s, x: s.head(a(s, x) + b(s, x)), 96, "add: add of a flattened 4x6 map and a flattened 6x4 map"),
    "two maps side by side": (lambda s, x: s.head(torch.cat([a(s, x), b(s, x)], 1)), 192, "cat: a join of a flattened"),
    "a vector beside": (lambda s, x: s.head(torch.cat([s.linear(y := a(s, x)), y], 1)), 192, "cat: a join of a vector"),
    "probabilities": (lambda s, x: s.head(torch.softmax(a(s, x), 1)), 96, "softmax: a softmax of a flattened"),
    "a slice": (lambda s, x: s.head(a(s, x)[:, 10:20]), 10, "getitem: a slice of a flattened"),
    "a half": (lambda s, x: s.head(a(s, x).chunk(2, 1)[0]), 48, "getitem: a slice of a flattened"),
    "a batch norm": (lambda s, x: s.head(s.norm(torch.relu(a(s, x)))), 96, "norm: a batch norm of a flattened"),
    "viewed and pooled": (lambda s, x: s.head(a(s, x).view(-1, 96, 1, 1).mean((2, 3))), 96, "another operation than"),
    "returned": (lambda s, x: a(s, x), 96, "returns a flattened feature map"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_file_could_not_have_is_refused_by_name(name: str) -> None:
    forward, features, words = REFUSED[name]
    model = net(forward, head=nn.Linear(features, 5)).eval()
    assert model(torch.randn(2, *IMAGE)).shape[0] == 2
    with pytest.raises(UserError, match=words):
        trace(normal_form(model, IMAGE), IMAGE)


ACCEPTED: dict[str, tuple[Callable[[Any, Tensor], Tensor], nn.Module]] = {
    "a sum of one map": (lambda s, x: s.head((y := a(s, x)) + torch.sigmoid(y)), nn.Linear(96, 5)),
    "maps of one size": (lambda s, x: s.head(a(s, x) * s.map_a(x).flatten(1)), nn.Linear(96, 5)),
    "side by side": (lambda s, x: s.head(torch.cat([a(s, x), s.map_a(x).flatten(1)], 1)), nn.Linear(192, 5)),
    "viewed as pixels": (lambda s, x: s.head(a(s, x).view(-1, 96, 1, 1)).flatten(1), conv(96, 5)),
    "viewed, then a larger kernel": (
        lambda s, x: s.head(a(s, x).view(-1, 96, 1, 1)).flatten(1),
        conv(96, 5, kernel=3, padding=1),
    ),
    "a pixel beside a vector": (
        lambda s, x: s.head(torch.cat([(y := s.linear(a(s, x))), y.view(-1, 96, 1, 1).relu().flatten(1)], 1)),
        nn.Linear(192, 5),
    ),
    "a vector plus a pixel": (
        lambda s, x: s.head((y := s.linear(a(s, x))) + y.view(-1, 96, 1, 1).mean((2, 3))),
        nn.Linear(96, 5),
    ),
    "a pixel times a vector": (
        lambda s, x: s.head(nn.functional.adaptive_avg_pool2d(y := s.map_a(x), 1).flatten(1) * y.mean((2, 3))),
        nn.Linear(4, 5),
    ),
    "a vector's pixels, shuffled and pooled": (
        lambda s, x: s.head(nn.functional.channel_shuffle(s.linear(a(s, x)).view(-1, 96, 1, 1), 4).mean((2, 3))),
        nn.Linear(96, 5),
    ),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_is_accepted_exports_whole_and_cut(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    forward, head = ACCEPTED[name]
    model = normal_form(net(forward, head=head).eval(), IMAGE)
    graph = trace(model, IMAGE)
    assert export(model, IMAGE, tmp_path / "x.tflite").params == sum(graph.architecture.params())
    keep = [torch.arange(0, group.channels, 2) for group in graph.groups]
    small = cut(model, graph, keep)
    assert trace(small, IMAGE).architecture.shapes() == graph.architecture.shapes([len(kept) for kept in keep])
    export(small, IMAGE, tmp_path / "small.tflite")
