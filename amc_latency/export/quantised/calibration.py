"""Ranges of a network's tensors, as seen on real images: measured once, they serve every recipe."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from amc_latency.errors import ExportError, OptionError
from amc_latency.export.export import Conversion
from amc_latency.export.reading import quiet
from amc_latency.lut.tflite.native_log import without_chatter
from amc_latency.pixels import Normalisation

if TYPE_CHECKING:
    from ai_edge_quantizer.quantizer import Quantizer

IMAGES = 100
"""What is taken unless more are asked for: more didn't make the bundled network's file any better."""
FEW_IMAGES = 20
SIGNATURE, INPUT = "serving_default", "x"
"""of the files that our own exporter writes"""
_NO_RANGE = 1e-9
"""What ai-edge-quantizer takes in place of a range of nothing."""


@dataclass(frozen=True)
class Calibration:
    """A network's float32 file, and what its tensors held: made once, it serves every recipe of that network."""

    file: Conversion
    ranges: Mapping[str, Any]
    """lowest and highest value by the tensor's name, as ai-edge-quantizer holds them"""
    images: int
    still: tuple[str, ...] = ()
    """tensors that were zero on all images, and are taken to be within 0..1"""

    def with_pixels(self, mean: float, std: float) -> Calibration:
        """The same where the input's 256 steps are those of pixels: (p / 255 - mean) / std for p of 0..255.

        The mean is rounded to a whole pixel, as zero must be one of the steps.
        """
        step, zero = 1 / (255 * std), round(255 * mean)
        like = np.asarray(self.ranges[INPUT]["min"])
        low, high = (np.full_like(like, step * (pixel - zero)) for pixel in (0, 255))
        return replace(self, ranges={**self.ranges, INPUT: {"min": low, "max": high}})


def check_calibration(images: Tensor | None) -> str | None:
    """Raise `OptionError` for images [N, C, H, W] that ranges can't be taken from; what to warn of, if anything."""
    if images is None or not len(images):
        raise OptionError(
            "calibration", "is missing: int8 needs the ranges of real images, 100 or so as the network takes them"
        )
    if images.ndim != 4 or not images.is_floating_point():
        raise OptionError("calibration", f"is {images.dtype} {list(images.shape)}; give normalised floats [N, C, H, W]")
    if not bool(torch.isfinite(images).all()):
        raise OptionError("calibration", "has values that are infinite or no numbers")
    lowest, highest = images.flatten(1).amin(1), images.flatten(1).amax(1)
    if bool((lowest == highest).all()):
        raise OptionError("calibration", "has images of one colour alone: ranges taken from them would mean nothing")
    different = len({image.numpy().tobytes() for image in images.detach().cpu().contiguous()})
    if different < FEW_IMAGES:
        return (
            f"`calibration` has {different} different image{'' if different == 1 else 's'}: ranges of fewer than "
            f"{FEW_IMAGES} may cut off what others have; {IMAGES} are usual"
        )
    return None


def calibrate(file: Conversion, images: Tensor, threads: int = 1) -> Calibration:
    """Run the float32 file on images [N, C, H, W] as it takes them, and keep what its tensors' values range over.

    Ranges are moving averages over images, as ai-edge-quantizer takes them. Raises `ExportError`.
    """
    quantizer = _quantizer(file.content)
    quantizer.add_static_config(".*", "*", 8, 8)
    inputs = np.ascontiguousarray(images.detach().cpu().float().numpy().transpose(0, 2, 3, 1))
    with _silent():
        ranges = quantizer.calibrate({SIGNATURE: [{INPUT: image[None]} for image in inputs]}, num_threads=threads)
    made = {each.output for operators in file.operators for each in operators}
    still = tuple(name for name, each in ranges.items() if name in made and each and _width(each) < _NO_RANGE)
    # Zero stays exactly zero in any range that holds it; steps of nothing would leave no bias where it was.
    for name in still:
        ranges[name] = {"min": 0 * ranges[name]["min"], "max": 0 * ranges[name]["max"] + 1}
    return Calibration(file, ranges, len(images), still)


def quantizer_of(calibration: Calibration) -> Quantizer:
    """A quantizer of the file with no recipe yet."""
    return _quantizer(calibration.file.content)


def quantised_bytes(quantizer: Quantizer, calibration: Calibration) -> bytes:
    """What the quantizer makes of its file by its recipe. Raises `ExportError` with its reason."""
    try:
        with _silent():
            made = quantizer.quantize(
                dict(calibration.ranges), enable_progress_report=False, enable_progress_bar=False
            ).quantized_model
    except Exception as failure:  # whatever it raises
        reason = next(iter(str(failure).strip().splitlines()), type(failure).__name__)
        raise ExportError(f"ai-edge-quantizer can't quantise the network: {reason}") from failure
    assert made is not None
    return bytes(made)


def one_step(pixels: Normalisation) -> tuple[float, float] | None:
    """Mean and deviation where one is that of every channel; else None: no one scale stands for them then."""
    return (pixels.mean[0], pixels.std[0]) if len({*pixels.mean}) == len({*pixels.std}) == 1 else None


def _quantizer(content: bytes) -> Quantizer:
    from ai_edge_quantizer.quantizer import Quantizer

    return Quantizer(bytearray(content))


def _width(found: Mapping[str, Any]) -> float:
    return max(float(np.max(found["max"])), 0.0) - min(float(np.min(found["min"])), 0.0)


@contextmanager
def _silent() -> Iterator[None]:
    """Its progress bars and warnings are for those who call it themselves."""
    with without_chatter(), quiet(), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield
