"""Weight pruning: counts, masks, what they cost packed, and what a policy's network is."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from amc_latency.data import ImageData, InMemory, Split
from amc_latency.errors import UserError
from amc_latency.export.export import export
from amc_latency.graph.trace import trace
from amc_latency.models.load import Network
from amc_latency.models.spec import ModelSpec
from amc_latency.pixels import Normalisation
from amc_latency.prune.refit import recalibrate_batch_norm
from amc_latency.search.config import SearchConfig
from amc_latency.search.costs.costs import LatencyCosts
from amc_latency.search.costs.sizes import params_costs
from amc_latency.search.judge.config import JudgeConfig
from amc_latency.search.judge.weights import WeightGrid, WeightJudge, masked, weight_layers, weight_network, zeros_held
from amc_latency.search.targets.zipped import emptied, zipped_bytes, zipped_costs

WEIGHTS = {"0": 32 * 9, "3": 32 * 9, "6": 64 * 32, "9": 128 * 64 * 9, "14": 128 * 10}
"""Dense, depthwise, pointwise, dense, linear."""


@pytest.fixture(scope="module")
def network() -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            *(nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
            *(nn.Conv2d(32, 32, 3, padding=1, groups=32, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
            *(nn.Conv2d(32, 64, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()),
            *(nn.Conv2d(64, 128, 3, padding=1, bias=False), nn.BatchNorm2d(128), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10)),
        )
        for module in model:
            if isinstance(module, nn.BatchNorm2d):
                # Of either sign and of different sizes, as trained ones.
                nn.init.normal_(module.weight)
                nn.init.uniform_(module.running_var, 0.1, 3.0)
    model.eval()
    return Network(model, ModelSpec("own", input=(1, 8, 8), classes=10), trace(model, (1, 8, 8)), trained=True)


def images(n: int, seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (n, 1, 8, 8), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 10, (n,), generator=generator)
    return InMemory(pixels, labels, Normalisation((0.5,), (0.3,)))


def nonzeros(model: nn.Module) -> list[int]:
    return [int(np.count_nonzero(model.get_parameter(f"{name}.weight").detach().numpy())) for name in WEIGHTS]


def test_groups_are_the_layers_with_weights_and_choices_are_twentieths(network: Network) -> None:
    view = weight_network(network)
    assert weight_layers(network.model, network.graph) == list(WEIGHTS)
    assert view.graph.architecture.group_channels == tuple(WEIGHTS.values())
    first = WeightGrid().choices(view)[0]
    # 14.4, 28.8, 43.2, ... 273.6, and all.
    assert first[:3] == (14, 29, 43)
    assert (len(first), first[-2:]) == (20, (274, 288))
    # 259 would be 89.9 %, and 14 is 4.86 %: a bound that is set holds to the weight.
    assert WeightGrid(0.9).choices(view)[0] == (260, 274, 288)
    assert WeightGrid(0.05).choices(view)[0][:3] == (15, 29, 43)
    # What an earlier round has left, and no count below the grid's: 100 is no multiple of a twentieth.
    assert WeightGrid(0.2).choices_within(view, (100, 288, 2048, 73728, 1280))[0] == (58, 72, 86, 100)


@settings(max_examples=15, deadline=None)
@given(shares=st.lists(st.integers(1, 20), min_size=5, max_size=5))
def test_what_stays_are_the_largest_weights(network: Network, shares: list[int]) -> None:
    counts = [max(1, round(share * n / 20)) for share, n in zip(shares, WEIGHTS.values(), strict=True)]
    small = masked(network.model, list(WEIGHTS), counts)
    assert nonzeros(small) == counts
    for name in WEIGHTS:
        before = network.model.get_parameter(f"{name}.weight").detach()
        after = small.get_parameter(f"{name}.weight").detach()
        kept = after != 0
        assert torch.equal(before[kept], after[kept])
        if not kept.all():
            assert before[~kept].abs().max() <= before[kept].abs().min()
            assert not torch.signbit(after[~kept]).any()
    assert nonzeros(network.model) == list(WEIGHTS.values())


def test_zeros_stay_zeros_while_all_else_learns(network: Network) -> None:
    small = masked(network.model, list(WEIGHTS), [n // 4 for n in WEIGHTS.values()])
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    step_on(small, held=True)
    for name in WEIGHTS:
        weight, old = small.state_dict()[f"{name}.weight"], before[f"{name}.weight"]
        assert torch.equal(weight == 0, old == 0)
        assert (weight != old)[old != 0].float().mean() > 0.9
    # Outside, the same steps would fill them.
    step_on(small, held=False)
    assert nonzeros(small)[4] > WEIGHTS["14"] // 4


def step_on(model: nn.Module, held: bool) -> None:
    split = images(32, seed=1)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)

    def steps() -> None:
        for _ in range(3):
            optimizer.zero_grad()
            functional.cross_entropy(model.train()(split.inputs((8, 8))), split.labels).backward()
            optimizer.step()

    if held:
        with zeros_held(model):
            steps()
    else:
        steps()
    model.eval()


def test_parameters_are_counted_in_the_masked_network(network: Network) -> None:
    view = weight_network(network)
    counts = (29, 29, 512, 18432, 320)
    # A bias for each output, the batch norms being folded.
    biases = 32 + 32 + 64 + 128 + 10
    costs = params_costs(view.graph.architecture, WeightGrid().choices(view))
    assert costs.of((288, 288, 2048, 73728, 1280)) == sum(WEIGHTS.values()) + biases
    choices = WeightGrid(0.05).choices(view)
    counts = tuple(each[i] for each, i in zip(choices, (1, 1, 4, 4, 4), strict=True))
    costs = params_costs(view.graph.architecture, choices)
    assert costs.of(counts) == sum(nonzeros(masked(network.model, list(WEIGHTS), counts))) + biases


@pytest.mark.parametrize("places", [(0, 0, 0, 0, 0), (3, 3, 3, 3, 3), (19, 5, 9, 1, 12), (9, 9, 9, 12, 9), (19,) * 5])
def test_packed_bytes_are_foretold_a_little_over_the_real_file(
    network: Network, places: tuple[int, ...], tmp_path: Path
) -> None:
    view = weight_network(network)
    choices = WeightGrid(0.05).choices(view)

    def file(model: nn.Module) -> bytes:
        export(model, (1, 8, 8), tmp_path / "net.tflite")
        return (tmp_path / "net.tflite").read_bytes()

    costs = zipped_costs(view, choices, zipped_bytes(file(emptied(view).model)))
    counts = tuple(each[i] for each, i in zip(choices, places, strict=True))
    truth = len(zlib.compress(file(masked(network.model, list(WEIGHTS), counts)), 9))
    assert truth <= costs.of(counts) <= 1.06 * truth


def test_a_policy_is_scored_as_its_masked_and_recalibrated_network(network: Network) -> None:
    splits = [images(n, seed) for seed, n in ((1, 128), (2, 150), (3, 50))]
    data = ImageData("noise", *splits, classes=10)
    judge = WeightJudge(weight_network(network), data, JudgeConfig(150, 128, 128))
    counts = (72, 288, 512, 18432, 640)
    small = masked(network.model, list(WEIGHTS), counts)
    recalibrate_batch_norm(small, splits[0].inputs((8, 8)))
    with torch.no_grad():
        logits = small(splits[1].inputs((8, 8)))
    score = judge(counts)
    assert score.accuracy == pytest.approx((logits.argmax(1) == splits[1].labels).double().mean().item(), abs=1e-9)
    assert score.loss == pytest.approx(functional.cross_entropy(logits, splits[1].labels).item(), rel=1e-4)
    # No channel goes, so what a checkpoint says of the network stays.
    assert judge.spec(counts) == network.spec

    choices = WeightGrid(0.05).choices(judge.base)
    costs = LatencyCosts(judge.base.graph.architecture, choices, lambda shape: 0.0, 1.0)
    _, lost = judge.damages("refit", costs)
    squares = np.sort(network.model.get_parameter("14.weight").detach().double().numpy().ravel() ** 2)
    for count, value in zip(choices[4], lost[4], strict=True):
        assert value == pytest.approx(squares[: 1280 - count].sum() / squares.sum(), abs=1e-9)


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(1, 64, 7), nn.Conv2d(64, 64, 7, groups=64), nn.ConvTranspose2d(64, 1, 7)],
    ids=["dense", "depthwise", "transposed"],
)
def test_weights_are_packed_in_the_order_of_the_file(tmp_path: Path, layer: nn.Module) -> None:
    inputs, outputs = layer.in_channels, layer.out_channels
    torch.manual_seed(0)
    model = nn.Sequential(layer, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(outputs, 2))
    with torch.no_grad():
        # Eight filters in a random order: short where a filter's weights lie together, as a dense layer's do.
        layer.weight.copy_(torch.randn(8, 1, 7, 7)[torch.randint(0, 8, (64,))])
    net = Network(model.eval(), ModelSpec("own", input=(inputs, 9, 9), classes=2), trace(model, (inputs, 9, 9)), True)
    export(model, net.spec.input, tmp_path / "whole.tflite")
    blank = emptied(net).model
    export(blank, net.spec.input, tmp_path / "blank.tflite")
    whole, blank_bytes = (zipped_bytes((tmp_path / f"{name}.tflite").read_bytes()) for name in ("whole", "blank"))
    view = weight_network(net)
    counts = view.graph.architecture.group_channels
    told = zipped_costs(view, [(count,) for count in counts], blank_bytes).of(counts)
    assert told == pytest.approx(whole, rel=0.1)


def test_a_layer_of_zeros_is_refused(network: Network) -> None:
    empty = masked(network.model, ["6"], [0])
    with pytest.raises(UserError, match="layer 6 has no weight that is not zero"):
        weight_network(replace(network, model=empty))


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"target_ms": 1.0}, "smaller, not faster"),
        ({"speedup": 2.0}, "smaller, not faster"),
        ({"target_params": 1e5, "target_macs": 1e6}, "smaller, not faster"),
        ({"reward": "macs", "agent": "ddpg"}, "smaller, not faster"),
        ({}, "needs a budget"),
        ({"target_params": 1e5, "damage": "taylor"}, "taylor is about channels"),
        ({"target_params": 1e5, "prune": "filters"}, "nothing is pruned by 'filters'"),
    ],
)
def test_what_zeros_cannot_give_is_refused(settings_: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SearchConfig(**{"prune": "weights", **settings_})
