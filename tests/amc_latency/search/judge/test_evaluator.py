"""The reward on a small real network: what is scored is the sliced network, and refit makes it worth looking at."""

from __future__ import annotations

import copy

import pytest
import scipy.stats
import torch
from torch import nn
from torch.nn import functional

from amc_latency.graph.trace import NetworkGraph, trace
from amc_latency.prune.cut import cut
from amc_latency.prune.rank import consumer_l1, keep_indices
from amc_latency.prune.refit import collect
from amc_latency.search.judge.evaluator import NetworkEvaluator, RankedCut, is_hopeless


def small_network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 24, 1, bias=False),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 4),
    )


def four_textures(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy 8 x 8 stripes along x, stripes along y, a chequerboard or nothing."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (n,), generator=generator)
    x, y = torch.arange(8) % 2 * 2.0 - 1, torch.arange(8) % 2 * 2.0 - 1
    textures = torch.stack([x.expand(8, 8), y[:, None].expand(8, 8), x * y[:, None], torch.zeros(8, 8)])
    images = textures[labels] + torch.randn(n, 8, 8, generator=generator)
    return images[:, None], labels


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, NetworkGraph]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = small_network()
    images, labels = four_textures(256, seed=1)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(40):
        optimizer.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    model.eval()
    return model, trace(model, (1, 8, 8))


def make_evaluator(trained: tuple[nn.Module, NetworkGraph]) -> NetworkEvaluator:
    model, graph = trained
    calibration, _ = four_textures(256, seed=2)
    images, labels = four_textures(250, seed=3)
    statistics = collect(model, graph, calibration)
    return NetworkEvaluator(model, graph, RankedCut(model, graph, statistics), calibration, images, labels)


def plain_score(network: nn.Module, n: int) -> tuple[float, float]:
    """Accuracy and loss on the first `n` images, in one batch by PyTorch's own modules."""
    images, labels = four_textures(250, seed=3)
    with torch.no_grad():
        logits = network(images[:n])
    right = (logits.argmax(1) == labels[:n]).double().mean().item()
    return right, functional.cross_entropy(logits, labels[:n]).item()


def test_uncut_accuracy_is_plain_pytorch(trained: tuple[nn.Module, NetworkGraph]) -> None:
    score = make_evaluator(trained)((16, 24))
    accuracy, loss = plain_score(trained[0], 250)
    assert accuracy > 0.9  # so that there is something to lose
    # batch norm's statistics are of other images
    assert score.accuracy == pytest.approx(accuracy, abs=0.02)
    assert score.loss == pytest.approx(loss, abs=0.05)
    assert score.images == 250


def test_the_scored_network_is_sliced_and_the_original_untouched(
    trained: tuple[nn.Module, NetworkGraph],
) -> None:
    before = copy.deepcopy(trained[0].state_dict())
    evaluate = make_evaluator(trained)
    network = evaluate.network((8, 16))
    assert [tuple(p.shape) for p in network.parameters() if p.ndim > 1] == [(8, 1, 3, 3), (16, 8, 1, 1), (4, 16)]
    score = evaluate((8, 16))
    assert (score.accuracy, score.loss) == pytest.approx(plain_score(network, 250), abs=1e-5)
    assert evaluate((8, 16)) == score
    for name, tensor in trained[0].state_dict().items():
        assert torch.equal(tensor, before[name])


def test_refit_and_recalibration_beat_bare_cutting(trained: tuple[nn.Module, NetworkGraph]) -> None:
    model, graph = trained
    evaluate = make_evaluator(trained)
    repaired, bare = [], []
    for counts in ((4, 6), (6, 8), (8, 8), (4, 12)):
        keep = [keep_indices(scores, n) for scores, n in zip(consumer_l1(model, graph), counts, strict=True)]
        bare.append(plain_score(cut(model, graph, keep).eval(), 250)[0])
        repaired.append(evaluate(counts).accuracy)
    assert sum(repaired) > sum(bare) + 0.1
    assert min(repaired) > 0.3  # four classes: chance is 0.25


def test_a_hopeless_policy_is_given_up_and_its_score_is_of_the_images_seen(
    trained: tuple[nn.Module, NetworkGraph],
) -> None:
    evaluate = make_evaluator(trained)
    whole = evaluate((1, 1))
    assert whole.images == 250
    assert whole.accuracy < 0.7
    given_up = evaluate((1, 1), best=0.95)
    assert given_up.images == 200
    expected = plain_score(evaluate.network((1, 1)), 200)
    assert (given_up.accuracy, given_up.loss) == pytest.approx(expected, abs=1e-5)
    assert evaluate((1, 1)) == whole
    assert evaluate((16, 24), best=0.95).images == 250


def test_policies_as_good_as_the_best_are_hardly_ever_given_up() -> None:
    for best, seen, images in ((0.92, 200, 1000), (0.7, 200, 1000), (0.5, 300, 500)):
        right = scipy.stats.hypergeom(images, round(best * images), seen)
        given_up = sum(right.pmf(k) for k in range(seen + 1) if is_hopeless(k / seen, seen, best, images))
        assert 1e-4 < given_up < 4e-3
    assert not is_hopeless(0.0, 1000, 0.9, 1000)  # all seen
    assert not is_hopeless(0.0, 200, 0.0, 1000)  # nothing to reach


def test_counts_that_do_not_fit_are_refused(trained: tuple[nn.Module, NetworkGraph]) -> None:
    evaluate = make_evaluator(trained)
    with pytest.raises(ValueError, match="can't keep 17 of 16"):
        evaluate((17, 24))
