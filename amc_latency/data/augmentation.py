"""What chance does to images that are trained on: a record for each change, by name.

One that works image by image is torchvision's (`transforms.v2`), and runs where images are decoded; others change a
batch. All are drawn from seeds that are handed in, and nothing touches PyTorch's own generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from amc_latency.arguments.names import unknown
from amc_latency.errors import OptionError, UserError

if TYPE_CHECKING:
    import torch
    from PIL import Image

Kind = Literal["pixels", "photos", "tensors"]
"""What images are: of one small size, files of any size, or what the user's own transforms have made of them."""
LARGE, LARGEST = 500_000, 1_000_000
"""Images of a set from which on what helps in long trainings alone is on: ImageNet has 1,281,167."""


@dataclass(frozen=True)
class Change:
    """One way to change images at random."""

    usual: float
    """how strong it is where it is named without a number"""
    unless_set: Callable[[int, Kind], float] = lambda images, kind: 0.0
    """of so many images of that kind: how strong; 0 is off"""
    most: float = 1.0
    by_image: Callable[[float], Any] | None = None
    """how strong to the transform of `torchvision.transforms.v2` that changes an image of Pillow; see `for_images`"""


def _least_share(images: int, kind: Kind) -> float:
    if kind != "photos":
        return 0.0
    return 0.08 if images >= LARGE else 0.25 if images >= 5000 else 0.5


def _trivial(strength: float) -> Any:
    from torchvision.transforms import v2

    return v2.RandomApply([v2.TrivialAugmentWide()], strength)


def _rand(strength: float) -> Any:
    from torchvision.transforms import v2

    return v2.RandAugment(magnitude=round(strength))


AUGMENTATIONS = {
    "shift": Change(2.0, lambda images, kind: 2.0 if kind == "pixels" else 0.0, most=32.0),
    "flip": Change(0.5, lambda images, kind: 0.0 if kind == "tensors" else 0.5),
    "crop": Change(0.25, _least_share),
    "trivial": Change(
        1.0, lambda images, kind: 1.0 if kind == "photos" and images >= LARGE else 0.0, by_image=_trivial
    ),
    "rand": Change(9.0, most=30.0, by_image=_rand),
    "erasing": Change(0.1, lambda images, kind: 0.1 if kind == "photos" and images >= LARGEST else 0.0),
    "mixup": Change(0.2, lambda images, kind: 0.2 if kind == "photos" and images >= LARGEST else 0.0, most=math.inf),
    "cutmix": Change(1.0, lambda images, kind: 1.0 if kind == "photos" and images >= LARGEST else 0.0, most=math.inf),
}
"""By the names of `Augmentation`'s fields. What is on for a million photos alone is torchvision's recipe for them."""


@dataclass(frozen=True)
class Augmentation:
    """How strongly images are changed at random; 0 is not at all, None as `AUGMENTATIONS` says of so many images."""

    shift: float | None = None
    """by up to so many pixels along both axes, zeros coming in"""
    flip: float | None = None
    """share of the images that are mirrored"""
    crop: float | None = None
    """a random part of at least this share of the area, of any shape from 3:4 to 4:3 (Szegedy et al., CVPR 2015)"""
    trivial: float | None = None
    """share of the images that TrivialAugment changes (Müller and Hutter, ICCV 2021)"""
    rand: float | None = None
    """RandAugment's magnitude, of 30 (Cubuk et al., arXiv 1909.13719)"""
    erasing: float | None = None
    """share of the images of which a rectangle is erased (Zhong et al., arXiv 1708.04896)"""
    mixup: float | None = None
    """alpha of mixup, which averages two images and their labels (Zhang et al., arXiv 1710.09412)"""
    cutmix: float | None = None
    """alpha of CutMix, which pastes a part of another image (Yun et al., ICCV 2019); beside mixup each by turns"""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            most = AUGMENTATIONS[name].most
            if value is not None and not (0 <= value <= most and value < math.inf):
                ends = "0 or more" if most == math.inf else f"from 0 to {most:g}"
                raise OptionError("augmentation", f"{name} is {ends}, not {value:g}")

    @staticmethod
    def none() -> Augmentation:
        """Images as they are."""
        return Augmentation(**dict.fromkeys(AUGMENTATIONS, 0.0))

    @staticmethod
    def of(text: str) -> Augmentation:
        """Read "auto", "none", or what is on, such as "flip,crop=0.35,mixup". Raises `UserError`."""
        if text in ("auto", "none"):
            return Augmentation() if text == "auto" else Augmentation.none()
        chosen = dict.fromkeys(AUGMENTATIONS, 0.0)
        for part in text.replace(" ", "").split(","):
            name, _, figure = part.partition("=")
            if name not in AUGMENTATIONS:
                raise UserError(unknown([*AUGMENTATIONS, "auto", "none"], name, "augmentation"))
            try:
                chosen[name] = float(figure) if figure else AUGMENTATIONS[name].usual
            except ValueError:
                raise OptionError("augmentation", f"{part}: write a number, such as {name}=0.5") from None
        return Augmentation(**chosen)

    def settled(self, images: int, kind: Kind) -> Augmentation:
        """The same for so many images of a `kind`: no figure is None. Raises `OptionError` for what can't be done."""
        said = {
            name: AUGMENTATIONS[name].unless_set(images, kind) if value is None else value
            for name, value in asdict(self).items()
        }
        found = Augmentation(**said)
        if kind == "tensors" and found.is_by_image:
            raise OptionError(
                "augmentation",
                "crop, trivial, rand and erasing are for images, and the data gives tensors: put them into its own "
                "transforms, or give images as they are",
            )
        return found

    @property
    def is_by_image(self) -> bool:
        """Whether images are changed one by one, where they are decoded; of what is `settled`."""
        return bool(self.crop or self.erasing or self._by_image)

    @property
    def _by_image(self) -> list[Any]:
        strengths = asdict(self)
        return [
            change.by_image(strengths[name])
            for name, change in AUGMENTATIONS.items()
            if change.by_image is not None and strengths[name]
        ]

    def for_images(
        self,
        size: tuple[int, int],
        resample: int,
        middle: Callable[[Image.Image], Image.Image],
        fill: tuple[float, ...],
    ) -> Callable[[Image.Image], torch.Tensor]:
        """From an image of Pillow to bytes [C, h, w] for `size` (h, w), as PyTorch's own generator draws it.

        `resample` is Pillow's number of how pixels are interpolated, `middle` what is cut out where nothing is drawn,
        `fill` the colour, 0..255 a channel, of what is erased.
        """
        from torchvision.transforms import v2
        from torchvision.transforms.functional import InterpolationMode

        first: Any = middle
        if self.crop:
            modes = {0: InterpolationMode.NEAREST, 2: InterpolationMode.BILINEAR, 3: InterpolationMode.BICUBIC}
            first = v2.RandomResizedCrop(size, scale=(self.crop, 1.0), interpolation=modes[resample])
        steps = [first, *self._by_image, v2.functional.pil_to_tensor]
        erase = v2.RandomErasing(self.erasing, value=list(fill)) if self.erasing else None

        def change(image: Image.Image) -> torch.Tensor:
            found: Any = image
            for step in steps:
                found = step(found)
            return found if erase is None else erase(found)

        return change


def shift_and_flip(images: torch.Tensor, generator: torch.Generator, changes: Augmentation) -> torch.Tensor:
    """Shift each uint8 image [N, C, H, W] by up to `changes.shift` pixels along both axes, zeros coming in; flip some.

    `changes` are settled.
    """
    import torch
    from torch.nn import functional

    pixels, share = round(changes.shift or 0), changes.flip or 0.0
    if not pixels and not share:
        return images
    n, channels, height, width = images.shape
    if not pixels:
        flip = torch.rand((n, 1, 1, 1), generator=generator) < share
        return torch.where(flip, images.flip(-1), images)
    padded = functional.pad(images, (pixels,) * 4)
    down, right = torch.randint(0, 2 * pixels + 1, (2, n, 1), generator=generator)
    flip = torch.rand((n, 1), generator=generator) < share
    columns = torch.arange(width).expand(n, width)
    columns = torch.where(flip, width - 1 - columns, columns) + right
    rows = torch.arange(height) + down
    each, channel = torch.arange(n)[:, None, None, None], torch.arange(channels)[:, None, None]
    return padded[each, channel, rows[:, None, :, None], columns[:, None, None, :]]


class Mixed:
    """Mixes the images of a batch by settled `changes`; `labels` are all that there are, for their number."""

    def __init__(self, changes: Augmentation, labels: torch.Tensor) -> None:
        self._ways: list[Any] = []
        if changes.mixup or changes.cutmix:
            from torchvision.transforms import v2

            classes = int(labels.max()) + 1
            kinds = ((v2.MixUp, changes.mixup), (v2.CutMix, changes.cutmix))
            self._ways = [kind(alpha=alpha, num_classes=classes) for kind, alpha in kinds if alpha]

    def __call__(
        self, inputs: torch.Tensor, labels: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Floats [n, C, h, w] and labels [n], as they are or mixed: then labels are float32 [n, classes]."""
        if not self._ways:
            return inputs, labels
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(drawn_seed(generator))
            way = self._ways[int(torch.randint(len(self._ways), ()))]
            inputs, labels = way(inputs, labels)
        return inputs.contiguous(memory_format=torch.channels_last), labels


def drawn_seed(generator: torch.Generator) -> int:
    """A seed that is drawn."""
    import torch

    return int(torch.randint(2**62, (), generator=generator))
