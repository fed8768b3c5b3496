"""Networks that a table tells alike: which to time beside those that are there, and how alike they then are."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from amc_latency.device.rounds.paired import Ratio, paired_ratio

PAIRS = 50
PREDICTED_WITHIN = 1.01
MEASURED_WITHIN = 1.03

Candidate = TypeVar("Candidate")


def within(one: float, other: float, factor: float) -> bool:
    """Whether neither is more than `factor` times the other."""
    return abs(math.log(one / other)) <= math.log(factor)


def pairs_within(predicted_ms: Sequence[float], factor: float = PREDICTED_WITHIN) -> list[tuple[int, int]]:
    """Pairs of networks that are predicted alike, by number."""
    numbers = range(len(predicted_ms))
    return [(a, b) for a, b in itertools.combinations(numbers, 2) if within(predicted_ms[a], predicted_ms[b], factor)]


def partners(
    predicted_ms: Sequence[float],
    candidates: Iterable[Candidate],
    predict_ms: Callable[[Candidate], float],
    pairs: int = PAIRS,
) -> list[Candidate]:
    """Candidates to time too, so that there are so many pairs: one for each network in turn, over and over.

    A network's partner is the first candidate that is predicted within 1 % of it, not the nearest: the nearest would be
    easier. Fewer where the candidates don't suffice.
    """
    told = list(predicted_ms)
    left = {each: predict_ms(each) for each in candidates}
    found: list[Candidate] = []
    while len(pairs_within(told)) < pairs:
        before = len(found)
        for base_ms in predicted_ms:
            if len(pairs_within(told)) >= pairs:
                break
            near = next((each for each, ms in left.items() if within(ms, base_ms, PREDICTED_WITHIN)), None)
            if near is not None:
                found.append(near)
                told.append(left.pop(near))
        if len(found) == before:
            break
    return found


@dataclass(frozen=True)
class PairTest:
    """Pairs predicted within 1 % of each other, as they were measured."""

    ratios: list[Ratio]
    """each pair's, from the rounds in which both were timed"""

    @property
    def alike(self) -> int:
        """How many are measured within 3 %."""
        return sum(within(ratio.value, 1, MEASURED_WITHIN) for ratio in self.ratios)

    @property
    def apart(self) -> int:
        """How many are more than 3 % apart beyond doubt: their whole interval is."""
        return sum(ratio.low > MEASURED_WITHIN or ratio.high < 1 / MEASURED_WITHIN for ratio in self.ratios)

    @property
    def most_pct(self) -> float:
        """The largest distance of all pairs."""
        return max((100 * math.expm1(abs(math.log(ratio.value))) for ratio in self.ratios), default=0.0)


def pair_test(
    predicted_ms: Sequence[float], rounds_us: Sequence[Sequence[float]], seed: int, pairs: int = PAIRS
) -> PairTest:
    """`pairs` of all that are predicted alike, drawn by chance; `rounds_us` are each network's figures by round."""
    found = pairs_within(predicted_ms)
    drawn = random.Random(seed).sample(found, min(pairs, len(found)))
    return PairTest([paired_ratio(list(zip(rounds_us[a], rounds_us[b], strict=True))) for a, b in sorted(drawn)])
