"""How many images a `.tflite` itself gets right, run by LiteRT: what ships is the file, not the network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from amc_latency.android_bench.safe.limits import INPUT_VALUES
from amc_latency.console import Console, put
from amc_latency.data import Split, fitted, load_data
from amc_latency.data.labels import check_labels
from amc_latency.data.load import check_source
from amc_latency.device.rounds.measure import BadModelError, read_model
from amc_latency.device.tflite.outputs import TfliteRunner, Value, said
from amc_latency.device.tflite.tflite_inputs import sized
from amc_latency.measuring.config import AccuracyConfig
from amc_latency.models.spec import ModelSpec
from amc_latency.pixels import Normalisation, parse_normalisation
from amc_latency.training.outcome import Accuracy, Outcome, accuracy_of, outcome_of

if TYPE_CHECKING:
    from torch import Tensor

_COLOURS = (1, 3, 4)


@dataclass(frozen=True)
class AccuracyReport:
    """What a file is worth on images that nothing was chosen by."""

    file: str
    accuracy_pct: float
    interval_95: tuple[float, float]
    images: int
    top5_pct: float | None
    data: str
    pixels: str
    """the normalisation by which they were given, as `parse_normalisation` reads it"""
    takes: str
    """its input in words"""
    bytes: int


def file_accuracy(config: AccuracyConfig, console: Console) -> AccuracyReport:
    """The accuracy of a file on the test images of a source. Raises `UserError` and `BadModelError`."""
    path = config.file
    check_source(config.data)
    try:
        content = sized(read_model(path), config.input_shapes)
    except BadModelError as error:
        raise BadModelError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    with TfliteRunner(content, str(path)) as runner:
        size, _ = image_size(runner, str(path))
        of, classes = runner.input, math.prod(runner.outputs[0]["shape"])
    data = load_data(config.data, size=size[1:], console=console)
    check_labels(data, path.name, classes, console)
    given = None if config.normalisation is None else parse_normalisation(config.normalisation, size[0])
    data = fitted(data, ModelSpec(path.name, input=size, classes=classes), given or pixels_of(of, size[0]))
    test = data.test if config.images is None else data.test.take(config.images)
    pixels = test.normalisation
    if data.takes_as_given:
        console.say(f"inputs are taken as {data.source} gives them")
    elif given is None and of["dtype"] != "uint8":
        console.say(f"pixels are normalised by the data's own figures, {pixels}: `normalisation` says others")
    found = asdict(accuracy_of_file(content, test))
    return AccuracyReport(str(path), **found, data=data.source, pixels=pixels.text, takes=said(of), bytes=len(content))


def accuracy_text(report: AccuracyReport) -> None:
    """A line or two."""
    found = Accuracy(report.accuracy_pct, report.interval_95, report.images, report.top5_pct)
    put(f"{report.file}: {found.text}, {report.bytes / 1e6:.3g} MB")
    put(f"takes {report.takes}; data: {report.data}")


def accuracy_of_file(
    file: Path | bytes, images: Split, given: Callable[[Tensor], Tensor] = lambda inputs: inputs
) -> Accuracy:
    """The accuracy of a `.tflite` on `images`. See `outcome_of_file`, which says more and raises the same."""
    return accuracy_of(outcome_of_file(file, images, given))


def outcome_of_file(
    file: Path | bytes, images: Split, given: Callable[[Tensor], Tensor] = lambda inputs: inputs
) -> Outcome:
    """What a `.tflite` says of labelled images, image by image, in a process of its own that it may crash.

    It takes one image [1, H, W, C], or [1, C, H, W]; `given` makes its real values of the inputs [n, C, H, W] that the
    images are, and where it takes int8 or uint8 it gets these as its own scale has them.
    Raises `BadModelError` for a file that can't be run, or says no class of an image.
    """
    title = str(file) if isinstance(file, Path) else "the file"
    content = read_model(file) if isinstance(file, Path) else file
    with TfliteRunner(content, title) as runner:
        size, is_first = image_size(runner, title)
        if size[0] != images.channels:
            raise BadModelError(f"{title} takes images of {size[0]} channels, and these have {images.channels}")

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            for inputs, labels in images.parts(size[1:]):
                yield _logits(runner, given(inputs), is_first, title), labels

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
    if first.size != len(first) * max(first.shape[1:], default=1):
        raise BadModelError(f"{title} returns {list(first.shape[1:])} of an image, not a figure for each class")
    return torch.from_numpy(np.ascontiguousarray(first.reshape(len(first), -1)))
