"""How many images a `.tflite` itself gets right, run by LiteRT: what ships is the file, not the network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from amc_latency.android_bench.safe.limits import INPUT_VALUES
from amc_latency.device.rounds.measure import BadModelError, read_model
from amc_latency.device.tflite.outputs import TfliteRunner, Value
from amc_latency.pixels import Normalisation
from amc_latency.training.outcome import Accuracy, Outcome, accuracy_of, outcome_of

if TYPE_CHECKING:
    from torch import Tensor

    from amc_latency.data import Split

_COLOURS = (1, 3, 4)


def accuracy_of_file(file: Path | bytes, images: Split, threads: int = 1) -> Accuracy:
    """The accuracy of a `.tflite` on `images`, normalised as the file's input wants its real values.

    See `outcome_of_file`, which says more and raises the same.
    """
    return accuracy_of(outcome_of_file(file, images, threads))


def outcome_of_file(file: Path | bytes, images: Split, threads: int = 1) -> Outcome:
    """What a `.tflite` says of labelled images, image by image, in a process of its own that it may crash.

    It takes one image [1, H, W, C], or [1, C, H, W]; where it takes int8 or uint8, real values are given as its own
    scale has them. Raises `BadModelError` for a file that can't be run, or says no class of an image.
    """
    title = str(file) if isinstance(file, Path) else "the file"
    content = read_model(file) if isinstance(file, Path) else file
    with TfliteRunner(content, title, threads) as runner:
        size, is_first = image_size(runner, title)
        if size[0] != images.channels:
            raise BadModelError(f"{title} takes images of {size[0]} channels, and these have {images.channels}")

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            for inputs, labels in images.parts(size[1:]):
                yield _logits(runner, inputs, is_first, title), labels

        return outcome_of(batches())


def image_size(runner: TfliteRunner, title: str = "the file") -> tuple[tuple[int, int, int], bool]:
    """What a file's input takes: [C, H, W], and whether channels come first in it. Raises `BadModelError`."""
    shape = runner.input["shape"]
    if len(shape) != 4 or shape[0] != 1 or not {shape[1], shape[3]} & {*_COLOURS}:
        sizes = ", ".join(map(str, shape))
        raise BadModelError(f"{title} takes [{sizes}], which is not one image [1, height, width, channels]")
    if math.prod(shape) > INPUT_VALUES:
        raise BadModelError(f"{title} takes {math.prod(shape):,} values, more than the {INPUT_VALUES:,} of one image")
    _, first, second, third = shape
    if third in _COLOURS:
        return (third, first, second), False
    return (first, second, third), True


def pixels_of(of: Value, channels: int) -> Normalisation | None:
    """By which figures pixels of 0..255 become just the bytes of a uint8 input; None for another input."""
    if of["dtype"] != "uint8" or of["scale"] == 0:
        return None
    return Normalisation((of["zero_point"] / 255,) * channels, (1 / (255 * of["scale"]),) * channels)


def _logits(runner: TfliteRunner, inputs: Tensor, channels_first: bool, title: str) -> Tensor:
    import torch

    values = inputs.numpy()
    first = runner.real(values if channels_first else values.transpose(0, 2, 3, 1))[0]
    if first.size == len(first) or first.size != len(first) * max(first.shape[1:]):
        raise BadModelError(f"{title} returns {list(first.shape[1:])} of an image, not a figure for each class")
    return torch.from_numpy(np.ascontiguousarray(first.reshape(len(first), -1)))
