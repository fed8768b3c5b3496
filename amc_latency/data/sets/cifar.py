"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 32 x 32 colour images, read by torchvision.

The last 5,000 of the 50,000 train images are held back; their order is random as they are published.
"""

from pathlib import Path
from typing import Any

import numpy as np

from amc_latency.data.load import Wanted
from amc_latency.data.sets.torchvision_folder import download_with, torchvision_root
from amc_latency.data.splits import ImageData, InMemory
from amc_latency.errors import UserError
from amc_latency.pixels import NORMALISATIONS, Normalisation

HELD_BACK_SHARE = 0.1
CLASSES = {"cifar10": 10, "cifar100": 100}


def load(wanted: Wanted) -> ImageData:
    """As a data source. Raises what `load_cifar` raises."""
    return load_cifar(wanted.name, wanted.data_dir, wanted.download)


def load_cifar(name: str, data_dir: Path | None = None, download: bool = False) -> ImageData:
    """Load "cifar10" or "cifar100" from torchvision's folder, and with `download` fetch it first.

    Raises UserError if it is not there or damaged, JobError for a failed download.
    """
    from torchvision import datasets

    root = torchvision_root(data_dir)
    if download:
        download_with(name.upper(), root, "fetch it on a machine with a network, and copy that folder")
    try:
        train, test = (getattr(datasets, name.upper())(str(root), train=part) for part in (True, False))
    except (OSError, RuntimeError, EOFError) as error:
        raise UserError(
            f"{root}: {name} is not there, or damaged; fetch it with `amc-latency train`, "
            f"`data={name!r}` and `download`"
        ) from error
    both = _split(train, NORMALISATIONS[name])
    first_held_back = len(both) - round(HELD_BACK_SHARE * len(both))
    held_back = InMemory(both.images[first_held_back:], both.labels[first_held_back:], both.normalisation)
    return ImageData(
        name, both.take(first_held_back), held_back, _split(test, NORMALISATIONS[name]), classes=CLASSES[name]
    )


def _split(dataset: Any, normalisation: Normalisation) -> InMemory:
    import torch

    images = torch.from_numpy(np.ascontiguousarray(dataset.data.transpose(0, 3, 1, 2)))
    return InMemory(images, torch.tensor(dataset.targets, dtype=torch.int64), normalisation)
