"""Layer shapes at any channel counts."""

from __future__ import annotations

import pytest
from scripted_device import mobilenet_v1, small_architecture

from lut.architecture import Architecture, Layer, channel_choices
from lut.shape import LayerShape


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
