"""Agents on the bundled network with its shipped table: what they end with must be better than random policies."""

from __future__ import annotations

import os
import statistics
from pathlib import Path

import pytest
from amc_latency.lut.prediction.predict import Predictor
from amc_latency.lut.table.table import LatencyTable

from amc_latency import lut
from amc_latency.data import load_data
from amc_latency.measuring.profiling import Grid
from amc_latency.models.load import NetworkOptions, load_network
from amc_latency.search.costs.clamp import Clamp
from amc_latency.search.costs.costs import LatencyCosts, predicted_costs
from amc_latency.search.episodes.problem import AgentOptions, Problem
from amc_latency.search.judge.config import JudgeConfig
from amc_latency.search.judge.judge import Judge
from amc_latency.search.judge.score import negative_error
from amc_latency.search.steps.methods import search_episodes

TABLE = Path(lut.__file__).parent / "tables" / "host-epyc-zen4.tsv"
LAST = 50
BETTER_BY = 0.03
"""Of the reward, an error rate: three more of 100 images right, in the mean of the last 50 episodes."""
LONG = "AMC_LATENCY_LONG"


def ends(agent: str, speedup: float, seed: int, episodes: tuple[int, int], images: JudgeConfig, last: int) -> float:
    """The mean reward of the last episodes of a cold search, its `episodes` being random and learned ones."""
    network = load_network(NetworkOptions("bundled"))
    choices = Grid().choices(network)
    costs: LatencyCosts = predicted_costs(network.graph.architecture, choices, Predictor(LatencyTable.open(TABLE)))
    clamp = Clamp(costs, costs.full_ms / speedup)
    problem = Problem(clamp, Judge(network, load_data("bundled"), images), negative_error, seed, 0.2)
    records = search_episodes(problem, AgentOptions(agent, False, episodes[0], sum(episodes)))
    assert all(record.predicted_ms <= clamp.target_ms for record in records)
    return statistics.fmean(record.reward for record in records[-last:])


@pytest.mark.slow
def test_ppo_beats_random() -> None:
    """In 130 episodes on 100 images; the test below is the whole of it."""
    few = JudgeConfig(images=100, calibration_images=64, recalibration_images=32)
    learned, random = (
        ends(agent, 4.0, 0, episodes, few, 30) for agent, episodes in (("ppo", (20, 130)), ("random", (0, 30)))
    )
    assert learned > random + BETTER_BY


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(LONG not in os.environ, reason=f"set {LONG}=1: it takes 15 minutes on two cores")
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("speedup", [2.0, 4.0])
def test_ppo_beats_random_on_all_images(speedup: float, seed: int) -> None:
    learned, random = (ends(agent, speedup, seed, (100, 300), JudgeConfig(), LAST) for agent in ("ppo", "random"))
    assert learned > random + BETTER_BY
