"""A network to a `.tflite` in a precision for each layer, and how far what it computes is from PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from amc_latency.android_bench.safe.files import replacing
from amc_latency.closeness import difference, output_range
from amc_latency.device.rounds.measure import BadModelError
from amc_latency.device.tflite.outputs import TfliteRunner, Value, said
from amc_latency.errors import ExportError, OptionError
from amc_latency.export.export import (
    Conversion,
    ExportReport,
    as_pixels,
    check_same,
    converted,
    frozen,
    outputs_of_all,
)
from amc_latency.export.quantised.calibration import KEPT, Calibration, calibrate, check_calibration, one_step
from amc_latency.export.quantised.differences import differing_layer
from amc_latency.export.quantised.policy import check_io, policy_of
from amc_latency.export.quantised.recipe import Quantised, quantise
from amc_latency.graph.rewriting.normal_form import normal_form
from amc_latency.graph.trace import NetworkGraph
from amc_latency.lut.shapes.precisions import FLOAT32, INT8
from amc_latency.lut.tflite.run import tflite_ops
from amc_latency.pixels import Normalisation

_LOOKED_INTO = 4
"""Images on which each layer is compared with PyTorch's fake quantisation."""
_POOR_DB = 10.0
"""Outputs of which a third is noise: 30 and more are usual for int8."""


_NOISE_IMAGES = 4


@dataclass(frozen=True)
class Source:
    """A network's float32 file that is to be quantised, and how pixels get into it."""

    model: nn.Module
    """frozen, as the network was"""
    file: Conversion
    grid: tuple[float, float] | None = None
    """mean and deviation by which the file's input stands for pixels; None where the calibration says what it is"""

    @property
    def graph(self) -> NetworkGraph:
        """The network's layers."""
        assert self.file.graph is not None  # our own converter's
        return self.file.graph

    def inputs(self, images: Tensor) -> Tensor:
        """Images [N, C, H, W] as the network takes them, as the file takes their real values."""
        return images if self.file.pixels is None else as_pixels(images, self.file.pixels)


def folds(pixels: Normalisation, io: str) -> bool:
    """Whether a file of that `io` takes pixels as its real values, and not what its steps make of them."""
    return io == FLOAT32 or one_step(pixels) is None


def source_of(
    model: nn.Module, input_chw: tuple[int, int, int], io: str = FLOAT32, pixels: Normalisation | None = None
) -> Source:
    """The network's float32 file, ready to be calibrated and quantised with inputs and outputs of type `io`.

    With `pixels` the file takes pixels of 0..255 that it normalises itself. Of integers a step is a pixel then, where
    mean and deviation are those of every channel; else they are folded into the first convolution, as for floats.
    Raises ExportError for a network that can't be written.
    """
    model = frozen(model)
    # Of a copy: it switches in-place operations off, and the file is compared with the network as it was.
    plain = normal_form(copy.deepcopy(model), input_chw)
    if pixels is None or not folds(pixels, io):
        return Source(model, converted(plain, input_chw), None if pixels is None else one_step(pixels))
    try:
        file = converted(plain, input_chw, pixels)
    except ExportError as error:
        raise ExportError(f"{error}; without `pixels` the app normalises them itself") from error
    return Source(model, file, None if io == FLOAT32 else (0.0, 1 / 255))


def calibration_of(source: Source, images: Tensor | Calibration) -> Calibration:
    """The ranges of a network on images [N, C, H, W] as it takes them, or those that are known already.

    Raises `OptionError` for ranges of another network.
    """
    found = images if isinstance(images, Calibration) else calibrate(source.file, images, source.inputs)
    if found.file.content != source.file.content:
        raise OptionError("calibration", "is of another network, or of one that takes pixels otherwise: make it anew")
    return found if source.grid is None else found.with_pixels(*source.grid)


def export_quantised(
    model: nn.Module,
    input_chw: tuple[int, int, int],
    path: Path,
    precision: str | Sequence[str],
    calibration: Tensor | Calibration | None,
    images: Tensor | None = None,
    io: str = FLOAT32,
    pixels: Normalisation | None = None,
) -> ExportReport:
    """Write `model` to `path`, its layers in `precision`, by ranges of the `calibration` images [N, C, H, W].

    The float32 file that it is made of was seen to equal PyTorch's outputs; how far the quantised one is from them on
    `images` (those of the calibration unless given) is in the report, and so is which layer had to stay float32.
    Raises `OptionError` for bad input, ExportError for what can't be written; `path` then keeps what it held.
    """
    check_io(io)
    warning = None if isinstance(calibration, Calibration) else check_calibration(calibration, input_chw)
    assert calibration is not None  # it was refused
    source = source_of(model, input_chw, io, pixels)
    policy = policy_of(precision, source.graph)
    ranges = calibration_of(source, calibration)
    shown = ranges.images if images is None else images[:KEPT].detach().float().cpu()
    expected = outputs_of_all(source.model, shown)
    check_same(source.model, source.file, shown[:8], [each[:8] for each in expected])
    made = quantise(ranges, policy, io)
    found, sides = _found(made.content, source.inputs(shown))
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(made.content)
    except OSError as failure:
        raise ExportError(f"can't write {path}: {failure.strerror}") from failure
    few = shown[:_LOOKED_INTO]
    differs = differing_layer(source.file, made.content, made.policy, few, source.inputs(few))
    notes = [warning, *_notes(source.graph, made, ranges), _noise_note(found, expected), differs]
    shapes = source.graph.architecture.shapes()
    same, classes = _same_class(found[0], expected[0])
    return ExportReport(
        macs=sum(shape.macs for shape in shapes),
        params=sum(source.graph.architecture.params()),
        max_abs_error=max(map(difference, found, expected)),
        output_range=max(map(output_range, expected)),
        ops=tflite_ops(made.content),
        bytes=len(made.content),
        note="; ".join(each for each in notes if each) or None,
        precision=made.policy,
        io=io,
        takes=said(sides[0]),
        returns=said(sides[1]),
        same_class=(same, len(shown)) if classes else None,
    )


def quantised_by_noise(model: nn.Module, input_chw: tuple[int, int, int], precisions: Sequence[str]) -> bytes:
    """A file of the network in `precisions` that is only to be timed: ranges are of images of noise.

    Raises ExportError for what can't be written.
    """
    source = source_of(model, input_chw)
    noise = torch.randn(_NOISE_IMAGES, *input_chw, generator=torch.Generator().manual_seed(0))
    return quantise(calibration_of(source, noise), tuple(precisions), FLOAT32).content


def _found(content: bytes, inputs: Tensor) -> tuple[list[np.ndarray], tuple[Value, Value]]:
    """What the file computes of real inputs [N, C, H, W], maps as [N, C, H, W], and its first input and output."""
    try:
        with TfliteRunner(content, "the quantised file") as runner:
            outputs = runner.real(inputs.numpy().transpose(0, 2, 3, 1))
            sides = runner.input, runner.outputs[0]
    except BadModelError as failure:
        raise ExportError(str(failure)) from failure
    return [each.transpose(0, 3, 1, 2) if each.ndim == 4 else each for each in outputs], sides


def _same_class(found: np.ndarray, expected: np.ndarray) -> tuple[int, bool]:
    """Of how many images the two put the same class first, and whether there are classes."""
    if expected.ndim != 2 or expected.shape[1] < 2:
        return 0, False
    return int((found.argmax(1) == expected.argmax(1)).sum()), True


def _notes(graph: NetworkGraph, made: Quantised, ranges: Calibration) -> list[str]:
    found = []
    shapes = graph.architecture.shapes()
    if made.left_float:
        listed = "; ".join(
            f"{graph.layer_names[layer]} ({shapes[layer]}): {why}" for layer, why in made.left_float.items()
        )
        found.append(f"float32 in place of int8: {listed}")
    if ranges.still:
        of = {each.output: layer for layer, own in enumerate(ranges.file.operators) for each in own}
        names = dict.fromkeys(graph.layer_names[of[name]] for name in ranges.still if made.policy[of[name]] == INT8)
        if names:
            found.append(
                f"zero on all calibration images, so taken to be within 0..1: the outputs of {', '.join(names)}"
            )
    return found


def _noise_note(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> str | None:
    """What to say of a file whose outputs hardly follow PyTorch's."""
    worst = min(_sqnr_db(got, wanted) for got, wanted in zip(found, expected, strict=True))
    if worst >= _POOR_DB:
        return None
    return (
        f"the file's outputs hardly follow PyTorch's (signal to noise {worst:.0f} dB): take more or other calibration "
        "images, or leave more layers float32"
    )


def _sqnr_db(found: np.ndarray, expected: np.ndarray) -> float:
    noise = float(np.square(found.astype(np.float64) - expected).sum())
    signal = float(np.square(expected.astype(np.float64)).sum())
    return np.inf if noise == 0 or signal == 0 else float(10 * np.log10(signal / noise))
