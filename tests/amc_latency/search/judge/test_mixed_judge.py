"""Widths and precisions judged together, by agents and solvers that know of neither."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from amc_latency.lut.shapes.shape import LayerShape
from torch import nn

from amc_latency.data.splits import ImageData, InMemory
from amc_latency.graph.trace import trace
from amc_latency.models.load import Network
from amc_latency.models.spec import ModelSpec
from amc_latency.pixels import Normalisation
from amc_latency.search.costs.clamp import Clamp
from amc_latency.search.costs.costs import LatencyCosts
from amc_latency.search.episodes.problem import AgentOptions, Problem
from amc_latency.search.judge.config import JudgeConfig
from amc_latency.search.judge.mixed import MixedJudge, compared
from amc_latency.search.judge.rewards import make_reward
from amc_latency.search.steps.methods import search_episodes
from tests.amc_latency.quantize.networks import own_net

SIZE = (2, 4, 4)
CHOICES = [(2, 3, 4)]


def ms(shape: LayerShape) -> float:
    share = {"conv": 0.3, "linear": 0.3}.get(shape.kind, 1.3) if shape.precision == "int8" else 1.0
    return (0.02 if "quantize" in shape.kind else 1 + shape.macs / 500) * share


@pytest.fixture(scope="module")
def network() -> Network:
    net = own_net()
    return Network(net, ModelSpec("own", input=SIZE, classes=3), trace(net, SIZE), trained=True)


@pytest.fixture(scope="module")
def data(network: Network) -> ImageData:
    """Noise that is labelled by what the network says of it."""
    generator = torch.Generator().manual_seed(0)
    pixels = Normalisation((0.5, 0.5), (0.3, 0.3))
    splits = []
    for n in (60, 80, 40):
        images = torch.randint(0, 256, (n, *SIZE), generator=generator, dtype=torch.uint8)
        split = InMemory(images, torch.zeros(n, dtype=torch.int64), pixels)
        with torch.no_grad():
            splits.append(split.labelled(network.model(split.inputs(SIZE[1:])).argmax(1)))
    return ImageData("noise", *splits, classes=3)


@pytest.fixture(scope="module")
def judge(network: Network, data: ImageData, tmp_path_factory: pytest.TempPathFactory) -> MixedJudge:
    return MixedJudge(
        network,
        data,
        JudgeConfig(images=80, precisions=("int8", "float32")),
        tmp_path_factory.mktemp("run") / "scores.jsonl",
    )


def problem_of(judge: MixedJudge, share: float) -> Problem:
    costs = LatencyCosts(judge.mixed, judge.mixed.choices(CHOICES), ms)
    return Problem(Clamp(costs, share * costs.full_ms), judge, make_reward("loss", costs), 0, 0.2)


def test_scores_are_of_rounded_networks_and_what_is_delivered_is_not(
    network: Network, data: ImageData, judge: MixedJudge, tmp_path: Path
) -> None:
    whole = judge.mixed.full
    rounded = judge.mixed.values((4,), ("int8",) * 7)
    assert judge.final(whole).images == judge.final(rounded).images == 80
    assert judge.final(whole) != judge.final(rounded)
    assert judge.original_final().value == 100
    kept = judge.network(rounded)
    assert torch.equal(kept(torch.ones(2, *SIZE)), network.model(torch.ones(2, *SIZE)))
    narrow = judge.network(judge.mixed.values((2,), ("int8",) * 7))
    assert isinstance(stem := narrow.get_submodule("stem"), nn.Conv2d)
    assert stem.out_channels == 2
    assert judge.spec(judge.mixed.values((2,), ("int8",) * 7)).channels == (2,)
    # What is in the log is not asked again.
    again = MixedJudge(network, data, JudgeConfig(images=80, precisions=("int8", "float32")), judge.log)
    assert again.final(rounded) == judge.final(rounded)
    assert "evaluator" not in again.__dict__


@pytest.mark.parametrize("agent", ["ddpg", "ppo", "hill"])
def test_agents_act_on_widths_and_precisions_alike(judge: MixedJudge, agent: str) -> None:
    problem = problem_of(judge, 0.7)
    records = search_episodes(problem, AgentOptions(agent, warm_start=False, warmup=2, episodes=6))
    assert len(records) == 6
    for record in records:
        assert problem.clamp.holds(record.counts)
        assert record.predicted_ms <= problem.clamp.target_ms
        assert record.counts == judge.mixed.values(
            judge.mixed.counts(record.counts), judge.mixed.precisions(record.counts)
        )
    assert len({record.counts for record in records}) > 1


def test_dynamic_programming_starts_from_measured_damage(judge: MixedJudge) -> None:
    problem = problem_of(judge, 0.7)
    (damage,) = problem.damages()
    assert problem.damages()[0] is damage
    assert [compared(size) for size in ((64, 64), (224, 224))] == [64, 16]
    assert [len(each) for each in damage] == [len(each) for each in problem.clamp.costs.choices]
    assert all(each[-1] == 0 for each in damage)
    records = search_episodes(problem, AgentOptions("dp", episodes=25))
    losses = [problem.judge(record.counts).loss for record in records]
    fastest = problem.clamp.costs.choices
    least = tuple(each[0] for each in fastest)
    assert all(problem.clamp.holds(record.counts) for record in records)
    assert min(losses) < judge(least).loss
