"""What is asked of an exported file: its precision, what it takes and gives, and by which images that is judged."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from amc_latency.arguments.settings import at_least, check_settings, refuse_unused, setting
from amc_latency.errors import OptionError
from amc_latency.export.quantised.policy import check_names, is_quantised
from amc_latency.lut.shapes.precisions import FLOAT32

OUTPUT = "Output"
CALIBRATION_IMAGES = 100
"""More didn't make the bundled network's file any better."""


@dataclass(frozen=True)
class ExportOptions:
    """How a file is to be."""

    converter: Literal["auto", "ours", "litert-torch", "onnx2tf"] = setting(
        "auto", "who writes the .tflite; auto is ours, and another where ours can't", OUTPUT
    )
    precision: str = setting(
        FLOAT32, "of all layers, float32 or int8, or one each with commas, as a search's policy has them", OUTPUT
    )
    io: Literal["float32", "int8", "uint8"] = setting(
        FLOAT32,
        "type of inputs and outputs; uint8 takes pixels of 0..255, as of a camera, and normalises them",
        OUTPUT,
    )
    pixels: str | None = setting(
        None,
        "the file takes 0..255 and normalises itself: `auto` as the network's weights are known to expect, or "
        "MEAN,.../STD,... of pixels scaled to 0..1",
        OUTPUT,
    )
    data: str | None = setting(
        None,
        "images, as of a search: its test part says how accurate the file is, its train part what int8 has to cover",
        "Data",
    )
    calibration_images: int = setting(
        CALIBRATION_IMAGES, "train images by which int8 takes its ranges", "Data", rule=at_least(1)
    )

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def is_quantised(self) -> bool:
        """Whether ranges of real images are needed."""
        return is_quantised(self.precision, self.io)


def check_options(options: ExportOptions, given: Collection[str] = ()) -> None:
    """Raise `OptionError` for what can't be, or would change nothing; nothing is loaded."""
    check_names(options.precision)
    check_converter(options.converter, options.is_quantised)
    if not options.is_quantised:
        refuse_unused(given, {"calibration_images": "float32 needs no ranges"})
    elif options.data is None:
        raise OptionError(
            "data", "is missing: int8 needs the ranges of real images, such as `data=bundled` or `data=folder:DIR`"
        )


def check_converter(converter: str, quantised: bool) -> None:
    """Raise `OptionError` for a converter that quantises nothing where that is wanted."""
    if quantised and converter not in ("auto", "ours"):
        raise OptionError(
            ("converter", "precision", "io"),
            f"`converter='{converter}'` writes float32 alone: leave it out, or `precision` and `io`",
        )
