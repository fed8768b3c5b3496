"""Refit, against numpy's least squares on explicit inputs and outputs; batch-norm recalibration."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from amc_latency.data import load_data
from amc_latency.graph.trace import trace
from amc_latency.models.load import NetworkOptions, load_network
from amc_latency.models.zoo.mobilenet_v1 import mobilenet_v1
from amc_latency.prune.cut import cut
from amc_latency.prune.rank import consumer_l1, keep_indices
from amc_latency.prune.refit import InputStatistics, RankedRefit, collect, recalibrate_batch_norm, refit, ridge_for
from amc_latency.training.loop import accuracy

IMAGE = (3, 8, 8)
ALL = 10**9
EXACT = 1e-12


def images(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, *IMAGE, generator=torch.Generator().manual_seed(seed))


def build(kind: str) -> nn.Module:
    """A small network whose module `consumer` reads 8 channels, in each way that a layer can."""
    torch.manual_seed(1)
    stem = [("stem", nn.Conv2d(3, 8, 3, padding=1)), ("relu", nn.ReLU())]
    tail = [("pool", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten()), ("fc", nn.Linear(5, 4))]
    layers: dict[str, list[tuple[str, nn.Module]]] = {
        "pointwise with bias": [("consumer", nn.Conv2d(8, 5, 1)), *tail],
        "pointwise without bias": [("consumer", nn.Conv2d(8, 5, 1, bias=False)), *tail],
        "3x3 with bias": [("consumer", nn.Conv2d(8, 5, 3, stride=2, padding=1)), *tail],
        "3x3 without bias": [("consumer", nn.Conv2d(8, 5, 3, padding=1, bias=False)), *tail],
        "3x3 padded as its input": [("consumer", nn.Conv2d(8, 5, 3, padding="same")), *tail],
        "oblong": [("consumer", nn.Conv2d(8, 5, (1, 5), 2, (0, 2))), *tail],
        "3x3 with batch norm": [
            ("consumer", nn.Conv2d(8, 5, 3, padding=1, bias=False)),
            ("bn", nn.BatchNorm2d(5)),
            *tail,
        ],
        "linear": [
            ("pool", nn.AdaptiveAvgPool2d(1)),
            ("flatten", nn.Flatten()),
            ("consumer", nn.Linear(8, 4)),
        ],
        "linear after flattening 2x2": [
            ("down", nn.MaxPool2d(4)),
            ("flatten", nn.Flatten()),
            ("consumer", nn.Linear(8 * 4, 4)),
        ],
    }
    model = nn.Sequential()
    for name, module in [*stem, *layers[kind]]:
        model.add_module(name, module)
    return model.eval()


def consumer_inputs(model: nn.Module, x: Tensor) -> tuple[np.ndarray, Tensor]:
    """What the consumer's weights multiply, [rows, channels, values a channel], by PyTorch's own im2col."""
    seen: list[Tensor] = []
    handle = model.consumer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        model(x)
    handle.remove()
    (features,) = seen
    if isinstance(model.consumer, nn.Conv2d):
        conv = model.consumer
        padding = 1 if conv.padding == "same" else conv.padding
        columns = functional.unfold(features, conv.kernel_size, 1, padding, conv.stride)
        rows = columns.transpose(1, 2).flatten(0, 1)
    else:
        rows = features
    return rows.double().numpy().reshape(len(rows), 8, -1), features


def check_against_numpy(model: nn.Module, small: nn.Module, x: Tensor, kept: Tensor) -> None:
    """The weights and bias of the small network's consumer are numpy's least squares on the kept channels."""
    rows, _ = consumer_inputs(model, x)
    weight = model.consumer.weight.detach().double().numpy().reshape(-1, rows[0].size)
    outputs = rows.reshape(len(rows), -1) @ weight.T
    inputs = rows[:, kept.numpy()].reshape(len(rows), -1)
    if small.consumer.bias is not None:
        outputs += model.consumer.bias.detach().double().numpy()
        inputs = np.c_[inputs, np.ones(len(inputs))]
    solution = np.linalg.lstsq(inputs, outputs, rcond=None)[0].T
    ours = small.consumer.weight.detach().numpy().reshape(len(weight), -1)
    if small.consumer.bias is not None:
        ours = np.c_[ours, small.consumer.bias.detach().numpy()]
    np.testing.assert_allclose(ours, solution, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "kind",
    [
        "pointwise with bias",
        "pointwise without bias",
        "3x3 with bias",
        "3x3 without bias",
        "3x3 padded as its input",
        "oblong",
        "linear",
        "linear after flattening 2x2",
    ],
)
def test_equals_numpy_least_squares(kind: str) -> None:
    model = build(kind)
    x = images(300)
    graph = trace(model, IMAGE)
    kept = torch.tensor([0, 2, 3, 6])
    keep = [kept, *(torch.arange(group.channels) for group in graph.groups[1:])]
    small = cut(model, graph, keep)
    refit(small, model, graph, collect(model, graph, x, points=ALL, batch_size=70), keep, ridge=EXACT)

    check_against_numpy(model, small, x, kept)


class Fire(nn.Module):
    """SqueezeNet's: two expansions side by side, and what else their reader finds beside them."""

    def __init__(self, beside: str, bias: bool) -> None:
        super().__init__()
        self.squeeze, self.left = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 1)
        self.right, self.beside = nn.Conv2d(4, 6, 3, padding=1), beside
        self.consumer = nn.Conv2d(len(self.order()), 4, 3, padding=1, bias=bias)
        # Unlike a ReLU it leaves no channel at 0, where any weight would do.
        self.swish = nn.Hardswish()
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))

    def order(self) -> Tensor:
        """Which part each input of the consumer is of: 0 the image's, 1 left's, 2 right's."""
        parts = {"the other expansion": [1] * 5 + [2] * 6, "the image": [0] * 3 + [1] * 5}[self.beside]
        return torch.tensor(parts)

    def forward(self, x: Tensor) -> Tensor:
        y = self.swish(self.squeeze(x))
        left = self.swish(self.left(y))
        if self.beside == "the image":
            joined = torch.cat([x, left], 1)
        else:
            joined = torch.cat([left, self.swish(self.right(y))], 1)
        return self.head(self.consumer(joined))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("beside", ["the other expansion", "the image"])
def test_a_layer_behind_a_concatenation_equals_torchs_least_squares(beside: str, bias: bool) -> None:
    torch.manual_seed(3)
    model, x = Fire(beside, bias).eval(), images(40)
    graph = trace(model, IMAGE)
    wanted = {"squeeze": [0, 1, 2, 3], "left": [0, 2, 3], "right": [1, 2, 5]}
    keep = [torch.tensor(wanted.get(group.name, range(group.channels))) for group in graph.groups]
    small = cut(model, graph, keep)
    refit(small, model, graph, collect(model, graph, x, points=ALL), keep, ridge=EXACT)

    seen: list[Tensor] = []
    handle = model.consumer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        model(x)
    handle.remove()
    rows = functional.unfold(seen[0], 3, padding=1).transpose(1, 2).flatten(0, 1).double()
    targets = rows @ model.consumer.weight.detach().double().flatten(1).T
    order = model.order()
    stays = torch.cat(
        [torch.ones(int((order == 0).sum()))]
        + [
            torch.zeros(int((order == part).sum())).index_fill(0, torch.tensor(wanted[name]), 1)
            for part, name in ((1, "left"), (2, "right"))
            if bool((order == part).any())
        ]
    ).bool()
    inputs = rows.view(len(rows), len(order), 9)[:, stays].flatten(1)
    if bias:
        inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], 1)
    solution = torch.linalg.lstsq(inputs, targets, driver="gelsd").solution.T
    features = 9 * int(stays.sum())
    assert small.consumer.in_channels == int(stays.sum()) < len(order)
    ours = small.consumer.weight.detach().double().flatten(1)
    torch.testing.assert_close(ours, solution[:, :features], rtol=1e-4, atol=1e-5)
    assert (ours - model.consumer.weight[:, stays].flatten(1)).abs().max() > 1e-2  # refit did something
    if bias:
        expected = solution[:, features] + model.consumer.bias.double()
        torch.testing.assert_close(small.consumer.bias.double(), expected, rtol=1e-4, atol=1e-5)


def test_a_dilated_convolution_is_left_as_it_was_cut() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 5, 3, dilation=2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    graph = trace(model, IMAGE)
    statistics = collect(model, graph, images(4))
    assert "1" not in statistics
    keep = [torch.tensor([1, 3])]
    small = cut(model, graph, keep)
    refit(small, model, graph, statistics, keep)
    assert torch.equal(small[1].weight, model[1].weight[:, [1, 3]])


@pytest.mark.parametrize("kind", ["3x3 with bias", "linear after flattening 2x2"])
def test_one_factor_serves_all_cuts_of_a_ranking(kind: str) -> None:
    model = build(kind)
    x = images(300)
    graph = trace(model, IMAGE)
    order = torch.tensor([6, 0, 3, 2, 7, 1, 5, 4])
    others = [torch.arange(group.channels) for group in graph.groups[1:]]
    ranked = RankedRefit(model, graph, collect(model, graph, x, points=ALL), [order, *others], ridge=EXACT)
    for count in (5, 1, 4):
        kept = order[:count].sort().values
        small = cut(model, graph, [kept, *others])
        ranked.apply(small, [kept, *others])
        check_against_numpy(model, small, x, kept)
    with pytest.raises(ValueError, match="stem: the channels to keep are not the first 2 of its ranking"):
        ranked.apply(small, [torch.tensor([0, 1]), *others])


@pytest.mark.parametrize("kind", ["pointwise with bias", "3x3 without bias", "3x3 with batch norm", "linear"])
def test_a_channel_that_others_make_up_is_not_missed(kind: str) -> None:
    model = build(kind)
    with torch.no_grad():  # channel 5 = 2 * channel 0 + channel 3, before and, being positive, after the ReLU
        for tensor in (model.stem.weight, model.stem.bias):
            tensor[5] = 2 * tensor[0] + tensor[3]
        model.stem.bias[[0, 3]] += 50
        model.stem.bias[5] += 150
    x = images(200)
    graph = trace(model, IMAGE)
    keep = [
        torch.tensor([0, 1, 2, 3, 4, 6, 7]),
        *(torch.arange(group.channels) for group in graph.groups[1:]),
    ]
    small = cut(model, graph, keep)
    with torch.no_grad():
        expected, without = model(x), small(x)
        refit(small, model, graph, collect(model, graph, x, points=ALL), keep, ridge=EXACT)
        torch.testing.assert_close(small(x), expected, rtol=1e-3, atol=1e-3)
        assert (without - expected).abs().max() > 1


def test_batch_norm_takes_the_mean_that_is_lost() -> None:
    model = build("3x3 with batch norm")
    x = images(100)
    recalibrate_batch_norm(model, x, batch_size=100)
    graph = trace(model, IMAGE)
    keep = [torch.tensor([0, 2, 3]), torch.arange(5)]
    small = cut(model, graph, keep)
    refit(small, model, graph, collect(model, graph, x, points=ALL), keep)
    with torch.no_grad():
        outputs = small.consumer(small.relu(small.stem(x)))
    torch.testing.assert_close(outputs.mean((0, 2, 3)), small.bn.running_mean, rtol=1e-4, atol=1e-4)


def test_cut_outputs_are_left_out_of_the_fit() -> None:
    model = build("3x3 with bias")
    x = images(100)
    graph = trace(model, IMAGE)
    statistics = collect(model, graph, x, points=ALL)
    whole = [torch.tensor([0, 2, 3, 6]), torch.arange(5)]
    fewer = [whole[0], torch.tensor([1, 4])]
    with_all, with_fewer = cut(model, graph, whole), cut(model, graph, fewer)
    refit(with_all, model, graph, statistics, whole)
    refit(with_fewer, model, graph, statistics, fewer)
    torch.testing.assert_close(with_fewer.consumer.weight, with_all.consumer.weight[[1, 4]])
    torch.testing.assert_close(with_fewer.consumer.bias, with_all.consumer.bias[[1, 4]])


def test_channels_that_are_always_zero_do_not_break_the_fit() -> None:
    model = build("pointwise with bias")
    with torch.no_grad():
        model.stem.weight[[1, 2]] = 0
        model.stem.bias[[1, 2]] = -1
    graph = trace(model, IMAGE)
    for kept in ([0, 1, 2, 3], [1], [1, 2]):
        keep = [torch.tensor(kept), torch.arange(5)]
        small = cut(model, graph, keep)
        refit(small, model, graph, collect(model, graph, images(50)), keep, ridge=0.0)
        assert torch.isfinite(small(images(2))).all()


def test_the_same_seed_gives_the_same_weights() -> None:
    torch.manual_seed(0)
    model = mobilenet_v1(0.25, 10).eval()
    x = torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    graph = trace(model, (3, 32, 32))
    keep = [torch.arange(group.channels)[group.channels // 4 :] for group in graph.groups]
    first, again, other = (cut(model, graph, keep) for _ in range(3))
    for small, seed in ((first, 3), (again, 3), (other, 4)):
        refit(small, model, graph, collect(model, graph, x, points=8, seed=seed), keep)
    with torch.no_grad():
        assert torch.equal(first(x), again(x))
        assert not torch.equal(first(x), other(x))


def test_the_bundled_network_is_repaired() -> None:
    network = load_network(NetworkOptions())
    model, graph, data = network.model, network.graph, load_data("bundled")
    calibration = data.train.take(256).inputs((64, 64))
    keep = [
        keep_indices(scores, max(8, len(scores) // 16 * 8))
        for scores in consumer_l1(model, graph)  # half of the channels, a quarter of the MACs
    ]
    recalibrated, refitted = cut(model, graph, keep), cut(model, graph, keep)
    as_cut = accuracy(recalibrated, data.held_back.take(300), (64, 64))
    recalibrate_batch_norm(recalibrated, calibration)
    refit(refitted, model, graph, collect(model, graph, calibration), keep)
    recalibrate_batch_norm(refitted, calibration)
    after_recalibration = accuracy(recalibrated, data.held_back.take(300), (64, 64))
    assert as_cut + 20 < after_recalibration
    assert after_recalibration + 5 < accuracy(refitted, data.held_back.take(300), (64, 64))


def test_collecting_leaves_the_network_and_its_mode_alone() -> None:
    model = build("3x3 with batch norm").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    collect(model, trace(model, IMAGE), images(10))
    assert model.training
    assert not model.consumer._forward_pre_hooks
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_layer_with_too_many_features_is_left_as_it_was_cut() -> None:
    model = build("linear after flattening 2x2")
    graph = trace(model, IMAGE)
    statistics = collect(model, graph, images(10), max_features=31)
    assert not statistics
    keep = [torch.tensor([0, 1])]
    small = cut(model, graph, keep)
    refit(small, model, graph, statistics, keep)
    assert torch.equal(small.consumer.weight, model.consumer.weight[:, :8])


def test_statistics_are_of_the_points_that_were_asked_for() -> None:
    model = build("3x3 with bias")
    graph = trace(model, IMAGE)
    x = images(30)
    rows, _ = consumer_inputs(model, x)
    flat = rows.reshape(len(rows), -1)
    everything = collect(model, graph, x, points=ALL)["consumer"]
    assert everything.rows == 30 * 4 * 4
    np.testing.assert_allclose(everything.mean.numpy(), flat.mean(0), rtol=1e-6)
    np.testing.assert_allclose(everything.covariance.numpy(), np.cov(flat.T, ddof=0), atol=1e-6)
    assert collect(model, graph, x, points=5)["consumer"].rows == 30 * 5


def test_recalibrated_statistics_are_those_of_the_images() -> None:
    model = build("3x3 with batch norm")
    x = images(60)
    with torch.no_grad():
        features = model.consumer(model.relu(model.stem(x)))
    batches = features.split(20)
    recalibrate_batch_norm(model, x, batch_size=20)
    torch.testing.assert_close(model.bn.running_mean, features.mean((0, 2, 3)))
    variances = [batch.transpose(0, 1).flatten(1).var(1) for batch in batches]
    torch.testing.assert_close(model.bn.running_var, torch.stack(variances).mean(0))
    assert not model.bn.training
    assert model.bn.momentum == 0.1
    recalibrate_batch_norm(model, x, batch_size=1000)
    torch.testing.assert_close(model.bn.running_var, features.transpose(0, 1).flatten(1).var(1))


class Pooled(nn.Module):
    """A classifier that reads what a global pool leaves of each channel: one row an image."""

    def __init__(self, root: Tensor, out: int) -> None:
        super().__init__()
        features = len(root)
        self.stem, self.pool = nn.Conv2d(features, features, 1, bias=False), nn.AdaptiveAvgPool2d(1)
        self.flatten, self.consumer = nn.Flatten(), nn.Linear(features, out)
        with torch.no_grad():
            self.stem.weight.copy_(root[:, :, None, None])
            self.consumer.weight.normal_(generator=torch.Generator().manual_seed(8))

    def forward(self, x: Tensor) -> Tensor:
        return self.consumer(self.flatten(self.pool(self.stem(x))))


@pytest.mark.parametrize("decay", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("rows", [16, 32, 64])
def test_of_few_rows_a_refit_does_no_harm_on_fresh_images(rows: int, decay: float) -> None:
    features, outputs = 128, 16
    generator = torch.Generator().manual_seed(rows)
    turn = torch.linalg.qr(torch.randn(features, features, generator=generator)).Q
    root = turn * torch.arange(1, features + 1) ** (-decay / 2)
    model = Pooled(root, outputs).eval()
    graph = trace(model, (features, 1, 1))
    keep = [torch.arange(features // 2)]
    seen = torch.randn(rows, features, 1, 1, generator=generator)

    @torch.no_grad()
    def missed(small: nn.Module) -> float:
        """The expected squared error on an image of independent Gaussians, which either network multiplies."""
        whole = model.consumer.weight @ root
        part = small.consumer.weight @ root[keep[0]]
        return float((whole - part).square().sum() + (model.consumer.bias - small.consumer.bias).square().sum())

    as_cut, refitted, interpolating = (cut(model, graph, keep) for _ in range(3))
    statistics = collect(model, graph, seen)
    refit(refitted, model, graph, statistics, keep)
    refit(interpolating, model, graph, statistics, keep, ridge=1e-6)
    assert missed(refitted) < missed(as_cut)
    if rows == len(keep[0]):
        assert missed(interpolating) > missed(as_cut)


def test_of_many_rows_a_refit_is_the_least_squares() -> None:
    model = build("linear")
    graph = trace(model, IMAGE)
    statistics = collect(model, graph, images(300))
    keep = [torch.tensor([0, 2, 3, 6])]
    small, exact = cut(model, graph, keep), cut(model, graph, keep)
    refit(small, model, graph, statistics, keep)
    refit(exact, model, graph, statistics, keep, ridge=EXACT)
    torch.testing.assert_close(small.consumer.weight, exact.consumer.weight, rtol=1e-3, atol=1e-3)
    # As many rows as features are enough: the bundled classifier's 512 images.
    for rows, expected in ((8, 1e-6), (2, 0.9)):
        inputs = InputStatistics(torch.zeros(8), torch.eye(8), rows)
        assert ridge_for(inputs) == pytest.approx(expected)
