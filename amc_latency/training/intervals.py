"""How far a share of so many images may be off by chance, and whether two networks on the same images differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

_Z = NormalDist().inv_cdf(0.975)


def interval_pct(accuracy_pct: float, images: int) -> tuple[float, float]:
    """Both ends of the 95 % interval (Wilson 1927) of a percentage of `images`, in percent."""
    share, more = accuracy_pct / 100, _Z**2 / images
    centre = (share + more / 2) / (1 + more)
    half = _Z / (1 + more) * math.sqrt(max(share * (1 - share), 0.0) / images + more / (4 * images))
    return 100 * max(centre - half, 0.0), 100 * min(centre + half, 1.0)


def with_interval(accuracy_pct: float, interval: Sequence[float]) -> str:
    """A percentage, and its interval in brackets if it has one."""
    return f"{accuracy_pct:.2f}" + (f" ({interval[0]:.1f}-{interval[1]:.1f})" if interval else "")


@dataclass(frozen=True)
class Comparison:
    """Ours beside another network on the same images."""

    other: str
    images: int
    points: float
    """how much more of the images ours gets right, in points of percent"""
    low: float
    """lower end of its 95 % interval"""
    high: float

    @property
    def is_shown(self) -> bool:
        """Whether chance alone hardly explains the difference."""
        return not self.low <= 0 <= self.high

    @property
    def verdict(self) -> str:
        """What may be said of it, in a few words."""
        if not self.is_shown:
            return f"no difference shown on {self.images:,} images"
        low, high = sorted((abs(self.low), abs(self.high)))
        more = "more" if self.points > 0 else "fewer"
        return f"{low:.1f} to {high:.1f} points {more} of {self.images:,} images right"

    @property
    def text(self) -> str:
        """In a line."""
        verdict = "" if self.is_shown else f": {self.verdict}"
        return (
            f"ours against {self.other}, on the same {self.images:,} test images: {self.points:+.2f} points "
            f"(95 % between {self.low:+.1f} and {self.high:+.1f}){verdict}"
        )


def compare(other: str, gained: int, lost: int, images: int) -> Comparison:
    """Of `images`, ours alone gets `gained` right, and `other` alone `lost`: a paired comparison.

    The interval is Tango's (Statistics in Medicine 17, 1998): it holds 0 where McNemar's test, at 5 %, finds nothing.
    """
    low, high = (_end(gained, lost, images, side) for side in (_Z, -_Z))
    return Comparison(other, images, 100 * (gained - lost) / images, 100 * low, 100 * high)


def _end(gained: int, lost: int, images: int, z: float) -> float:
    """The difference, -1..1, that what was seen is `z` standard errors above; by bisection, as those errors fall."""
    low, high = -1.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        # The likeliest share of images that only the other gets right, were this the difference.
        b = (2 * images - gained + lost) * middle - gained - lost
        c = -lost * middle * (1 - middle)
        share = (math.sqrt(max(b * b - 8 * images * c, 0.0)) - b) / (4 * images)
        error = math.sqrt(max(images * (2 * share + middle * (1 - middle)), 0.0))
        above = gained - lost - images * middle - z * error
        # Where all agree, no difference at all is certain to be seen, and lies within.
        if above > 0 or (above == 0 and z < 0):
            low = middle
        else:
            high = middle
    return (low + high) / 2
