"""What a network expects of pixels: by which mean and deviation they are normalised, and what of a photo it sees."""

from __future__ import annotations

from dataclasses import dataclass

from amc_latency.errors import UserError


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of pixels scaled to 0..1, one figure a channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __str__(self) -> str:
        """For people: to four digits, and its name if it has one."""
        figures = "/".join(",".join(f"{x:.4g}" for x in side) for side in (self.mean, self.std))
        names = [name for name in NORMALISATIONS if parse_normalisation(name, len(self.mean)) == self]
        return f"{figures} ({names[0]})" if names else figures

    @property
    def text(self) -> str:
        """As `parse_normalisation` reads it."""
        return "/".join(",".join(map(str, side)) for side in (self.mean, self.std))


@dataclass(frozen=True)
class Crop:
    """What of a photo a network is evaluated on: it is shrunk, and its middle is cut out."""

    share: float = 224 / 256
    """of the shrunk photo's shorter side; 1 is all of it"""
    interpolation: str = "bilinear"
    """how it is shrunk: bilinear or bicubic"""


IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""of ImageNet's train images, as torchvision's weights expect it"""
GREY = Normalisation((sum(IMAGENET.mean) / 3,), (sum(IMAGENET.std) / 3,))
"""of grey photos"""
NORMALISATIONS = {
    "imagenet": IMAGENET,
    "half": Normalisation((0.5,), (0.5,)),
    "lite": Normalisation((127 / 255,), (128 / 255,)),
    "cifar10": Normalisation((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": Normalisation((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "fashion_mnist": Normalisation((0.2860,), (0.3530,)),
    "none": Normalisation((0.0,), (1.0,)),
    "raw": Normalisation((0.0,), (1 / 255,)),
    "caffe": Normalisation((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255,) * 3),
}
"""By name; one figure is that of every channel. `none` is for pixels of 0..1, `raw` for those of 0..255, and `caffe`
for these less ImageNet's mean, as weights from Caffe and Keras expect them, most of them as BGR."""


def parse_normalisation(text: str, channels: int | None = None) -> Normalisation:
    """Read a name of `NORMALISATIONS`, or "MEAN,.../STD,...", such as 0.485,0.456,0.406/0.229,0.224,0.225.

    With `channels`, a name's one figure is repeated for each. Raises UserError for anything else.
    """
    named = NORMALISATIONS.get(text)
    if named is not None:
        repeat = 1 if channels is None or len(named.mean) > 1 else channels
        return Normalisation(named.mean * repeat, named.std * repeat)
    try:
        mean, std = (tuple(float(part) for part in side.split(",")) for side in text.split("/"))
    except ValueError:
        mean, std = (), ()
    if (
        not mean
        or len(mean) != len(std)
        or not all(0 <= m <= 1 and 0 < s < 100 for m, s in zip(mean, std, strict=True))
    ):
        raise UserError(
            f"'{text}' is no normalisation: write {', '.join(NORMALISATIONS)}, or means and standard deviations of "
            "pixels scaled to 0..1, one figure a channel, as 0.485,0.456,0.406/0.229,0.224,0.225"
        )
    return Normalisation(mean, std)
