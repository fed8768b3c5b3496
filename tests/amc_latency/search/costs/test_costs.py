"""Many policies at once cost what each costs alone: whole picoseconds, added in any order."""

from __future__ import annotations

import itertools
import math
import random
from fractions import Fraction

import numpy as np
import pytest
from amc_latency.lut.shapes.architecture import Architecture, Channels, Layer
from amc_latency.lut.shapes.shape import LayerShape
from hypothesis import given
from hypothesis import strategies as st

from amc_latency.errors import UserError
from amc_latency.search.costs.costs import LatencyCosts

CHOICES = ((2, 4, 8), (3, 6), (1, 2, 5))
JOINED = ((0, 1), (1, 2))
"""Channels that lie side by side: group 0's, group 1's twice, and others."""
LINKS = (
    *((None, 0), (0, 0), (0, 1), (1, 0), (0, 1), (1, 2), (2, None), (None, None), (1, 1)),
    *((JOINED, JOINED), (JOINED, 2), (JOINED, None)),
)
"""In and out group of each layer: a stem, a residual pair in both directions, a layer that no group sets, a
concatenation and what reads it."""


def full(channels: Channels, fixed: int) -> int:
    if channels is None:
        return fixed
    return 8 + 2 * 6 + 3 if channels == JOINED else CHOICES[channels][-1]


def architecture() -> Architecture:
    layers = []
    for height, (c_in, c_out) in enumerate(LINKS, start=1):
        sizes = (full(c_in, 7), full(c_out, 10))
        kind = "depthwise" if c_in == c_out is not None else "conv"
        layers.append(Layer(LayerShape(kind, *sizes, h=height, w=1), c_in, c_out))
    return Architecture(tuple(layers), tuple(counts[-1] for counts in CHOICES))


def test_what_joins_two_groups_is_as_wide_as_both_and_the_rest() -> None:
    *_, concat, reader, _ = architecture().shapes((2, 3, 1))
    assert (concat.c_in, concat.c_out) == (2 + 2 * 3 + 3,) * 2
    assert (reader.c_in, reader.c_out) == (2 + 2 * 3 + 3, 1)


def cost_ms(shape: LayerShape, seed: int) -> float:
    return random.Random(f"{seed}/{shape.text}").choice((1e-9, 1e-3, 0.1, 1.0, 1e3)) * (1 + shape.c_in * shape.c_out)


def costs(seed: int = 0, offset_ms: float = 0.1) -> LatencyCosts:
    return LatencyCosts(architecture(), CHOICES, lambda shape: cost_ms(shape, seed), offset_ms)


POLICIES = list(itertools.product(*CHOICES))


@given(st.integers(0, 10**6), st.floats(-1e3, 1e3))
def test_every_policy_is_the_sum_of_its_layers_rounded_up_to_picoseconds(seed: int, offset_ms: float) -> None:
    built = costs(seed, offset_ms)
    expected_ps = []
    for counts in POLICIES:
        layers_ms = [cost_ms(shape, seed) for shape in architecture().shapes(counts)]
        expected_ps.append(sum(math.ceil(ms * 10**9) for ms in (offset_ms, *layers_ms)))
    expected = [float(Fraction(total_ps, 10**9)) for total_ps in expected_ps]
    assert built.ms_many(POLICIES).tolist() == expected
    assert [built.ms(counts) for counts in POLICIES] == expected
    assert [built.offset + built.layers_total(built.indices(counts)) for counts in POLICIES] == expected_ps


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.uint64])
def test_counts_may_be_any_whole_numbers_in_any_layout(dtype: type) -> None:
    policies = np.array(POLICIES, dtype=dtype)
    expected = [costs().ms(counts) for counts in POLICIES]
    assert costs().ms_many(policies).tolist() == expected
    assert costs().ms_many(np.asfortranarray(policies)[::-1]).tolist() == expected[::-1]
    assert costs().ms_many(policies[:0]).tolist() == []


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ([(8, 6, 5), (8, 5, 5)], "group 1 can't keep 5 channels; the nearest choice is 6"),
        ([(8, 6, 6)], "group 2 can't keep 6 channels; the nearest choice is 5"),
        ([(8, 6, 5), (-1, 6, 5)], "group 0 can't keep -1 channels; the nearest choice is 2"),
        ([(8, 6, 5), (0, 6, 5)], "group 0 can't keep 0 channels"),
        ([(2**62, 6, 5)], "group 0 can't keep 4611686018427387904 channels; the nearest choice is 8"),
        ([(8, 6)], "rows of 3 whole channel counts, not int64"),
        ((8, 6, 5), "rows of 3 whole channel counts, not int64"),
        ([(8.0, 6.0, 5.5)], "rows of 3 whole channel counts, not float64"),
    ],
)
def test_a_policy_that_is_none_is_refused(policies: list, message: str) -> None:
    with pytest.raises(UserError, match=message):
        costs().ms_many(policies)


def test_a_network_that_nothing_is_cut_from_costs_the_same_in_every_row() -> None:
    layer = Layer(LayerShape("conv", 3, 8), None, None)
    fixed = LatencyCosts(Architecture((layer, layer), ()), (), lambda shape: 0.25, 1.0)
    assert fixed.ms_many(np.empty((3, 0), dtype=int)).tolist() == [1.5] * 3
    assert fixed.ms(()) == 1.5
