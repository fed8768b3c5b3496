"""What is refused because it would be wrong in silence: random, retraced wrongly, broken weights, probabilities."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from amc_latency.errors import UserError
from amc_latency.models.files.weights import put_weights
from amc_latency.models.load import NetworkOptions, load_network
from amc_latency.training.finetune import finetune_checkpoint

OWN = """
import torch
from torch import nn
from torch.nn import functional as F

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(3, 8, 3)
        self.f = nn.Linear(8, 10)

    def forward(self, x):
        return self.f(self.between(self.c(x)).mean((2, 3)))

    def between(self, h):
        return h

class Random(Net):
    def between(self, h):
        return F.dropout(h, 0.5)

class Viewed(Net):
    def between(self, h):
        v = h.view(h.size(0), -1)
        v.mul_(torch.sigmoid(v))
        return h

class Softmax(Net):
    def forward(self, x):
        return super().forward(x).softmax(1)

class Two(Net):
    def forward(self, x, y):
        return super().forward(x + y)

class Half(Net):
    def __init__(self):
        super().__init__()
        self.half()

class Joined(Net):
    def __init__(self):
        super().__init__()
        self.f = nn.Linear(8 * 36 + 8, 10)

    def forward(self, x):
        h = self.c(x)
        return self.f(torch.cat([h.flatten(1), h.mean((2, 3))], 1))
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "own.py").write_text(OWN)
    return str(tmp_path / "own.py")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Random", "something else of the same image each time"),
        ("Viewed", "computes something else when traced"),
        ("Two", "forward must take one image"),
        ("Half", r"call \.float\(\)"),
        ("Joined", "a join of a flattened 6x6 map and a vector is not supported"),
    ],
)
def test_refused_when_it_is_loaded(own: str, name: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        load_network(NetworkOptions(f"{own}:{name}", input="3x8x8"))


def test_the_same_without_it_is_loaded(own: str) -> None:
    network = load_network(NetworkOptions(f"{own}:Net", input="3x8x8"))
    assert [group.channels for group in network.graph.groups] == [8]


def test_cross_entropy_is_not_taken_of_probabilities(own: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ends in softmax"):
        finetune_checkpoint(
            NetworkOptions(f"{own}:Softmax", input="3x8x8", weights="own"), tmp_path / "x.safetensors", 1, "bundled", 0
        )


def test_weights_that_are_no_numbers_are_named(own: str) -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    broken = {"0.weight": torch.tensor([[1.0, float("nan")], [0.0, 0.0]]), "0.bias": torch.zeros(2)}
    with pytest.raises(UserError, match=r"w\.pt: 0\.weight holds values that are no numbers"):
        put_weights("w.pt", model, broken)
