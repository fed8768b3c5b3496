"""Images from a function of the user's own file: arrays or tensors, checked before anything else sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from amc_latency.data.load import Wanted
from amc_latency.data.splits import LEAST_IMAGES, ImageData, InMemory
from amc_latency.errors import UserError
from amc_latency.pixels import Normalisation

if TYPE_CHECKING:
    import torch

FIELDS = ("train_images", "train_labels", "test_images", "test_labels")
HELD_BACK_SHARE = 0.1
MOST_HELD_BACK = 5000
MEASURED_IMAGES = 1000
"""by which mean and standard deviation are told"""


def load(wanted: Wanted) -> ImageData:
    """As a data source. Raises what `load_own` raises."""
    return load_own(wanted.source, wanted.size)


def load_own(text: str, size: tuple[int, int]) -> ImageData:
    """What the function of `text`, "FILE.py:FUNCTION", returns: a dict, or an object with the fields `FIELDS`.

    Images are uint8 [N, C, H, W], [N, H, W, C] or [N, H, W], labels integers from 0; those larger than `size` (h, w)
    are shrunk to it. A tenth of the train images, 5,000 at most, is picked by a fixed seed and held back.
    Raises UserError for anything else, and what `load_function` raises.
    """
    import torch

    from amc_latency.models.own_file import load_function

    found = load_function(text)()
    values = {name: found.get(name) if isinstance(found, Mapping) else getattr(found, name, None) for name in FIELDS}
    if missing := [name for name in FIELDS if values[name] is None]:
        raise UserError(f"{text} returns {type(found).__name__} without {', '.join(missing)}; give {', '.join(FIELDS)}")
    splits = {}
    for part in ("train", "test"):
        images = _images(f"{text}: {part}_images", values[f"{part}_images"])
        labels = _labels(f"{text}: {part}_labels", values[f"{part}_labels"], len(images))
        splits[part] = _shrunk(images, size), labels
    (images, labels), (test_images, test_labels) = splits["train"], splits["test"]
    if images.shape[1:] != test_images.shape[1:]:
        raise UserError(
            f"{text}: train images are {_times(images.shape[1:])} and test images {_times(test_images.shape[1:])}; "
            "make them alike"
        )
    if len(images) < LEAST_IMAGES:
        raise UserError(f"{text}: {len(images)} train images; to hold some back takes {LEAST_IMAGES} or more")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    train = InMemory(images[order], labels[order], _measured(images[order[:MEASURED_IMAGES]]))
    n_held_back = min(MOST_HELD_BACK, round(HELD_BACK_SHARE * len(train)))
    return ImageData(
        text,
        train.at(torch.arange(n_held_back, len(train))),
        train.take(n_held_back),
        InMemory(test_images, test_labels, train.normalisation),
        classes=int(max(labels.max(), test_labels.max())) + 1,
    )


def _array(what: str, value: Any) -> np.ndarray:
    import torch

    array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
    if not isinstance(array, np.ndarray) or not array.size:
        raise UserError(f"{what} is {type(value).__name__}: give a NumPy array or a PyTorch tensor that is not empty")
    return array


def _images(what: str, value: Any) -> torch.Tensor:
    import torch

    array = _array(what, value)
    if array.dtype != np.uint8:
        raise UserError(f"{what} is {array.dtype}: give uint8, pixels of 0..255, not yet normalised")
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[1] not in (1, 3) and array.shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.shape[1] not in (1, 3):
        raise UserError(
            f"{what} is {_times(array.shape)}: give [N, C, H, W], [N, H, W, C] or [N, H, W], of 1 or 3 channels"
        )
    return torch.from_numpy(np.ascontiguousarray(array))


def _labels(what: str, value: Any, images: int) -> torch.Tensor:
    import torch

    array = _array(what, value)
    if not np.issubdtype(array.dtype, np.integer) or array.shape != (images,):
        raise UserError(f"{what} is {array.dtype} {_times(array.shape)}: give {images} integers, one an image")
    if array.min() < 0:
        raise UserError(f"{what}: classes are counted from 0, and there is a {array.min()}")
    return torch.from_numpy(array.astype(np.int64))


def _shrunk(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    if images.shape[2] <= size[0] or images.shape[3] <= size[1]:
        return images
    import torch
    from torchvision.transforms.v2 import functional as transforms

    return torch.cat([transforms.resize(some, list(size), antialias=True) for some in images.split(1000)])


def _measured(images: torch.Tensor) -> Normalisation:
    """Mean and standard deviation of each channel of `images` uint8 [N, C, H, W], scaled to 0..1."""
    import torch

    values = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in images.unbind(1):
        share = torch.bincount(channel.flatten(), minlength=256).double() / channel.numel()
        mean = float(share @ values)
        std = float(share @ (values - mean) ** 2) ** 0.5
        means.append(mean)
        # Images of one colour have none.
        stds.append(std or 1.0)
    return Normalisation(tuple(means), tuple(stds))


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
