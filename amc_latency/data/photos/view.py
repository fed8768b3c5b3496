"""What of a photo a network sees: it is shrunk once, and of that the middle is cut out, or chance's part to train."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from amc_latency.pixels import Crop

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class View:
    """For a network that takes images of `size` (h, w): as torchvision's Resize and CenterCrop for a square one."""

    size: tuple[int, int]
    crop: Crop = field(default_factory=Crop)

    @property
    def resample(self) -> int:
        """How Pillow interpolates."""
        from PIL import Image

        return int(Image.Resampling[self.crop.interpolation.upper()])

    def shrunk(self, image: Image.Image) -> Image.Image:
        """The photo just large enough that its middle is a share of `crop` of it, or as it is if it is smaller."""
        height, width = self._enough
        if image.height <= height or image.width <= width:
            return image
        return image.resize(_covering(image, height, width), self.resample)

    def middle(self, image: Image.Image) -> Image.Image:
        """What is evaluated, of what `shrunk` gave. A photo no larger than `size` loses no more than its shape asks."""
        height, width = self.size
        is_larger = image.height > height and image.width > width
        wanted = _covering(image, *(self._enough if is_larger else self.size))
        if image.size != wanted:
            image = image.resize(wanted, self.resample)
        left, top = round((image.width - width) / 2), round((image.height - height) / 2)
        return image.crop((left, top, left + width, top + height))

    @property
    def _enough(self) -> tuple[int, int]:
        """Height and width of which the middle is cut out."""
        height, width = (math.floor(side / self.crop.share + 1e-6) for side in self.size)
        return height, width


def _covering(image: Image.Image, height: int, width: int) -> tuple[int, int]:
    """Width and height of the image, resized to cover `height` and `width` and no more."""
    if height * image.width <= width * image.height:
        return width, width * image.height // image.width
    return height * image.width // image.height, height
