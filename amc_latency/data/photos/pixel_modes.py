"""Any mode of Pillow as bytes of grey or of red, green and blue: scaled by the format's range, or refused by name.

Pillow's own `convert` clips whatever is wider than a byte at 255, which makes it white.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

_GREY = ("1", "L", "LA", "La")
_WIDE = ("I", "F")
"""or begin so: `I;16`, `I;16B` ..."""
_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
"""TIFF tags"""
_SIGNED = 2
_WHITE_IS_ZERO = 0


@dataclass(frozen=True)
class Levels:
    """What the values of a file's only channel mean."""

    top: int | None
    """white in integers; None where the format doesn't say"""
    signed: bool = False
    bits: int = 8
    inverted: bool = False
    """whether 0 is white"""

    @property
    def needed(self) -> bool:
        """Whether Pillow's own values of grey are not to be taken as they are."""
        return self.signed


def levels_of(opened: Image.Image) -> Levels:
    """What a file says of its values, to be asked before anything makes another image of it."""
    if opened.format in ("PPM", "PNG"):
        # Pillow stretches a PGM of any depth above 8 bits to 16.
        return Levels(65535, bits=16)
    if opened.format == "TIFF":
        tags = opened.tag_v2  # type: ignore[attr-defined]
        bits = int(tags.get(_BITS, (8,))[0])
        signed = int(tags.get(_SAMPLE_FORMAT, (1,))[0]) == _SIGNED
        white_is_zero = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
        return Levels((1 << bits - signed) - 1, signed, bits, white_is_zero)
    return Levels(65535, bits=16) if opened.mode.startswith("I;16") else Levels(None)


def as_bytes(image: Image.Image, levels: Levels) -> Image.Image:
    """The image as `L` if it is grey, else as `RGB`; transparency is left out, as by torchvision.

    Raises ValueError for values that no range of grey can be told for.
    """
    from PIL import Image

    mode = image.mode
    if mode.startswith(_WIDE) or (mode == "L" and levels.needed):
        values = np.asarray(image)
        return Image.fromarray(_from_floats(values, levels) if mode == "F" else _from_integers(values, levels))
    if mode == "La":
        image = image.convert("LA")
    if mode in _GREY:
        return image.convert("L")
    holds_grey = is_grey(image)
    image = image.convert("RGB")
    return image.getchannel(0) if holds_grey else image


def is_grey(image: Image.Image) -> bool:
    """Whether `as_bytes` makes it `L`; a header is enough to tell."""
    return (
        image.mode.startswith(_WIDE) or image.mode in _GREY or (image.mode in ("P", "PA") and _is_grey_palette(image))
    )


def _is_grey_palette(image: Image.Image) -> bool:
    """Whether a palette holds several levels of grey and nothing else: it is a way to store grey, too."""
    colours = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    return len(np.unique(colours[:, 0])) > 1 and bool((colours == colours[:, :1]).all())


def _from_integers(values: np.ndarray, levels: Levels) -> np.ndarray:
    if levels.top is None:
        raise ValueError("integers of a range that the format does not say: save it with 8 or 16 bits")
    if levels.signed and levels.bits == 8:
        values = values.view(np.int8)
    if not levels.signed and levels.bits == 32:
        values = values.view(np.uint32)
    wide = values.astype(np.int64)
    if wide.min() < 0:
        raise ValueError(f"integers of {wide.min()} to {wide.max()}: below 0 is no grey; save it as 0 and more")
    scaled = wide * 256 // (levels.top + 1)
    if levels.bits > 16 and wide.max() and not scaled.max():
        raise ValueError(
            f"{levels.bits}-bit integers of {wide.min()} to {wide.max()}: of the format's {levels.top} that is black; "
            "save it with 8 or 16 bits"
        )
    grey = scaled.clip(0, 255).astype(np.uint8)
    return 255 - grey if levels.inverted else grey


_TOO_DARK = 8
"""Nobody keeps photos in the darkest 3 % of a range; a resampled 0..1 image overshoots it by less."""


def _from_floats(values: np.ndarray, levels: Levels) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    # A NaN fails too.
    if not (low >= 0 and high <= 255):
        raise ValueError(f"floats of {low:g} to {high:g}: only 0..1 and 0..255 are known to be grey; save it as those")
    if 1 < high < _TOO_DARK:
        raise ValueError(
            f"floats of {low:g} to {high:g}: black if they are of 0..255, too bright if of 0..1; clip or scale"
        )
    grey = np.rint(values * 255 if high <= 1 else values).astype(np.uint8)
    return 255 - grey if levels.inverted else grey
