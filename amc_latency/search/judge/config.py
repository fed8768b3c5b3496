"""How policies are judged, and what is written down of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec

from amc_latency.data.splits import fewer_of_large
from amc_latency.lut.shapes.precisions import FLOAT32
from amc_latency.prune.refit import POINTS
from amc_latency.search.costs.costs import Counts
from amc_latency.search.judge.score import ACCURACY


@dataclass(frozen=True)
class JudgeConfig:
    """How many images judge a policy."""

    images: int = 1000
    """held-back images that an episode is judged by; finalists are by all of them"""
    calibration_images: int = 512
    """train images for refit, whose statistics are collected once; see `calibrating`"""
    recalibration_images: int = 256
    """how many of these recalibrate the batch norms of each policy's network; see `recalibrating`"""
    precisions: tuple[str, ...] = (FLOAT32,)
    """that a policy may choose each layer's from, where it does"""
    accelerator: str | None = "cpu"
    """where networks are cut, judged and fine-tuned"""

    def recalibrating(self, size: tuple[int, int]) -> int:
        """The same for images of `size` (h, w): unless set, of those larger than 96x96 fewer, down to 64.

        Their maps have as many positions for a batch norm's statistics, and those of all images are in memory at once.
        """
        if self.recalibration_images != JudgeConfig.recalibration_images:
            return self.recalibration_images
        return fewer_of_large(self.recalibration_images, size, 64)

    def calibrating(self, size: tuple[int, int]) -> int:
        """How many train images refit gets: unless set, of those larger than 96x96 fewer, down to 256."""
        if self.calibration_images != JudgeConfig.calibration_images:
            return self.calibration_images
        return fewer_of_large(self.calibration_images, size, 256)

    def points(self, size: tuple[int, int]) -> int:
        """Positions of each image that refit looks at: of fewer images more, so that there are as many in all."""
        return POINTS * self.calibration_images // self.calibrating(size)


@dataclass(frozen=True)
class FinetuneOptions:
    """What a search says of fine-tuning."""

    epochs: int
    seed: int = 0
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """fields of `Recipe`"""


@dataclass(frozen=True)
class Facts:
    """How networks were judged, for a report."""

    source: str
    unlabelled: bool = False
    test_images: int = 0
    held_back_images: int = 0
    pixels: str = ""
    """by which figures the files' pixels must be normalised; empty where nobody knows"""
    measure: str = ACCURACY


@dataclass(frozen=True)
class JudgedPolicy:
    """A line of the log of scores."""

    counts: Counts
    accuracy: Annotated[float, msgspec.Meta(ge=0, le=1)]
    loss: float
    images: Annotated[int, msgspec.Meta(ge=1)]
    final: bool
    """whether by all held-back images"""
    top5: float | None
    """as in `Score`"""
