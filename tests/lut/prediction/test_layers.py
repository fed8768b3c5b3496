"""What a single layer costs: its own row, the staircase, or an error that names it."""

from __future__ import annotations

from pathlib import Path

import pytest
from amc_latency.lut.prediction.layers import LayerLatencies, MissingShapeError
from amc_latency.lut.shapes.shape import LayerShape

WHERE = Path("t.tsv")


def depthwise(count: int) -> LayerShape:
    return LayerShape("depthwise", count, count, 14, 14, 3, 1, 1, "relu6")


def pointwise(c_in: int, c_out: int) -> LayerShape:
    return LayerShape("conv", c_in, c_out, 14, 14, activation="relu6")


def test_five_counts_are_needed_to_read_between() -> None:
    timed = {depthwise(count): 0.1 * count for count in (64, 96, 104, 128)}
    with pytest.raises(MissingShapeError):
        LayerLatencies(timed, {}, WHERE).latency_us(depthwise(72))
    timed[depthwise(160)] = 16.0
    layers = LayerLatencies(timed, {}, WHERE)
    assert layers.latency_us(depthwise(72)) == pytest.approx(7.2, rel=0.01)
    assert layers.latency_us(depthwise(160)) == 16.0
    assert layers.reading_error_us(depthwise(160)) == 0.0
    assert 0 < layers.reading_error_us(depthwise(72)) < 1.0


def test_nothing_is_read_off_the_grid_or_outside() -> None:
    layers = LayerLatencies({depthwise(count): 0.1 * count for count in range(64, 161, 8)}, {}, WHERE)
    absent = [depthwise(76), depthwise(56), depthwise(168)]
    assert layers.read([*absent, depthwise(72), depthwise(76)]) == absent


def test_layers_that_took_no_time_tell_nothing_of_others() -> None:
    """A coarse log has rows of 0 us: they answer for themselves, and a whole family of them for no other."""
    layers = LayerLatencies({depthwise(count): 0.0 for count in range(64, 161, 8)}, {}, WHERE)
    assert layers.latency_us(depthwise(64)) == 0.0
    with pytest.raises(MissingShapeError, match="not in the latency table"):
        layers.latency_us(depthwise(72 + 4))
    some = {depthwise(count): 0.1 * count for count in range(64, 161, 8)} | {depthwise(80): 0.0}
    assert LayerLatencies(some, {}, WHERE).latency_us(depthwise(80)) == 0.0


def test_many_at_once_are_as_one_by_one() -> None:
    timed = {pointwise(c_in, c_out): c_in * c_out / 64 for c_in in (64, 128, 256) for c_out in range(64, 257, 24)}
    wanted = [pointwise(c_in, c_out) for c_in in (72, 200) for c_out in range(64, 257, 8)]
    together = LayerLatencies(timed, {}, WHERE)
    assert together.read(wanted) == []
    for shape in wanted:
        alone = LayerLatencies(timed, {}, WHERE)
        assert alone.latency_us(shape) == pytest.approx(together.latency_us(shape), rel=1e-9)
        assert shape.c_in * shape.c_out / 64 == pytest.approx(together.latency_us(shape), rel=0.01)


def test_a_layer_that_failed_says_why_though_others_would_tell() -> None:
    timed = {depthwise(count): 0.1 * count for count in range(64, 161, 8) if count != 80}
    with pytest.raises(MissingShapeError, match="could not be timed: out of memory"):
        LayerLatencies(timed, {depthwise(80).text: "out of memory"}, WHERE).latency_us(depthwise(80))
