"""Networks of random widths and precisions, as `benchmarks/prediction.py --mixed` draws them."""

from __future__ import annotations

from amc_latency.lut.building.plan import Choices
from amc_latency.lut.shapes.mixed import MixedArchitecture
from amc_latency.lut.shapes.precisions import precisions_of

from amc_latency.measuring.whole_networks import Policy
from benchmarks.policies import policy_of, random_policies, uniform_int8, uniform_policies
from tests.lut.scripted_device import all_choices, small_architecture

ARCHITECTURE = small_architecture()
CHOICES: Choices = all_choices(ARCHITECTURE)
MIXED = MixedArchitecture(
    ARCHITECTURE, [precisions_of(layer.shape, ("int8", "float32")) for layer in ARCHITECTURE.layers]
)


def test_a_policy_is_read_off_its_shapes() -> None:
    policies = random_policies(MIXED, CHOICES, 12, 5)
    assert len(set(policies)) > 6
    for policy in (*policies, *uniform_int8(MIXED, CHOICES, (0.5,)), *uniform_policies(ARCHITECTURE, CHOICES, (0.5,))):
        found = policy_of(ARCHITECTURE, policy.shapes(ARCHITECTURE))
        assert found.counts == policy.counts
        # All float32 is told as no precisions.
        assert found == policy or set(policy.precisions) == {"float32"}


def test_precisions_are_drawn_in_runs_and_alone_by_turns() -> None:
    policies = random_policies(MIXED, CHOICES, 200, 7)
    changes = [
        sum(
            a != b
            for policy in policies[start::2]
            for a, b in zip(policy.precisions, policy.precisions[1:], strict=False)
        )
        for start in (0, 1)
    ]
    # Alone, half of the 6 neighbours differ; in runs an eighth.
    assert 250 < changes[0] < 350
    assert 40 < changes[1] < 115


def test_uniform_int8_is_int8_throughout() -> None:
    [policy] = uniform_int8(MIXED, CHOICES, (0.5,))
    assert policy == Policy((16, 32, 64), ("int8",) * 7)
