from amc_latency.lut.shapes.family import family
from amc_latency.lut.shapes.shape import NOOP, frame_of, parse_shape
from amc_latency.lut.table.timed_layers import TimedLayers

A, B, C = (f"conv {c_in}x8x8>{c_out} k1 s1 p0 relu6 float32" for c_in, c_out in ((8, 16), (24, 32), (24, 48)))
DEPTHWISE = "depthwise 24x8x8>24 k3 s1 p1 relu6 float32"


def test_layers_become_points_of_their_families_in_the_order_of_the_table() -> None:
    timed = TimedLayers({B: 2.0, NOOP.text: 0.5, DEPTHWISE: 3.0, A: 1.0, f"{A} + {DEPTHWISE}": 9.0, C: 0.0})
    assert {shape.text: us for shape, us in timed.items()} == {B: 2.0, NOOP.text: 0.5, DEPTHWISE: 3.0, A: 1.0, C: 0.0}
    conv, depthwise = family(parse_shape(A)), family(parse_shape(DEPTHWISE))
    # Neither the no-op nor what took no time is a point to read between.
    assert list(timed.families) == [conv, depthwise]
    points, us = timed.families[conv]
    assert points.tolist() == [[24, 32], [8, 16]]
    assert us.tolist() == [2.0, 1.0]
    assert timed.families[depthwise][0].tolist() == [[24, 24]]


def test_zeros_before_a_number_are_the_same_layer_and_the_later_key_counts() -> None:
    padded = A.replace("conv 8x", "conv 08x")
    for keys in ({A: 1.0, padded: 2.0, B: 4.0}, {padded: 1.0, A: 2.0, B: 4.0}):
        timed = TimedLayers(keys)
        assert [(shape.text, us) for shape, us in timed.items()] == [(A, 2.0), (B, 4.0)]
        points, us = timed.families[family(parse_shape(A))]
        assert (points.tolist(), us.tolist()) == ([[8, 16], [24, 32]], [2.0, 4.0])


def test_a_frame_is_what_is_left_of_a_key_without_its_channels() -> None:
    assert frame_of(A) == (("conv", "8x8", "k1 s1 p0 relu6 float32"), 8, 16)
    padded_end = "conv 3x8x8>16 k3 s2 p0+1 relu6 float32"
    assert frame_of(padded_end) == (("conv", "8x8", "k3 s2 p0+1 relu6 float32"), 3, 16)
    for text in (
        DEPTHWISE,
        f"{A} + {B}",
        A.replace("conv 8x", "conv 08x"),
        A.replace("conv 8x", "conv 0x"),
        "conv",
        "",
    ):
        assert frame_of(text) is None
