"""Random policies that take all of the milliseconds, and the registry of rivals."""

from types import SimpleNamespace

import pytest

from amc_latency.errors import UserError
from benchmarks.rivals.methods import RIVALS, Rival, filled_policies
from benchmarks.rivals.rows import OURS

CHOICES = (tuple(range(8, 65, 8)), tuple(range(8, 129, 8)), tuple(range(16, 257, 16)))


def clamp_of(share: float) -> SimpleNamespace:
    """Three layers in a row, a millisecond for each thousand weights."""

    def ms(counts: tuple[int, ...]) -> float:
        first, second, third = counts
        return (3 * first + first * second + second * third) / 1000

    full = (64, 128, 256)
    costs = SimpleNamespace(choices=CHOICES, full=full, ms=ms)
    return SimpleNamespace(costs=costs, target_ms=share * ms(full))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_random_policies_take_all_of_the_milliseconds(share: float) -> None:
    clamp = clamp_of(share)
    policies = filled_policies(clamp, 50, seed=0)
    used = [clamp.costs.ms(counts) / clamp.target_ms for counts in policies]
    assert max(used) <= 1
    # A step of the last layer alone is 16 x 128 of 41,152 weights: 5 % of the whole, 10 % of half of it.
    assert sorted(used)[len(used) // 2] > 0.85
    assert len(set(policies)) > 10
    assert all(count in choices for counts in policies for count, choices in zip(counts, CHOICES, strict=True))


def test_another_seed_draws_others() -> None:
    assert filled_policies(clamp_of(0.5), 5, 0) != filled_policies(clamp_of(0.5), 5, 1)
    assert filled_policies(clamp_of(0.5), 5, 0) == filled_policies(clamp_of(0.5), 5, 0)


def test_random_and_ours_are_among_the_rivals_and_missing_packages_are_named() -> None:
    assert {OURS, "random", "uniform"} <= RIVALS.keys()
    missing = Rival(lambda subject, seed: None, "knob", packages=("torch", "no_such_package"))
    assert not missing.is_installed
    with pytest.raises(UserError, match=r"other.*no_such_package"):
        missing.check("other")
