"""The accuracy of files, against PyTorch's of the network that they were written from and against counts by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from amc_latency.device.rounds.measure import BadModelError
from amc_latency.lut.tflite.writer import TfliteGraph

from amc_latency.data import InMemory
from amc_latency.measuring.accuracy import accuracy_of_file, outcome_of_file, pixels_of
from amc_latency.pixels import Normalisation
from amc_latency.training.intervals import interval_pct

PLAIN = Normalisation((0.0,), (1.0,))


def brighter_half(swap: bool = False) -> bytes:
    """Says 0 where the left of two pixels is brighter, else 1; the other way round with `swap`."""
    graph = TfliteGraph()
    weight = np.array([[1, 0], [0, 1]], np.float32)
    x = graph.flatten(graph.input(1, 2, 1))
    return graph.finish([graph.linear(x, weight[::-1].copy() if swap else weight, np.zeros(2, np.float32))])


def pairs(*labels: int) -> InMemory:
    """Two pixels each: the left one brighter in the first half of the images."""
    half = len(labels) // 2
    bright = torch.tensor([[200, 10]] * half + [[10, 200]] * (len(labels) - half), dtype=torch.uint8)
    return InMemory(bright.view(-1, 1, 1, 2), torch.tensor(labels), PLAIN)


def test_it_is_the_share_of_labels_that_it_puts_first() -> None:
    images = pairs(0, 0, 0, 1, 1, 1, 1, 0)  # 6 of 8 are right
    found = accuracy_of_file(brighter_half(), images)
    assert (found.accuracy_pct, found.images, found.top5_pct) == (75.0, 8, None)
    assert found.interval_95 == interval_pct(75.0, 8)
    assert found.text == "75.00 % (95 % between 40.9 and 92.9) of 8 images"
    assert accuracy_of_file(brighter_half(swap=True), images).accuracy_pct == 25.0
    assert outcome_of_file(brighter_half(), images).said.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_what_is_no_classifier_of_images_is_refused(tmp_path: Path) -> None:
    graph = TfliteGraph()
    same = graph.finish([graph.absolute(graph.input(2, 2, 1))])
    with pytest.raises(BadModelError, match=r"the file returns \[2, 2, 1\] of an image, not a figure for each class"):
        accuracy_of_file(same, pairs(0, 1))
    graph = TfliteGraph()
    colours = graph.finish([graph.global_pool(graph.input(1, 2, 3))])
    with pytest.raises(BadModelError, match="takes images of 3 channels, and these have 1"):
        accuracy_of_file(colours, pairs(0, 1))
    graph = TfliteGraph()
    vector = graph.finish([graph.absolute(graph.input(7))])
    with pytest.raises(BadModelError, match=r"takes \[1, 7\], which is not one image"):
        accuracy_of_file(vector, pairs(0, 1))
    path = tmp_path / "notes.tflite"
    path.write_text("no file at all")
    with pytest.raises(BadModelError, match=r"notes\.tflite is not a \.tflite file"):
        accuracy_of_file(path, pairs(0, 1))
    with pytest.raises(BadModelError, match="No such file"):
        accuracy_of_file(tmp_path / "missing.tflite", pairs(0, 1))


def test_bytes_of_a_uint8_input_are_pixels() -> None:
    found = pixels_of({"shape": [1, 2, 2, 1], "dtype": "uint8", "scale": 0.02, "zero_point": 51}, 1)
    assert found is not None
    # A pixel p stands for 0.02 (p - 51) = (p / 255 - 0.2) / (1 / 5.1).
    np.testing.assert_allclose((*found.mean, *found.std), (0.2, 1 / 5.1))
    assert pixels_of({"shape": [1], "dtype": "int8", "scale": 0.02, "zero_point": 51}, 1) is None
