"""Which shapes are timed, and how a device's steps are found."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from amc_latency.lut.building.plan import input_shapes, nearest_counts, spread, sweep_shapes, uniform_counts
from amc_latency.lut.building.steps import Steps, representatives, step_width
from amc_latency.lut.shapes.architecture import Architecture, Layer
from amc_latency.lut.shapes.shape import NOOP, LayerShape

from tests.lut.scripted_device import all_choices, mobilenet_v1, small_architecture


def staircase(width: int, counts: range, noise: float, seed: int, offset: float = 20.0) -> dict[int, float]:
    rng = random.Random(seed)
    return {c: (offset + 27.7 * -(-c // width) * width / 16) * (1 + rng.gauss(0, noise)) for c in counts}


@pytest.mark.parametrize("width", [8, 16, 24, 32])
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("counts", [range(104, 513, 8), range(208, 1025, 8)])
def test_steps_are_found_under_half_a_percent_of_noise(width: int, seed: int, counts: range) -> None:
    assert step_width([staircase(width, counts, 0.005, seed)]) == width


@pytest.mark.parametrize("seed", range(8))
def test_several_short_sweeps_together_show_the_step(seed: int) -> None:
    short = [staircase(16, range(16, 65, 8), 0.01, 10 * seed + i) for i in range(3)]
    assert step_width(short) == 16


@pytest.mark.parametrize("seed", range(8))
def test_two_outliers_do_not_hide_the_step(seed: int) -> None:
    sweep = staircase(16, range(104, 513, 8), 0.003, seed)
    for count in random.Random(seed).sample(sorted(sweep), 2):
        sweep[count] *= 1.2
    assert step_width([sweep]) == 16


def test_too_few_points_say_nothing() -> None:
    assert step_width([]) is None
    assert step_width([{64: 1.0}]) is None
    assert step_width([staircase(16, range(8, 33, 8), 0.0, 0)]) is None


def test_a_flat_sweep_has_no_step() -> None:
    assert step_width([dict.fromkeys(range(8, 200, 8), 5.0)]) is None


def test_a_short_sweep_takes_the_step_of_its_relatives() -> None:
    def measured(size: int, counts: range) -> dict[LayerShape, float]:
        return {LayerShape("conv", 64, c, size, size): us for c, us in staircase(32, counts, 0.0, 0).items()}

    steps = Steps({**measured(14, range(8, 513, 8)), **measured(56, range(8, 25, 8))})
    assert steps.width(LayerShape("conv", 64, 16, 56, 56)) == 32
    assert steps.width(LayerShape("conv", 64, 16, 28, 28)) == 32
    # A 3x3 convolution is another kernel of the runtime, of which nothing is known here.
    assert steps.width(LayerShape("conv", 64, 16, 28, 28, 3)) == 1


def test_the_representative_is_the_largest_count_of_a_step() -> None:
    assert representatives((8, 16, 24, 32, 40), 16) == [16, 32, 40]
    assert representatives((8, 16, 20), 16) == [16, 20]
    assert representatives((8, 10), 1) == [8, 10]


@pytest.mark.parametrize(("points", "expected"), [(1, [72]), (2, [8, 72]), (3, [8, 40, 72]), (5, [8, 24, 40, 56, 72])])
def test_input_counts_are_spread_evenly(points: int, expected: list[int]) -> None:
    assert spread(range(8, 73, 8), points) == expected


def test_a_layer_with_one_channel_figure_is_timed_at_every_count() -> None:
    shapes = sweep_shapes(small_architecture(), all_choices(small_architecture()))
    first = [shape.c_in for shape in shapes if shape.kind == "depthwise" and shape.stride == 1]
    assert sorted(first) == [8, 16, 24, 32]
    assert sorted(shape.c_in for shape in shapes if shape.kind == "global_pool") == [*range(32, 129, 8)]


def test_the_sweep_holds_the_no_op_and_every_output_count_at_the_widest_input() -> None:
    architecture = small_architecture()
    shapes = sweep_shapes(architecture, all_choices(architecture))
    assert shapes[0] == NOOP
    assert set(architecture.shapes()) <= set(shapes)
    last = [(s.c_in, s.c_out) for s in shapes if (s.kind, s.kernel, s.h) == ("conv", 1, 8)]
    assert sorted(last) == [(64, c_out) for c_out in range(32, 129, 8)]
    assert [(s.c_in, s.c_out) for s in shapes if s.kind == "linear"] == [(128, 10)]
    assert len(shapes) == len(set(shapes))


def test_the_second_stage_times_one_output_count_a_step_at_other_inputs() -> None:
    architecture = small_architecture()
    steps = Steps({LayerShape("conv", 64, c, 8, 8, activation="relu6"): -(-c // 16) for c in range(8, 129, 8)})
    shapes = input_shapes(architecture, all_choices(architecture), steps)
    last = [(s.c_in, s.c_out) for s in shapes if (s.kind, s.kernel, s.h) == ("conv", 1, 8)]
    # 64 of 16..64 was swept; its smallest and middle counts remain.
    assert sorted(last) == [(c_in, c_out) for c_in in (16, 40) for c_out in range(32, 129, 16)]
    assert sorted(s.c_in for s in shapes if s.kind == "linear") == [32, 80]
    assert not [s for s in shapes if s.kind == "conv" and s.kernel == 3]
    assert not set(shapes) & set(sweep_shapes(architecture, all_choices(architecture)))


def test_fixed_channels_stay_fixed_and_odd_full_counts_are_kept() -> None:
    architecture = small_architecture((20, 36, 128))
    shapes = sweep_shapes(architecture, all_choices(architecture))
    assert {s.c_in for s in shapes if s.kernel == 3 and s.kind == "conv"} == {1}
    assert sorted(s.c_in for s in shapes if s.kind == "depthwise" and s.stride == 1) == [8, 16, 20]


def test_a_layer_inside_one_group_is_swept_over_both_figures() -> None:
    layer = Layer(LayerShape("conv", 32, 32, 8, 8, 3, 1, 1), 0, 0)
    architecture = Architecture((layer,), (32,))
    choices = all_choices(architecture)
    swept = {(s.c_in, s.c_out) for s in sweep_shapes(architecture, choices) if s.kind == "conv"}
    assert swept == {(32, c) for c in (8, 16, 24, 32)}
    others = {(s.c_in, s.c_out) for s in input_shapes(architecture, choices, None)}
    assert others == {(c_in, c_out) for c_in in (8, 24) for c_out in (8, 16, 24, 32)}


def test_mobilenet_v1_needs_about_twelve_hundred_shapes() -> None:
    architecture = mobilenet_v1()
    choices = all_choices(architecture)
    first = sweep_shapes(architecture, choices)
    # Per group 4, 7, 13, 26, 52 and 103 counts for 32 to 1024 channels: the stem and nine kinds of pointwise,
    # nine kinds of depthwise, the pool, the classifier and the no-op.
    pointwise = 7 + 2 * 13 + 2 * 26 + 2 * 52 + 2 * 103
    depthwise = 4 + 7 + 2 * 13 + 2 * 26 + 2 * 52 + 103
    assert len(first) == 1 + 4 + pointwise + depthwise + 103 + 1
    steps = Steps({s: -(-s.c_out // 16) * s.c_in for s in first if s.kind == "conv"})
    others = input_shapes(architecture, choices, steps)
    assert 1000 <= len(first) + len(others) <= 1400


def test_nearest_counts_are_reachable_and_ties_go_up() -> None:
    assert nearest_counts(((8, 16, 24), (8, 16, 20)), (12, 19)) == (16, 20)
    architecture = small_architecture()
    assert uniform_counts(architecture, all_choices(architecture), 0.5) == (16, 32, 64)
    assert uniform_counts(architecture, all_choices(architecture), 0.01) == (8, 16, 32)
    ordered = [uniform_counts(architecture, all_choices(architecture), w / 10) for w in range(2, 11)]
    assert all(a <= b for small, large in pairwise(ordered) for a, b in zip(small, large, strict=True))
