"""Networks with one output: accepted, labelled, scored and trained as binary classifiers by sigmoid."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from amc_latency.console import Console
from amc_latency.data import ImageData, InMemory, Split
from amc_latency.data.fitting import labelled_by
from amc_latency.errors import UserError
from amc_latency.export.export import export
from amc_latency.graph.trace import trace
from amc_latency.models.load import NetworkOptions, check_logits, load_network
from amc_latency.pixels import Normalisation
from amc_latency.prune.refit import collect
from amc_latency.search.judge.damage import taylor
from amc_latency.search.judge.evaluator import NetworkEvaluator, RankedCut
from amc_latency.training.loop import fit, judged
from amc_latency.training.recipe import TrainConfig

OWN = """
import torch
from torch import nn
from torch.nn import functional as F

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed({seed})
        self.a, self.bn = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16)
        self.b, self.bn2 = nn.Conv2d(16, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32)
        self.fc = nn.Linear(32, 1)

    def forward(self, x):
        x = self.bn(self.a(x))
        x = x * (F.relu6(x + 3.0) / 6.0)
        x = self.bn2(self.b(x))
        x = x * (F.relu6(x + 3.0) / 6.0)
        return self.fc(x.mean((2, 3)))

class Sigmoid(Net):
    def forward(self, x):
        return torch.sigmoid(super().forward(x))

class Hard(Net):
    def forward(self, x):
        return F.hardsigmoid(super().forward(x))

class Relu(Net):
    def forward(self, x):
        return F.relu(super().forward(x))

class Faint(Net):
    def __init__(self):
        super().__init__()
        with torch.no_grad():
            self.fc.weight.mul_(1e-9)
            self.fc.bias.zero_()
"""
PIXELS = Normalisation((0.5,) * 3, (0.25,) * 3)
SIZE = (16, 16)


def options(folder: Path, name: str = "Net", seed: int = 0) -> NetworkOptions:
    path = folder / f"own{seed}.py"
    path.write_text(OWN.format(seed=seed))
    return NetworkOptions(f"{path}:{name}", input="3x16x16", weights="own")


@pytest.mark.parametrize("seed", range(20))
def test_any_weights_are_accepted_and_exported(seed: int, tmp_path: Path) -> None:
    network = load_network(options(tmp_path, seed=seed))
    assert network.spec.classes == 1
    report = export(network.model, network.spec.input, tmp_path / "net.tflite")
    assert report.max_abs_error < 1e-6
    assert report.note is None


def test_an_output_that_shows_nothing_is_said(tmp_path: Path) -> None:
    network = load_network(options(tmp_path, "Faint"))
    report = export(network.model, network.spec.input, tmp_path / "net.tflite")
    assert report.note == "every output is within 1e-05 of 0, so equal outputs show nothing: load weights"


@pytest.mark.parametrize("name", ["Sigmoid", "Hard", "Relu"])
def test_an_output_that_is_never_below_0_is_no_logit(name: str, tmp_path: Path) -> None:
    network = load_network(options(tmp_path, name))
    with pytest.raises(UserError, match="one output that is never below 0"):
        check_logits(network)
    check_logits(load_network(options(tmp_path)))


def bright_or_dark(n: int, seed: int) -> Split:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (n,), generator=draw)
    pixels = torch.randint(0, 128, (n, 3, *SIZE), generator=draw) + 64 * labels[:, None, None, None]
    return InMemory(pixels.to(torch.uint8), labels, PIXELS)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    network = load_network(options(tmp_path_factory.mktemp("one"))).model
    settings = TrainConfig(
        epochs=3, batch_size=32, learning_rate=0.05, image_size=SIZE, low_resolution_epochs=0, augment=False
    )
    fit(network, bright_or_dark(320, 1), settings)
    return network


def with_two(model: nn.Module) -> nn.Module:
    """The same classifier with two outputs, of which the first is always 0: softmax of these is the sigmoid."""
    torch.manual_seed(0)
    two = nn.Sequential(model, nn.Linear(1, 2)).eval()
    with torch.no_grad():
        two[1].weight.copy_(torch.tensor([[0.0], [1.0]]))
        two[1].bias.zero_()
    return two


def test_training_learns_it_and_scores_are_those_of_two_outputs(trained: nn.Module) -> None:
    split = bright_or_dark(250, 2)
    accuracy, loss = judged(trained, split, SIZE)
    assert accuracy > 90
    assert 0.001 < loss < 0.6
    assert judged(with_two(trained), split, SIZE) == pytest.approx((accuracy, loss), abs=1e-5)


def test_its_own_labels_are_by_the_sign(trained: nn.Module) -> None:
    split = bright_or_dark(40, 3)
    blank = InMemory(split.images, torch.zeros(40, dtype=torch.int64), PIXELS)
    data = labelled_by(trained, ImageData("photos", blank, blank, blank, classes=0), SIZE, Console(quiet=True))
    with torch.no_grad():
        expected = (torch.sigmoid(trained(split.inputs(SIZE)))[:, 0] > 0.5).long()
    assert 0 < int(expected.sum()) < 40
    for part in data.splits:
        assert torch.equal(part.labels, expected)
    assert (data.classes, data.unlabelled) == (2, True)


def test_a_search_scores_cut_networks_by_threshold_and_binary_cross_entropy(trained: nn.Module) -> None:
    graph = trace(trained, (3, *SIZE))
    split, calibration = bright_or_dark(250, 4), bright_or_dark(128, 5).inputs(SIZE)
    prune = RankedCut(trained, graph, collect(trained, graph, calibration))
    said: list[str] = []
    evaluate = NetworkEvaluator(trained, graph, prune, calibration, split.inputs(SIZE), split.labels, say=said.append)
    losses = []
    for counts in ((16, 32), (8, 16), (2, 2), (1, 1)):
        score, network = evaluate(counts), evaluate.network(counts)
        with torch.no_grad():
            logits = network(split.inputs(SIZE))[:, 0]
        right = ((logits > 0) == (split.labels == 1)).double().mean()
        loss = functional.binary_cross_entropy(torch.sigmoid(logits.double()), split.labels.double())
        assert (score.accuracy, score.loss) == pytest.approx((float(right), float(loss)), abs=1e-4)
        final = evaluate.judged(network, split)
        assert (final.accuracy, final.loss) == pytest.approx((float(right), float(loss)), abs=1e-4)
        losses.append(score.loss)
    # Cross entropy of one output is 0, whatever it says.
    assert len(set(losses)) == 4
    assert min(losses) > 1e-5
    assert not said


def test_taylor_importance_is_that_of_two_outputs(trained: nn.Module) -> None:
    split, choices = bright_or_dark(60, 6), [(4, 8, 16), (8, 32)]
    images = split.inputs(SIZE)
    one = taylor(trained, trace(trained, (3, *SIZE)), images, split.labels, choices)
    two = with_two(trained)
    # The one output is now a channel that is read.
    *other, _ = taylor(two, trace(two, (3, *SIZE)), images, split.labels, [*choices, (1,)])
    for a, b in zip(one, other, strict=True):
        assert a == pytest.approx(b, rel=1e-3)
        assert a[0] > 0
