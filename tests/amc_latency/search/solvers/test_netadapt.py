"""NetAdapt: each iteration meets its budget by one group alone, lands on its targets, and goes on after a kill."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from amc_latency.lut.shapes.architecture import Architecture, Layer
from amc_latency.lut.shapes.shape import LayerShape

from amc_latency.data import InMemory, Split
from amc_latency.errors import UserError
from amc_latency.models.files.checkpoint import load_checkpoint
from amc_latency.models.load import Network, NetworkOptions, load_network
from amc_latency.pixels import Normalisation
from amc_latency.search.costs.costs import Counts, LatencyCosts
from amc_latency.search.judge.score import Score
from amc_latency.search.solvers.netadapt import (
    NetAdaptConfig,
    NetAdaptIteration,
    briefly_trained,
    netadapt,
    reached,
    refitted,
    winner_path,
)

TWO_GROUPS = Architecture(
    (
        Layer(LayerShape("conv", 3, 16), None, 0),
        Layer(LayerShape("conv", 16, 40), 0, 1),
        Layer(LayerShape("linear", 40, 10), 1, None),
    ),
    (16, 40),
)
CHOICES = ((4, 8, 12, 16), (8, 16, 24, 32, 40))


class Killed(Exception):
    """Stands for a kill."""


def products(shape: LayerShape) -> float:
    return float(shape.c_in * shape.c_out)


def ms(a: int, b: int) -> int:
    return 3 * a + a * b + 10 * b


def toy_score(counts: Counts) -> Score:
    return Score(1 - (16 - counts[0]) / 100 - (40 - counts[1]) / 1000, 0.5, 100)


@pytest.fixture(scope="module")
def network() -> Network:
    """MobileNetV1 as small as it gets; only its first and last coupled groups are cut here."""
    return load_network(NetworkOptions("mobilenet_v1", width=0.125, input="1x32x32", classes=3))


def toy_run(network: Network, targets_ms: list[float], config: NetAdaptConfig | None = None) -> list[NetAdaptIteration]:
    return netadapt(network, LatencyCosts(TWO_GROUPS, CHOICES, products), targets_ms, refitted(toy_score), config)


def test_the_iterations_by_hand(network: Network) -> None:
    config = NetAdaptConfig(first_reduction=0.25, decay=0.8)
    run = toy_run(network, [600.0, 300.0], config)
    # Uncut: 48 + 640 + 400 = 1088 ms, a quarter is 272. Budget 816: (8, 40) takes 744 and (16, 24) 672; the
    # second loses 0.016, the first 0.08. Then 217.6 less, but the target of 600 comes first: (16, 16) takes 464
    # and (12, 24) 564. 464 - 174.08 = 289.92 is beyond the target of 300: (16, 8) takes 256 and (4, 16) 236.
    assert [(each.counts, each.predicted_ms) for each in run] == [
        ((16, 24), ms(16, 24)),
        ((16, 16), ms(16, 16)),
        ((16, 8), ms(16, 8)),
    ]
    assert [each.budget_ms for each in run] == pytest.approx([816.0, 600.0, 300.0])
    assert [each.group for each in run] == [1, 1, 1]
    assert [each.evaluations for each in run] == [2, 4, 6]
    assert [each.accuracy for each in run] == pytest.approx([0.984, 0.976, 0.968])
    assert reached(run, 600.0) == run[1]
    assert reached(run, 463.0) == run[2]
    with pytest.raises(UserError, match="at or under 200 ms"):
        reached(run, 200.0)


def test_each_iteration_meets_its_budget_by_one_group(network: Network) -> None:
    target_ms = ms(4, 8) + 1.0
    run = toy_run(network, [target_ms], NetAdaptConfig(first_reduction=0.05, decay=0.99))
    assert run[-1].counts == (4, 8)
    for before, after in itertools.pairwise([(16, 40), *(each.counts for each in run)]):
        assert sum(a != b for a, b in zip(before, after, strict=True)) == 1
        assert all(a >= b for a, b in zip(before, after, strict=True))
    assert all(each.predicted_ms == ms(*each.counts) <= each.budget_ms for each in run)


def test_of_equally_accurate_proposals_the_one_of_less_loss(network: Network) -> None:
    costs = LatencyCosts(TWO_GROUPS, CHOICES, products)
    losses: list[Callable[[Counts], Score]] = [
        lambda counts: Score(0.5, counts[0] / 16, 10),
        lambda counts: Score(0.5, counts[1] / 40, 10),
    ]
    winners = [netadapt(network, costs, [1000.0], refitted(score))[0].group for score in losses]
    assert winners == [0, 1]


def test_a_refitted_run_goes_on_without_scoring_again(network: Network, tmp_path: Path) -> None:
    costs = LatencyCosts(TWO_GROUPS, CHOICES, products)
    scored: list[Counts] = []

    def score(counts: Counts) -> Score:
        scored.append(counts)
        if len(scored) == 8:
            raise Killed
        return toy_score(counts)

    with pytest.raises(Killed):
        netadapt(network, costs, [300.0], refitted(score), folder=tmp_path)
    kept = len((tmp_path / "iterations.jsonl").read_text().splitlines())
    assert kept > 0
    resumed = netadapt(network, costs, [300.0], refitted(score), folder=tmp_path)
    assert resumed == toy_run(network, [300.0])
    assert len(scored) - 8 == resumed[-1].evaluations - resumed[kept - 1].evaluations
    other = LatencyCosts(TWO_GROUPS, CHOICES, lambda shape: products(shape) + (shape.c_out == 32))
    with pytest.raises(UserError, match="belongs to another network or table"):
        netadapt(network, other, [300.0], refitted(score), folder=tmp_path)


def test_targets_and_schedules_that_cannot_be(network: Network) -> None:
    with pytest.raises(UserError, match=f"out of reach.* {ms(4, 8)} ms"):
        toy_run(network, [ms(4, 8) - 1.0])
    with pytest.raises(UserError, match=r"add up to 62.5 % .* 276 ms takes 74.6 %"):
        toy_run(network, [276.0], NetAdaptConfig(first_reduction=0.025, decay=0.96))
    with pytest.raises(UserError, match="at least one target"):
        toy_run(network, [])
    with pytest.raises(UserError, match="first reduction between"):
        NetAdaptConfig(first_reduction=0.0)


def test_stuck_where_only_two_groups_together_help(network: Network) -> None:
    # 40 or 8 channels and 16 or 4 are fast only in pairs.
    costs = LatencyCosts(
        TWO_GROUPS, ((4, 16), (8, 40)), lambda shape: {(16, 40): 5.0, (4, 8): 1.0}.get((shape.c_in, shape.c_out), 9.0)
    )
    with pytest.raises(UserError, match="stuck at 23 ms"):
        netadapt(network, costs, [20.0], refitted(toy_score))


def few_choices(network: Network) -> LatencyCosts:
    full = network.graph.architecture.group_channels
    choices = [(count,) for count in full]
    choices[0], choices[-1] = tuple(range(2, full[0] + 1, 2)), tuple(range(32, full[-1] + 1, 32))
    return LatencyCosts(network.graph.architecture, choices, lambda shape: shape.macs / 1e6)


def images(n: int, seed: int) -> Split:
    """Noise that is bright at the top, at the bottom or nowhere."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (n,), generator=generator)
    pixels = torch.randint(0, 100, (n, 1, 28, 28), generator=generator)
    pixels[labels == 0, :, :14] += 100
    pixels[labels == 1, :, 14:] += 100
    return InMemory(pixels.to(torch.uint8), labels, Normalisation((0.286,), (0.353,)))


def test_trained_weights_are_carried_over_and_a_killed_run_goes_on(network: Network, tmp_path: Path) -> None:
    config = NetAdaptConfig(first_reduction=0.05, decay=1.0, steps=2, batch_size=8, learning_rate=0.05, seed=5)
    costs = few_choices(network)
    target_ms = 0.9 * costs.full_ms
    train, held_back = images(24, seed=1), images(30, seed=2)
    before = {name: tensor.clone() for name, tensor in network.model.state_dict().items()}

    def run(folder: Path, stop_after: int | None = None) -> list[NetAdaptIteration]:
        def kill(iteration: NetAdaptIteration) -> None:
            if iteration.iteration == stop_after:
                raise Killed

        return netadapt(network, costs, [target_ms], briefly_trained(train, held_back, config), config, folder, kill)

    whole = run(tmp_path / "whole")
    assert len(whole) >= 2
    with pytest.raises(Killed):
        run(tmp_path / "killed", stop_after=1)
    with (tmp_path / "killed" / "iterations.jsonl").open("a") as log:
        log.write('{"iteration": 2, "gro')  # torn by the kill
    assert run(tmp_path / "killed") == whole
    assert run(tmp_path / "killed") == whole  # nothing left to do

    for each in whole:
        one, other = (
            load_checkpoint(winner_path(tmp_path / name, each.iteration))[0].state_dict()
            for name in ("whole", "killed")
        )
        assert all(torch.equal(one[name], other[name]) for name in one)
    model, spec, _ = load_checkpoint(winner_path(tmp_path / "whole", len(whole)))
    assert spec.channels == whole[-1].counts
    after = model.state_dict()
    uncut = [name for name in after if after[name].shape == before[name].shape and after[name].ndim > 1]
    assert any(not torch.equal(after[name], before[name]) for name in uncut)
    for name, tensor in network.model.state_dict().items():
        assert torch.equal(tensor, before[name])

    with pytest.raises(UserError, match="belongs to a NetAdapt run with other settings"):
        netadapt(network, costs, [target_ms], refitted(toy_score), replace(config, seed=6), tmp_path / "whole")


def test_training_starts_from_the_winner_before(network: Network) -> None:
    """Of no learning rate nothing is learnt: proposals then are what cutting the current network gives."""
    config = NetAdaptConfig(steps=1, batch_size=4, learning_rate=0.0)
    propose = briefly_trained(images(8, seed=1), images(8, seed=2), config)
    full = network.graph.architecture.group_channels
    once = propose(network, (2, *full[1:]), 1)[1]
    with torch.no_grad():
        once.model.get_parameter(once.graph.groups[0].producers[0] + ".weight").fill_(7.0)
    twice = propose(once, (2, *full[1:-1], full[-1] - 32), 2)[1]
    producer = twice.graph.groups[0].producers[0]
    assert torch.equal(twice.model.get_parameter(f"{producer}.weight"), torch.full((2, 1, 3, 3), 7.0))
