"""What a search is measured against: the uniform width that a designer would pick, and random policies."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from amc_latency.errors import UserError
from amc_latency.search.clamp import Clamp
from amc_latency.search.costs import Counts, LatencyCosts
from lut.plan import uniform_counts


def uniform_policy(costs: LatencyCosts, target_ms: float) -> Counts:
    """The widest uniform keep ratio, rounded to choices, that is predicted at or under `target_ms`.

    Every distinct rounding is looked at, so it is the widest also where a wider network is faster.
    Raises `UserError` naming the fastest uniform width if none is fast enough.
    """
    policies = uniform_policies(costs)
    for counts in policies:
        if costs.ms(counts) <= target_ms:
            return counts
    fastest = min(map(costs.ms, policies))
    raise UserError(f"no uniform width reaches {target_ms:.6g} ms; the fastest is predicted at {fastest:.6g} ms")


def uniform_policies(costs: LatencyCosts) -> list[Counts]:
    """Every policy that rounding one keep ratio to each group's nearest choice can give, widest first."""
    # A count changes where the ratio passes the middle between two choices: look once between all of these.
    middles = {
        (low + high) / 2 / channels
        for choices, channels in zip(costs.choices, costs.full, strict=True)
        for low, high in pairwise(choices)
    }
    places = sorted({0.0, 1.0, *middles}, reverse=True)
    widths = [1.0, *((wide + narrow) / 2 for wide, narrow in pairwise(places))]
    policies = [uniform_counts(costs.architecture, costs.choices, width) for width in widths]
    return list(dict.fromkeys(policies))


def random_policies(clamp: Clamp, n: int, seed: int) -> list[Counts]:
    """`n` policies under the target: keep ratios uniform from a group's smallest to 1, clamped in order."""
    rng = np.random.default_rng(seed)
    costs = clamp.costs
    policies = []
    for _ in range(n):
        counts: Counts = ()
        for choices, channels in zip(costs.choices, costs.full, strict=True):
            counts = (*counts, clamp.nearest(counts, rng.uniform(choices[0] / channels, 1.0)))
        policies.append(counts)
    return policies
