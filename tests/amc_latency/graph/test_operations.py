"""Each operation in the search's own forward pass, and cut networks that reshape, against PyTorch's own forward."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from amc_latency.lut.building.layer_model import layer_model
from amc_latency.lut.tflite.run import tflite_ops
from torch import Tensor, nn

from amc_latency.errors import UserError
from amc_latency.export.writing import write
from amc_latency.graph.rewriting.normal_form import normal_form
from amc_latency.graph.trace import trace
from amc_latency.measuring.profiling import Grid
from amc_latency.models.load import Network, NetworkOptions, cut_to, load_network
from amc_latency.models.own_network import build
from amc_latency.models.spec import ModelSpec
from amc_latency.prune.cut import cut
from amc_latency.prune.rank import consumer_l1, keep_indices
from amc_latency.search.judge.forward import CutForward
from tests.amc_latency.op_networks import CASES, Written, in_a_row


@pytest.mark.parametrize("name", CASES)
def test_fused_steps_equal_pytorchs(name: str) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    model, images = case.build().eval(), torch.randn(3, *case.image)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(tensor)
    forward = CutForward(model, trace(model, case.image), images, images)
    with torch.inference_mode():
        torch.testing.assert_close(next(forward.frozen(model, [images])), model(images), rtol=1e-4, atol=1e-4)


OWN = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.gate = nn.Sequential(nn.Linear(8, 2), nn.ReLU(), nn.Linear(2, 8), nn.Sigmoid())
        self.head = nn.Linear(8 if kind == "excited" else 8 * 64, 5)

    def forward(self, x):
        y = self.stem(x)
        b, c, _, _ = y.size()
        if self.kind == "excited":
            factors = self.gate(self.pool(y).view(b, c)).view(b, c, 1, 1)
            y = self.pool(y * factors.expand_as(y))
        if self.kind == "constant":
            return self.head(y.view(-1, 512))
        return self.head(y.view(y.size(0), y.size(1) * y.size(2) * y.size(3)))

def excited(): return Net("excited")
def constant(): return Net("constant")
def product(): return Net("product")
"""


@pytest.mark.parametrize("kind", ["excited", "constant", "product"])
def test_a_cut_network_reshapes_what_is_left(kind: str, tmp_path: Path) -> None:
    """Against the whole network's own code where the lost channels are 0."""
    (tmp_path / "own.py").write_text(OWN)
    spec = ModelSpec(f"{tmp_path / 'own.py'}:{kind}", input=(3, 8, 8), classes=5)
    network = load_network(NetworkOptions(spec.name, input="3x8x8"))
    assert network.graph.architecture.group_channels == ((8, 2) if kind == "excited" else (8,))
    kept = keep_indices(consumer_l1(network.model, network.graph)[0], 3)
    small = cut_to(network, (3, *network.graph.architecture.group_channels[1:]))
    whole = build(spec, spec.name).eval()
    whole.load_state_dict(network.model.state_dict(), strict=False)
    lost = [channel for channel in range(8) if channel not in kept]
    images = torch.randn(4, 3, 8, 8)
    forward = CutForward(network.model, network.graph, images, images)
    with torch.no_grad():
        for tensor in whole.stem.parameters():
            tensor[lost] = 0
        expected = whole(images)
        for found in (small.model(images), next(forward.frozen(small.model, [images]))):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_network_for_one_image_has_a_normal_form_yet() -> None:
    """Which another converter may write."""
    model = Written(lambda net, x: net.head(net.stem(x).view(1, 256)), stem=nn.Conv2d(3, 4, 1), head=nn.Linear(256, 5))
    image = torch.randn(1, 3, 8, 8)
    normal = normal_form(model.eval(), (3, 8, 8))
    assert torch.equal(normal(image), model(image))
    with pytest.raises(UserError, match="one 3x8x8 image at a time alone"):
        trace(normal, (3, 8, 8))


class Unread(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.unread, self.head = nn.Conv2d(3, 8, 8), nn.Conv2d(8, 4, 1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        self.unread(y)
        return self.head(y.flatten(1))


def test_what_is_never_read_is_gone_in_normal_form() -> None:
    model = Unread().eval()
    normal, images = normal_form(model, (3, 8, 8)), torch.randn(2, 3, 8, 8)
    assert "unread.weight" not in normal.state_dict()
    assert torch.equal(normal(images), model(images))
    graph = trace(normal, (3, 8, 8))
    assert graph.architecture.group_channels == (8,)
    assert cut(normal, graph, [torch.arange(3)])(images).shape == (2, 5)


@pytest.mark.parametrize("groups", [2, 8])
def test_a_grouped_convolution_keeps_two_groups(groups: int) -> None:
    """One would be an ordinary convolution, with a coupled group more."""
    model = in_a_row(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=groups), channels=8)()
    graph = trace(model, (3, 8, 8))
    network = Network(model, ModelSpec("own", input=(3, 8, 8)), graph, trained=False)
    assert Grid(min_keep=0.1, step=1).choices(network) == (tuple(range(2, groups + 1)),)
    with pytest.raises(ValueError, match="0: 2 channels at least must be kept, for 1"):
        cut(model, graph, [torch.tensor([0])])
    least = trace(cut(model, graph, [torch.tensor([0, 1])]), (3, 8, 8))
    assert least.architecture.shapes() == graph.architecture.shapes((2,))
    assert len(least.groups) == 1


def test_a_count_below_the_least_is_refused() -> None:
    network = load_network(NetworkOptions("mobilenet_v1", width=0.25, input="3x32x32", classes=5))
    counts = network.graph.architecture.group_channels
    with pytest.raises(UserError, match=r"group 1 has 8 channels: it can't keep 1; blocks\.0\.depthwise needs 2"):
        cut_to(network, (1, *counts[1:]))


def test_a_max_pool_is_timed_as_it_is_written() -> None:
    case = CASES["padded max pools of what may be below zero, and of what may not"]
    model = case.build().eval()
    graph = trace(model, case.image)
    timed: Counter[str] = Counter()
    for shape in graph.architecture.shapes():
        timed.update(tflite_ops(layer_model(shape)))
    written = tflite_ops(write(model, graph).content)
    for op in ("MAX_POOL_2D", "PAD", "PADV2"):
        assert timed[op] == written[op] > 0
