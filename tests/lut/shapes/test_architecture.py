"""Layer shapes at any channel counts."""

from __future__ import annotations

from itertools import product

import pytest
from amc_latency.lut.shapes.architecture import Architecture, Layer, channel_choices
from amc_latency.lut.shapes.shape import LayerShape
from hypothesis import given
from hypothesis import strategies as st

from tests.lut.scripted_device import mobilenet_v1, small_architecture


def test_counts_reach_both_sides_of_every_layer() -> None:
    shapes = small_architecture().shapes((8, 24, 40))
    assert [(shape.c_in, shape.c_out) for shape in shapes] == [
        (1, 8),
        (8, 8),
        (8, 24),
        (24, 24),
        (24, 40),
        (40, 40),
        (40, 10),
    ]
    assert [shape.h for shape in shapes] == [32, 16, 16, 16, 8, 8, 1]


def test_macs_of_mobilenet_v1_are_those_published() -> None:
    # Howard et al., table 4: 569 million mult-adds and 4.2 million parameters.
    shapes = mobilenet_v1().shapes()
    assert sum(shape.macs for shape in shapes) == 568_740_352
    assert round(sum(shape.params for shape in shapes) / 1e6, 1) == 4.2


def test_flattened_positions_scale_with_their_channel() -> None:
    layer = Layer(LayerShape("linear", 7 * 7 * 16, 10), 0, None)
    assert Architecture((layer,), (16,)).shapes((6,))[0].c_in == 7 * 7 * 6


def test_a_wrong_number_of_counts_is_refused() -> None:
    with pytest.raises(ValueError, match="2 channel counts for a network of 3 coupled groups"):
        small_architecture().shapes((8, 8))


@pytest.mark.parametrize(
    ("channels", "choices"),
    [
        (32, (8, 16, 24, 32)),  # 0.2 * 32 = 6.4
        (40, (8, 16, 24, 32, 40)),  # 0.2 * 40 = 8
        (48, (16, 24, 32, 40, 48)),  # 0.2 * 48 = 9.6
        (20, (8, 16, 20)),
        (4, (4,)),
    ],
)
def test_choices_are_multiples_of_eight_and_all(channels: int, choices: tuple[int, ...]) -> None:
    assert channel_choices(channels) == choices


def test_no_choice_is_below_the_least() -> None:
    assert channel_choices(2, step=1, least=2) == (2,)
    assert channel_choices(4, min_keep=0.1, step=1, least=2) == (2, 3, 4)
    assert channel_choices(16, min_keep=0.1, least=2) == (8, 16)


def joined() -> Architecture:
    """Two branches of 8 and 16 channels and a third of 4 that never change; joined, mixed, flattened at 2x2 pixels."""
    parts = ((0, 1), (1, 1))
    flat = ((0, 4), (1, 4))
    return Architecture(
        (
            Layer(LayerShape("conv", 3, 8, 4, 4, 3, 1, 1), None, 0),
            Layer(LayerShape("conv", 3, 16, 4, 4, 3, 1, 1), None, 1),
            Layer(LayerShape("concat", 28, 28, 4, 4, parts=3), parts, parts),
            Layer(LayerShape("conv", 28, 32, 4, 4, stride=2), parts, None),
            Layer(LayerShape("linear", 28 * 4, 10), flat, None),
        ),
        (8, 16),
    )


def test_joined_channels_are_those_of_each_part_and_what_never_changes() -> None:
    shapes = joined().shapes((5, 9))
    # 8 - 5 = 3 and 16 - 9 = 7 fewer of 28; four values a channel once flattened.
    assert [(shape.c_in, shape.c_out) for shape in shapes] == [(3, 5), (3, 9), (18, 18), (18, 32), (72, 10)]
    assert joined().shapes() == joined().shapes((8, 16)) == tuple(layer.shape for layer in joined().layers)


def test_a_layer_reaches_what_its_groups_choices_make_and_no_more() -> None:
    network, choices = joined(), ((4, 8), (8, 12, 16))
    concat, mix = network.layers[2:4]
    widths = [12 + 4, 16 + 4, 20 + 4, 24 + 4]  # 4 + 12 and 8 + 8 are the same; 4 never change
    assert [shape.c_in for shape in sorted(network.reachable(concat, choices))] == widths
    assert network.in_sizes(mix, choices) == network.out_sizes(concat, choices) == widths
    assert network.out_sizes(mix, choices) == [32]
    assert [(s.c_in, s.c_out) for s in network.reachable(network.layers[1], choices)] == [(3, 8), (3, 12), (3, 16)]
    assert [network.scope(layer) for layer in network.layers] == [(0,), (1,), (0, 1), (0, 1), (0, 1)]
    assert [[network.makes(layer, group) for group in (0, 1)] for layer in network.layers] == [
        [True, False],
        [False, True],
        [True, True],
        [False, False],
        [False, False],
    ]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=3), st.data())
def test_reachable_is_every_shape_of_every_policy(channels: list[int], data: st.DataObject) -> None:
    """Against all policies, one by one."""
    values = [data.draw(st.integers(1, 3)) for _ in channels]
    fixed = data.draw(st.integers(0, 3))
    size = sum(v * c for v, c in zip(values, channels, strict=True)) + fixed
    parts = tuple(enumerate(values))
    layer = Layer(LayerShape("conv", size, 7, 4, 4), parts, None)
    choices = [sorted({*data.draw(st.lists(st.integers(1, c), max_size=3)), c}) for c in channels]
    network = Architecture((layer,), tuple(channels))
    expected = {sum(v * n for v, n in zip(values, policy, strict=True)) + fixed for policy in product(*choices)}
    assert [shape.c_in for shape in sorted(network.reachable(layer, choices))] == sorted(expected)
    assert network.in_sizes(layer, choices) == sorted(expected)


def test_a_group_of_a_grouped_convolution_is_as_wide_as_its_groups() -> None:
    grouped = LayerShape("grouped", 32, 32, 8, 8, 3, 1, 1, per_group=4)
    network = Architecture(
        (
            Layer(LayerShape("conv", 16, 32, 8, 8), None, ((0, 4),)),
            Layer(grouped, ((0, 4),), ((0, 4),)),
            Layer(LayerShape("conv", 32, 24, 8, 8), ((0, 4),), 1),
        ),
        (8, 24),
    )
    assert network.group_widths() == (4, 1)
    assert [(shape.c_in, shape.c_out) for shape in network.shapes((3, 24))] == [(16, 12), (12, 12), (12, 24)]
    found = {network.shapes((count, 24))[1] for count in (2, 4, 8)}
    assert set(network.reachable(network.layers[1], ((2, 4, 8), (24,)))) == found
