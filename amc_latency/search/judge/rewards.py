"""What a search maximises: AMC's rewards (section 3.3), with milliseconds beside FLOPs."""

from __future__ import annotations

import math
from collections.abc import Callable
from pkgutil import resolve_name

from amc_latency.arguments.names import find
from amc_latency.search.costs.clamp import Elimination
from amc_latency.search.costs.costs import PS_PER_MS, Counts, LatencyCosts
from amc_latency.search.costs.sizes import macs_costs, params_costs
from amc_latency.search.judge.score import Reward, Score, negative_error
from amc_latency.search.records import REWARDS

NS_PER_MS = 1e6


def make_reward(name: str, costs: LatencyCosts) -> Reward:
    """The reward called `name`, one of `records.REWARDS`. Raises `UserError` for another name."""
    return resolve_name(find(REWARDS, name, "reward").make)(costs)


def by_error(costs: LatencyCosts) -> Reward:
    """R_err = -error."""
    return negative_error


def by_loss(costs: LatencyCosts) -> Reward:
    """The cross entropy's negative, in nats: ours, less noisy than a share of 1,000 images."""
    return lambda score, counts: -score.loss


def by_latency(costs: LatencyCosts) -> Reward:
    """R_latency = -error * log(ns): below 1 ms the logarithm of milliseconds is negative and would pay for errors."""
    return _traded(lambda counts: costs.ms(counts) * NS_PER_MS)


def by_macs(costs: LatencyCosts) -> Reward:
    """R_FLOPs = -error * log(MACs)."""
    return _traded(macs_costs(costs.architecture, costs.choices).of)


def by_params(costs: LatencyCosts) -> Reward:
    """R_Param = -error * log(parameters)."""
    return _traded(params_costs(costs.architecture, costs.choices).of)


class TwoStage:
    """R1 of the two-stage paper (arXiv 1912.02254): accuracy less the cost, which is scaled into 0..1.

    The paper scales FLOPs by the lowest and the highest seen so far; here milliseconds go by the least and the most
    that any policy takes, which what is seen tends to: so a policy is worth the same whenever it comes, and rewards of
    a log can be compared. The paper's formula is lost, this is our reading of its words.
    """

    def __init__(self, costs: LatencyCosts) -> None:
        self._costs = costs
        self._least_ms = Elimination(costs).least_total() / PS_PER_MS
        self._most_ms = costs.ms(costs.widest)

    def __call__(self, score: Score, counts: Counts) -> float:
        """-1..1."""
        span_ms = self._most_ms - self._least_ms
        return score.accuracy - ((self._costs.ms(counts) - self._least_ms) / span_ms if span_ms else 0.0)


def _traded(cost: Callable[[Counts], float]) -> Reward:
    def reward(score: Score, counts: Counts) -> float:
        return -(1 - score.accuracy) * math.log(cost(counts))

    return reward
