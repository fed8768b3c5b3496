"""torchvision's classification sets by name: `torchvision:EuroSAT` is `torchvision.datasets.EuroSAT`."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from amc_latency.arguments.names import unknown
from amc_latency.data.load import Wanted
from amc_latency.data.sets.torchvision_folder import download_with, torchvision_root
from amc_latency.data.splits import ImageData
from amc_latency.errors import UserError

SPLITS = (
    ("train", "val", "test"),
    ("train", "valid", "test"),
    ("train", "test"),
    ("train", "val"),
    ("trainval", "test"),
)
"""What torchvision's sets call them, of which the first that a set has is taken; where there are two, none is val."""


def load(wanted: Wanted) -> ImageData:
    """As a data source: the set of that name, or Fashion-MNIST where none is named. Raises UserError without one."""
    if not wanted.place:
        from amc_latency.data.sets.fashion_mnist import load as load_fashion_mnist

        return load_fashion_mnist(wanted)
    from amc_latency.data.sets.datasets import load_datasets

    root = torchvision_root(wanted.data_dir)
    parts = _parts(wanted.place, root, wanted.download)
    train, held_back, test = parts
    classes = getattr(train, "classes", None)
    n_classes = len(classes) if isinstance(classes, list | tuple) else None
    how = (wanted.size, wanted.console, wanted.crop, wanted.streaming, wanted.source, n_classes)
    return load_datasets(train, held_back, test, *how)


def _parts(name: str, root: Path, download: bool) -> tuple[Any, Any | None, Any | None]:
    """Train, held-back and test set; None where it has none of its own. Raises UserError, JobError for a download."""
    from torchvision import datasets

    kinds: dict[str, Any] = {
        each: kind
        for each, kind in vars(datasets).items()
        if inspect.isclass(kind) and issubclass(kind, datasets.VisionDataset) and kind is not datasets.VisionDataset
    }
    if name not in kinds:
        raise UserError(unknown(sorted(kinds), name, "data set of torchvision"))
    kind = kinds[name]
    takes = inspect.signature(kind).parameters
    if download:
        download_with(name, root, "fetch it on a machine with a network, and copy that folder")
    first = (str(root),) if "root" in takes else ()
    try:
        if "train" in takes:
            return kind(*first, train=True), None, kind(*first, train=False)
        if "split" not in takes:
            return kind(*first), None, None
        for names in SPLITS:
            try:
                found = [kind(*first, split=each) for each in names]
            except ValueError:
                # It has no split of that name.
                continue
            return found[0], found[1] if len(found) == 3 else None, found[-1]
    except (OSError, RuntimeError, EOFError, TypeError) as error:
        raise UserError(
            f"torchvision's {name} is not in {root}, or damaged, or needs more than a folder ({_first_line(error)}); "
            "`data_dir` says another folder, and `download` fetches it"
        ) from error
    raise UserError(f"torchvision's {name} has no splits to train on and test: give it to an `ImageTask` as a data set")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
