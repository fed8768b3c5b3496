"""Shapes of networks of several precisions, against a list made edge by edge."""

from __future__ import annotations

import itertools
import random

import pytest
from amc_latency.lut.shapes.architecture import INPUT, Architecture, Layer
from amc_latency.lut.shapes.mixed import MixedArchitecture, mixed_shapes
from amc_latency.lut.shapes.shape import LayerShape, ShapeError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.lut.random_mixed import expected_texts, random_mixed
from tests.lut.scripted_device import small_architecture

F, Q = "float32", "int8"
BOTH = ((Q, F),)


def block() -> Architecture:
    """A stem whose map a convolution and a sum read; the sum and a second head are returned."""
    conv = LayerShape("conv", 8, 8, 4, 4)
    return Architecture(
        (
            Layer(LayerShape("conv", 3, 8, 8, 8, kernel=2, stride=2), None, 0, reads=(INPUT,)),
            Layer(conv, 0, 0, reads=(0,)),
            Layer(LayerShape("add", 8, 8, 4, 4), 0, 0, reads=(0, 1)),
            Layer(conv, 0, None, reads=(0,)),
        ),
        (8,),
        (2, 3),
    )


@pytest.mark.parametrize(
    ("precisions", "expected"),
    [
        ((F, F, F, F), []),
        # One for the image, one for each output.
        ((Q, Q, Q, Q), ["quantize 3x8x8>3", "dequantize 5x4x4>5", "dequantize 8x4x4>8"]),
        # The stem's map is quantised once for three readers.
        ((F, Q, Q, Q), ["quantize 5x4x4>5", "dequantize 5x4x4>5", "dequantize 8x4x4>8"]),
        ((F, Q, F, F), ["quantize 5x4x4>5", "dequantize 5x4x4>5"]),
        ((Q, F, Q, F), ["quantize 3x8x8>3", "dequantize 5x4x4>5", "quantize 5x4x4>5", "dequantize 5x4x4>5"]),
    ],
)
def test_a_boundary_stands_once_a_tensor(precisions: tuple[str, ...], expected: list[str]) -> None:
    shapes = mixed_shapes(block(), precisions, (5,))
    layers = [shape for shape in shapes if "quantize" not in shape.kind]
    assert [shape.text.rpartition(" ")[2] for shape in layers] == list(precisions)
    assert [(shape.c_in, shape.c_out) for shape in layers] == [(3, 5), (5, 5), (5, 5), (5, 8)]
    found = [shape.text for shape in shapes if "quantize" in shape.kind]
    assert sorted(found) == sorted(f"{text} k1 s1 p0 none int8" for text in expected)


def test_all_float32_is_the_network_as_it_was() -> None:
    network = small_architecture()
    assert mixed_shapes(network, (F,) * 7, (8, 24, 40)) == network.shapes((8, 24, 40))
    mixed = MixedArchitecture(network, BOTH * 7)
    assert mixed.shapes() == network.shapes()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.booleans())
def test_shapes_are_those_of_each_edge(seed: int, layers: int, ties: bool) -> None:
    mixed = random_mixed(seed, layers, ties)
    rng = random.Random(seed)
    choices = mixed.choices([(1, 4, 6)] * len(mixed.architecture.group_channels))
    values = tuple(rng.choice(each) for each in choices)
    counts, precisions = mixed.counts(values), mixed.precisions(values)
    assert all(each in allowed for each, allowed in zip(precisions, mixed.allowed, strict=True))
    assert mixed.values(counts, precisions) == values
    shapes = mixed.shapes(values)
    assert shapes == mixed_shapes(mixed.architecture, precisions, counts)
    assert sorted(shape.text for shape in shapes) == expected_texts(mixed.architecture, counts, precisions)
    for part in mixed.layers:
        assert set(mixed.shapes_of(part, values)) <= set(mixed.reachable(part, choices))
        # Nothing but its scope changes a part.
        other = [rng.choice(each) for each in choices]
        for variable in mixed.scope(part):
            other[variable] = values[variable]
        assert mixed.shapes_of(part, other) == mixed.shapes_of(part, values)


def test_variables_are_in_network_order() -> None:
    mixed = MixedArchitecture(small_architecture(), (*(BOTH * 5), (F,), (Q, F)))
    names = mixed.names("abc", [f"layer {i}" for i in range(7)])
    assert names == (
        "channels of a",
        "precision of layer 0",
        "precision of layer 1",
        "channels of b",
        "precision of layer 2",
        "precision of layer 3",
        "channels of c",
        "precision of layer 4",
        "precision of layer 6",
    )
    assert mixed.full == (32, 2, 2, 64, 2, 2, 128, 2, 2)
    assert mixed.choices(((8, 16), (64,), (128,)))[:4] == ((8, 16), (1, 2), (1, 2), (64,))
    pool = next(part for part in mixed.layers if part.makes == 5)
    assert [mixed.makes(pool, variable) for variable in range(9)] == [i == 6 for i in range(9)]


def test_what_does_not_fit_is_refused() -> None:
    network = small_architecture()
    with pytest.raises(ValueError, match="6 precisions for a network of 7 layers"):
        mixed_shapes(network, (F,) * 6)
    with pytest.raises(ValueError, match="2 channel counts"):
        mixed_shapes(network, (F,) * 7, (8, 24))
    with pytest.raises(ShapeError):
        mixed_shapes(network, (*(F,) * 6, "int3"))
    with pytest.raises(ValueError, match="each layer needs"):
        MixedArchitecture(network, BOTH * 6)
    with pytest.raises(ValueError, match="tied to an earlier one"):
        MixedArchitecture(network, BOTH * 7, (0, 1, 2, 4, 4, 5, 6))
    tied = MixedArchitecture(network, BOTH * 7, (0, 0, 2, 3, 4, 5, 6))
    with pytest.raises(ValueError, match="layer 1 can't be float32"):
        tied.values((16, 32, 64), (Q, F, F, F, F, F, F))
    same = {tied.precisions(values)[:2] for values in itertools.product(*tied.choices(((16,), (32,), (64,))))}
    assert same == {(Q, Q), (F, F)}
