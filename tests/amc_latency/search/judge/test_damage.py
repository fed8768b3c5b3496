"""The proxies against plain least squares, finite differences and losses that are known; the iteration on top."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from amc_latency.lut.shapes.architecture import Architecture, Layer
from amc_latency.lut.shapes.shape import LayerShape
from torch import Tensor, nn
from torch.nn import functional

from amc_latency.graph.trace import NetworkGraph, trace
from amc_latency.prune.rank import consumer_l1, keep_indices
from amc_latency.prune.refit import collect
from amc_latency.search.costs.costs import Counts, LayerCosts
from amc_latency.search.judge.damage import balanced, measured, refit_error, taylor
from amc_latency.search.judge.score import Score
from amc_latency.search.solvers.dynamic import solve
from amc_latency.search.solvers.iterated import iterated

CHOICES = [(2, 4, 6), (1, 3, 8)]


@pytest.fixture(scope="module")
def network() -> tuple[nn.Sequential, NetworkGraph]:
    """Two groups; the second is read as 16 values a channel after flattening, by a layer with a bias."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(8 * 16, 4),
        )
        model(torch.randn(64, 1, 8, 8))
    return model.eval(), trace(model, (1, 8, 8))


def images(n: int, seed: int = 1) -> Tensor:
    return torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_refit_error_is_what_least_squares_misses(network: tuple[nn.Sequential, NetworkGraph]) -> None:
    model, graph = network
    seen = images(300)
    damage = refit_error(model, graph, collect(model, graph, seen), CHOICES)
    with torch.no_grad():
        features = [model[:3](seen), model[:6](seen)]
        patches = functional.unfold(features[0], 3, padding=1, stride=2).transpose(1, 2).flatten(0, 1)
        inputs = [patches.double().numpy(), features[1].flatten(1).double().numpy()]
        outputs = [model[3](features[0]).permute(0, 2, 3, 1).flatten(0, 2), model[7](features[1].flatten(1))]
    for group, values in enumerate((9, 16)):
        x, y = inputs[group], outputs[group].double().numpy()
        y = y - y.mean(0)
        for choice, count in enumerate(CHOICES[group]):
            kept = keep_indices(consumer_l1(model, graph)[group], count).numpy()
            columns = (kept[:, None] * values + np.arange(values)).ravel()
            design = np.column_stack([x[:, columns], np.ones(len(x))])
            residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
            assert damage[group][choice] == pytest.approx((residual**2).sum() / (y**2).sum(), rel=1e-3, abs=1e-6)
        assert damage[group][-1] == 0.0
        assert damage[group][0] > 0.1


def test_a_reader_without_statistics_counts_the_weights_that_go(network: tuple[nn.Sequential, NetworkGraph]) -> None:
    model, graph = network
    damage = refit_error(model, graph, {}, CHOICES)
    energy = model[3].weight.detach().square().sum((0, 2, 3))
    order = model[3].weight.detach().abs().sum((0, 2, 3)).argsort(descending=True)
    expected = [float(energy[order[count:]].sum() / energy.sum()) for count in CHOICES[0]]
    np.testing.assert_allclose(damage[0], expected, rtol=1e-6)


def test_taylor_is_the_squared_slope_of_the_loss_by_each_channels_gate(
    network: tuple[nn.Sequential, NetworkGraph],
) -> None:
    model, graph = network
    seen, labels = images(20), torch.arange(20) % 4

    def losses(reader: int, columns: slice, gate: float) -> Tensor:
        gated = copy.deepcopy(model).double()
        with torch.no_grad():
            gated[reader].weight[:, columns] *= gate
            return functional.cross_entropy(gated(seen.double()), labels, reduction="none")

    damage = taylor(model, graph, seen, labels, CHOICES, batch_size=8)
    for group, (reader, values, channels) in enumerate(((3, 1, 6), (7, 16, 8))):
        importance = []
        for channel in range(channels):
            columns = slice(channel * values, (channel + 1) * values)
            slope = (losses(reader, columns, 1 + 1e-4) - losses(reader, columns, 1 - 1e-4)) / 2e-4
            importance.append(float(slope.square().mean()))
        order = consumer_l1(model, graph)[group].argsort(descending=True, stable=True).tolist()
        expected = [sum(importance[channel] for channel in order[count:]) for count in CHOICES[group]]
        np.testing.assert_allclose(damage[group], expected, rtol=1e-3, atol=1e-9)
    assert all(not module._forward_pre_hooks for module in model.modules())


class Joined(nn.Module):
    """A convolution that reads the image, and two groups behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(1, 4, 3, padding=1)
        self.reader, self.head = nn.Conv2d(1 + 3 + 4, 5, 1), nn.Linear(5, 4)

    def features(self, x: Tensor) -> Tensor:
        return torch.cat([x, functional.hardswish(self.left(x)), functional.hardswish(self.right(x))], 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(functional.hardswish(self.reader(self.features(x))).mean((2, 3)))


def test_a_reader_of_several_groups_misses_the_channels_at_their_places() -> None:
    torch.manual_seed(0)
    model, seen, labels = Joined().eval(), images(60), torch.arange(60) % 4
    graph = trace(model, (1, 8, 8))
    assert [group.name for group in graph.groups[:2]] == ["left", "right"]
    choices = [tuple(range(1, group.channels + 1)) for group in graph.groups]
    errors = refit_error(model, graph, collect(model, graph, seen, points=64), choices)
    slopes = taylor(model, graph, seen, labels, choices)
    with torch.no_grad():
        x = model.features(seen).permute(0, 2, 3, 1).flatten(0, 2).double().numpy()
        y = x @ model.reader.weight.flatten(1).double().numpy().T
    y -= y.mean(0)

    def losses(column: int, gate: float) -> Tensor:
        gated = copy.deepcopy(model).double()
        with torch.no_grad():
            gated.reader.weight[:, column] *= gate
            return functional.cross_entropy(gated(seen.double()), labels, reduction="none")

    for group, first in ((0, 1), (1, 4)):
        order = consumer_l1(model, graph)[group].argsort(descending=True, stable=True).tolist()
        weights = model.reader.weight[:, first : first + graph.groups[group].channels]
        assert order == weights.abs().sum((0, 2, 3)).argsort(descending=True).tolist()
        for choice, count in enumerate(choices[group]):
            gone = [first + channel for channel in order[count:]]
            design = np.column_stack([np.delete(x, gone, 1), np.ones(len(x))])
            residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
            assert errors[group][choice] == pytest.approx((residual**2).sum() / (y**2).sum(), rel=1e-3, abs=1e-6)
            by_hand = sum(((losses(c, 1 + 1e-4) - losses(c, 1 - 1e-4)) / 2e-4).square().mean() for c in gone)
            assert slopes[group][choice] == pytest.approx(float(by_hand), rel=1e-3, abs=1e-9)


def test_balancing_divides_by_the_root_of_the_largest() -> None:
    small, none = balanced([np.array([0.04, 0.01, 0.0]), np.zeros(2)])
    assert small.tolist() == pytest.approx([0.2, 0.05, 0.0])
    assert none.tolist() == [0, 0]


COUNTS = (2, 4, 6, 8, 10, 12)


def chain() -> LayerCosts:
    """Three groups in a row; a layer costs the product of its channels."""
    layers = [
        Layer(LayerShape("conv", 3 if i is None else 12, 10 if o is None else 12), i, o)
        for i, o in ((None, 0), (0, 1), (1, 2), (2, None))
    ]
    return LayerCosts(Architecture(tuple(layers), (12, 12, 12)), [COUNTS] * 3, lambda shape: shape.c_in * shape.c_out)


class Loss:
    """Counts how many policies it is asked for."""

    def __init__(self, loss_of: Callable[[Counts], float]) -> None:
        self.loss_of = loss_of
        self.asked: list[Counts] = []

    def __call__(self, counts: Counts) -> Score:
        self.asked.append(counts)
        return Score(0.5, self.loss_of(counts), 100)


def separable(counts: Counts) -> float:
    return sum(weight * (1 - n / 12) ** 2 for weight, n in zip((1, 4, 9), counts, strict=True))


def test_measured_is_the_loss_where_it_was_evaluated_and_monotone_in_between() -> None:
    evaluate = Loss(lambda counts: 0.3 + separable(counts))
    damage, evaluations = measured(evaluate, chain(), points=5)
    assert evaluations == len(evaluate.asked) == len(set(evaluate.asked)) == 1 + 3 * 5
    for weight, values in zip((1, 4, 9), damage, strict=True):
        np.testing.assert_allclose(values, [weight * (1 - n / 12) ** 2 for n in COUNTS], atol=1e-12)
    damage, evaluations = measured(Loss(separable), chain(), points=2)  # at 2, 6 or 8, and 12
    assert evaluations == 1 + 3 * 2
    for weight, values in zip((1, 4, 9), damage, strict=True):
        assert values[[0, -1]].tolist() == pytest.approx([weight * 100 / 144, 0])
        assert (np.diff(values) < 0).all()


def test_measured_around_a_policy_knows_both_sides_and_forbids_the_rest() -> None:
    evaluate = Loss(separable)
    damage, evaluations = measured(evaluate, chain(), points=2, around=(2, 6, 12), reach=1 / 3)
    assert evaluations == len(evaluate.asked) == 1 + 2 + 2 + 2
    assert [np.isfinite(values).tolist() for values in damage] == [
        [True] * 3 + [False] * 3,
        [True] * 5 + [False],
        [False] * 3 + [True] * 3,
    ]
    assert damage[1][[0, 2, 4]].tolist() == pytest.approx([4 * (100 - 36) / 144, 0, 4 * (4 - 36) / 144])
    assert damage[0][0] == damage[2][-1] == 0


def test_noise_that_makes_a_narrower_group_look_better_is_evened_out() -> None:
    losses = dict(zip(COUNTS, (0.9, 0.4, 0.6, 0.2, 0.3, 0.25), strict=True))
    damage, _ = measured(Loss(lambda counts: losses[counts[0]]), chain(), points=5)
    # Neighbours that are out of order share their mean.
    np.testing.assert_allclose(damage[0], [0.65, 0.25, 0.25, 0, 0, 0], atol=1e-12)


def joint(counts: Counts) -> float:
    """What the last group's channels are worth depends on the first group's."""
    a, b, c = (n / 12 for n in counts)
    return (1 - a) ** 2 + 0.5 * (1 - b) ** 2 + 3 * max(0.0, 1.2 - a - c) ** 2


def test_iterating_finds_what_damage_from_the_uncut_network_misses() -> None:
    costs, budget = chain(), 160
    policies = [p for p in itertools.product(COUNTS, repeat=3) if costs.of(p) <= budget]
    least = min(map(joint, policies))
    start = solve(costs, measured(Loss(joint), costs)[0], budget).counts
    assert joint(start) > 1.2 * least
    evaluate = Loss(joint)
    found = iterated(costs, evaluate, budget, start, rounds=3, reach=0.4)
    assert costs.of(found) <= budget
    assert joint(found) < 0.5 * joint(start) + 0.5 * least
    assert found == min(set(evaluate.asked) & set(policies), key=joint)
    assert found == iterated(costs, Loss(joint), budget, start, rounds=3, reach=0.4)


def test_iterating_never_ends_below_its_start() -> None:
    costs, budget = chain(), 160
    start = (4, 6, 6)
    assert costs.of(start) <= budget
    for seed in range(5):
        rng = np.random.default_rng(seed)
        noise = {p: float(rng.random()) for p in itertools.product(COUNTS, repeat=3)}
        found = iterated(costs, Loss(noise.__getitem__), budget, start, rounds=2)
        assert noise[found] <= noise[start]
        assert costs.of(found) <= budget
    assert math.isclose(joint(iterated(costs, Loss(joint), budget, start, rounds=0)), joint(start))
