"""Ranges of a network's tensors, as seen on real images: measured once, they serve every recipe."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
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

FEW_IMAGES, KEPT = 20, 100
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
    images: Tensor
    """[N, C, H, W] as the network takes them; up to 100 are kept, to see files on"""
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


def check_calibration(images: Tensor | None, input_chw: tuple[int, int, int]) -> str | None:
    """Raise `OptionError` for images [N, C, H, W] that ranges can't be taken from; what to warn of, if anything."""
    if images is None or not len(images):
        raise _refused("are missing: int8 needs the ranges of real images, 100 or so as the network takes them")
    if tuple(images.shape[1:]) != tuple(input_chw) or not images.is_floating_point():
        wanted = ", ".join(map(str, input_chw))
        raise _refused(f"are {images.dtype} {list(images.shape)}: give normalised floats [N, {wanted}]")
    if not bool(torch.isfinite(images).all()):
        raise _refused("hold values that are infinite or no numbers")
    lowest, highest = images.flatten(1).amin(1), images.flatten(1).amax(1)
    if bool((lowest == highest).all()):
        raise _refused("are of one colour each: ranges taken from them would mean nothing")
    different = len({image.numpy().tobytes() for image in images.detach().cpu().contiguous()})
    if different < FEW_IMAGES:
        return (
            f"{different} different calibration image{'' if different == 1 else 's'}: ranges of fewer than "
            f"{FEW_IMAGES} may cut off what others have; 100 are usual"
        )
    return None


def _refused(why: str) -> OptionError:
    return OptionError(("calibration",), f"the calibration images {why}")


def calibrate(
    file: Conversion, images: Tensor, given: Callable[[Tensor], Tensor] = lambda images: images
) -> Calibration:
    """Run the float32 file on images [N, C, H, W], and keep what its tensors' values range over.

    `given` makes what the file takes of what the network takes.

    They go from the lowest to the highest value of any image: moving averages, which ai-edge-quantizer takes unless
    asked, cut off what few images have, and on the bundled network made errors of outputs 2.5 times as large.
    """
    from ai_edge_quantizer.calibrator import Calibrator
    from ai_edge_quantizer.recipe_manager import RecipeManager
    from ai_edge_quantizer.utils.qsv_utils import min_max_update

    recipe = RecipeManager()
    recipe.add_static_config(".*", "*", 8, 8)
    images = images.detach().cpu().float()
    inputs = np.ascontiguousarray(given(images).numpy().transpose(0, 2, 3, 1))
    with _silent():
        calibrator = Calibrator(file.content, num_threads=1, qsv_update_func=min_max_update)
        calibrator.calibrate({SIGNATURE: [{INPUT: image[None]} for image in inputs]}, recipe)
    ranges = calibrator.get_model_qsvs()
    made = {each.output for operators in file.operators for each in operators}
    still = tuple(name for name, each in ranges.items() if name in made and each and _width(each) < _NO_RANGE)
    # Zero stays exactly zero in any range that holds it; steps of nothing would leave no bias where it was.
    for name in still:
        ranges[name] = {"min": 0 * ranges[name]["min"], "max": 0 * ranges[name]["max"] + 1}
    return Calibration(file, ranges, images[:KEPT], still)


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
