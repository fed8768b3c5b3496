"""Paired ratios: their intervals cover what they claim, and one spoilt round moves them little."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from amc_latency.device.base import Device, DeviceIdentity, Protocol, Summary, Timing
from amc_latency.device.rounds.paired import PairedTimings, Ratio, paired_ratio
from scipy.stats import wilcoxon


def drawn(rng: random.Random, rounds: int, ratio: float, drift: float, noise: float) -> list[tuple[float, float]]:
    """Pairs under a drift that both share, each with a noise of its own."""
    pairs = []
    for _ in range(rounds):
        both = math.exp(rng.gauss(0, drift))
        pairs.append((ratio * both * math.exp(rng.gauss(0, noise)), both * math.exp(rng.gauss(0, noise))))
    return pairs


@pytest.mark.parametrize("rounds", [3, 5, 6, 9, 15, 27])
def test_intervals_cover_the_truth_as_often_as_they_say(rounds: int) -> None:
    rng = random.Random(rounds)
    found = [paired_ratio(drawn(rng, rounds, 0.5, drift=0.3, noise=0.02)) for _ in range(800)]
    inside = sum(each.low <= 0.5 <= each.high for each in found)
    # 95 %, three standard errors of 800 draws down; ranks can be more careful than they have to be.
    assert inside / len(found) >= 0.925
    assert np.median([each.value for each in found]) == pytest.approx(0.5, rel=0.005)


@pytest.mark.parametrize("rounds", [6, 7, 9, 12, 20])
def test_the_interval_is_that_of_wilcoxons_test(rounds: int) -> None:
    rng = random.Random(100 + rounds)
    pairs = drawn(rng, rounds, 0.7, drift=0.0, noise=0.05)
    found = paired_ratio(pairs)
    logs = np.log([one / other for one, other in pairs])

    def p(ratio: float) -> float:
        return float(wilcoxon(logs - math.log(ratio), method="exact").pvalue)

    for edge, inward in ((found.low, 1 + 1e-6), (found.high, 1 - 1e-6)):
        assert p(edge * inward) > 0.05
        assert p(edge / inward) <= 0.05


def test_a_round_that_was_spoilt_moves_little() -> None:
    pairs = drawn(random.Random(1), 11, 0.5, drift=0.1, noise=0.003)
    spoilt = [(pairs[0][0] * 3, pairs[0][1]), *pairs[1:]]
    assert paired_ratio(spoilt).value == pytest.approx(paired_ratio(pairs).value, rel=0.004)
    # Of eleven rounds one average on each side lies outside; those of the spoilt round are ten more.
    assert paired_ratio(spoilt).low > 0.49


def test_a_shared_drift_cancels() -> None:
    found = paired_ratio([(10.0 * drift, 20.0 * drift) for drift in (1, 2, 3, 1.5, 7, 0.2, 4)])
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))


def test_one_round_says_nothing_of_its_error() -> None:
    found = paired_ratio([(3.0, 4.0)])
    assert (found.value, found.low, found.high) == (0.75, 0.0, math.inf)
    assert found.verdict(0.8) == "within the noise"
    back = found.inverse()
    assert (back.value, back.low, back.high) == (pytest.approx(4 / 3), 0.0, math.inf)


@pytest.mark.parametrize(
    ("low", "high", "says"), [(0.4, 0.5, "met"), (0.45, 0.51, "within the noise"), (0.501, 0.6, "not met")]
)
def test_a_verdict_is_about_the_interval(low: float, high: float, says: str) -> None:
    assert Ratio((low + high) / 2, low, high, 9).verdict(0.5) == says


def test_the_inverse_is_the_other_way_round() -> None:
    pairs = drawn(random.Random(5), 9, 0.4, drift=0.1, noise=0.02)
    there, back = paired_ratio(pairs).inverse(), paired_ratio([(b, a) for a, b in pairs])
    assert (there.value, there.low, there.high) == pytest.approx((back.value, back.low, back.high))


class Drifting(Device):
    """Two workloads, one twice as slow, on a device whose speed is another in each round."""

    identity = DeviceIdentity("fake", "", "")

    def time_round(self, workloads, protocol, round_index):  # type: ignore[no-untyped-def]
        for workload in workloads:
            us = (1 + round_index) * {b"fast": 10.0, b"slow": 20.0}[workload.build()]
            summary = Summary(us, us, us, 0.0)
            yield Timing(workload.name, round_index, 1, summary, summary)


class Beside(Device):
    """Half as fast beside a neighbour, by whom the one workload suffers more than the other."""

    identity = DeviceIdentity("fake", "", "")

    def __init__(self, busy: str) -> None:
        self.busy = busy

    def time_round(self, workloads, protocol, round_index):  # type: ignore[no-untyped-def]
        is_busy = self.busy[round_index] == "b"
        for workload in workloads:
            calm_us, busy_us = {b"fast": (10.0, 8.0), b"slow": (20.0, 20.0)}[workload.build()]
            us = busy_us if is_busy else calm_us
            summary = Summary(us, us, us, 0.0)
            yield Timing(
                workload.name, round_index, 1, summary, summary, conditions='{"busy": true}' if is_busy else ""
            )


@pytest.mark.parametrize(
    ("busy", "rounds", "ratio", "counted"),
    [("......", 6, 0.5, 6), ("bb....", 6, 0.5, 4), ("bbbb..bb..bb", 12, 0.5, 4), ("bbbbbbbbbbbb", 12, 0.4, 12)],
)
def test_rounds_beside_a_neighbour_do_not_count_and_more_are_timed(
    busy: str, rounds: int, ratio: float, counted: int
) -> None:
    timings = PairedTimings(Beside(busy), {"a": b"fast", "b": b"slow"}, Protocol(statistic="median"))
    timings.add_until(lambda so_far: True, least=6, most=18)
    assert timings.rounds == rounds
    found = timings.ratio("a", "b")
    assert (found.value, found.rounds) == (pytest.approx(ratio), counted)
    assert timings.level_ms("a").value == pytest.approx(0.02 * ratio)
    assert timings.measurement("a").latency_ms == pytest.approx(0.02 * ratio)


def test_rounds_are_added_until_there_are_enough() -> None:
    timings = PairedTimings(Drifting(), {"a": b"fast", "b": b"slow"}, Protocol(statistic="median"))
    timings.add_until(lambda so_far: so_far.ratio("a", "b").half_pct < 1, least=3, most=9)
    assert timings.rounds == 3
    assert timings.ratio("a", "b").value == pytest.approx(0.5)
    assert timings.measurement("b").latency_ms == pytest.approx(0.04)
    timings.add_until(lambda so_far: False, least=1, most=7)
    assert (timings.rounds, timings.ratio("b", "a").rounds) == (7, 7)
