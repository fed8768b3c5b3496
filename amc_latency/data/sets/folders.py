"""Folders of photos, one folder a class, or without labels.

Which split a file belongs to is decided by a hash of its path within the folder: adding files moves no others.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from amc_latency.console import Console
from amc_latency.data.load import Wanted
from amc_latency.data.photos import SUFFIXES, decode
from amc_latency.data.splits import LEAST_IMAGES, ImageData, Split
from amc_latency.errors import OptionError, UserError
from amc_latency.pixels import IMAGENET, Normalisation

SHARE = 0.15
"""of the images that are held back, and as many again for the test where there is no folder of its own for it"""
LEAST_OF_A_SPLIT = 4
MEMORY_BYTES = 4 * 2**30
"""that decoded images may take; of more images than fit a part is taken"""
SPLIT_NAMES = ("train", "training", "val", "valid", "validation", "test", "testing")
GREY = Normalisation((sum(IMAGENET.mean) / 3,), (sum(IMAGENET.std) / 3,))


@dataclass(frozen=True)
class Photo:
    """A file of a folder, and its class."""

    name: str
    """path within the folder"""
    label: int

    @property
    def hashed(self) -> float:
        """Where in 0..1 the hash puts it."""
        return int.from_bytes(hashlib.sha256(os.fsencode(self.name)).digest()[:6]) / 2**48


def load(wanted: Wanted) -> ImageData:
    """As a data source. Raises what `load_folder` raises."""
    return load_folder(Path(wanted.place), wanted.size, wanted.console, imagenet=wanted.name == "imagenet")


def load_folder(
    folder: Path, size: tuple[int, int], console: Console, imagenet: bool = False, memory_bytes: int = MEMORY_BYTES
) -> ImageData:
    """`<folder>/<class>/*`, split by hash; or `<folder>/train/<class>/*` beside `val`, `test` or both.

    With one of `val` and `test`, that is the test split and the held-back images are train's; with both, `val` is
    held back. `imagenet` wants `train` and `val`, and leaves `test` alone: ImageNet's has no labels. Classes are
    numbered in the order of their folders' names. Photos are decoded for `size` (h, w).
    Raises UserError for what is missing, empty or can't be read.
    """
    parts = [part for part in ("train", "val", "test") if (folder / part).is_dir()]
    source = f"{'imagenet' if imagenet else 'folder'}:{folder}"
    if imagenet:
        if parts[:2] != ["train", "val"]:
            raise UserError(f"{folder}: no folders train and val in it; lay them as train/CLASS/* and val/CLASS/*")
        parts = ["train", "val"]
    if parts[:1] != ["train"] or len(parts) == 1:
        classes = _classes(folder)
        _check_no_splits(folder, classes)
        splits = _three(folder, _labelled(folder, "", classes))
    else:
        classes = _classes(folder / "train")
        splits = [_by_place(_labelled(folder, part, classes)) for part in parts]
        _check_enough(folder / "train", splits[0])
        if len(parts) == 2:
            held_back, train = _cut_off(splits[0], 1 - SHARE, len(splits[0]))
            splits = [train, held_back, splits[1]]
    return _decoded(source, folder, splits, len(classes), size, console, memory_bytes)


def load_unlabelled(
    folder: Path, size: tuple[int, int], console: Console, memory_bytes: int = MEMORY_BYTES
) -> ImageData:
    """All photos under `folder`, split by hash; their labels are 0 until a network has given others.

    Raises UserError for fewer than 20 and for what can't be read.
    """
    if not folder.is_dir():
        raise OptionError("unlabelled", f"{folder}: no such folder")
    photos = [Photo(name, 0) for name in _images(folder)]
    return _decoded(f"unlabelled:{folder}", folder, _three(folder, photos), 0, size, console, memory_bytes)


def _images(folder: Path) -> list[str]:
    """Images at any depth, as sorted paths within `folder`; hidden files and folders are left out."""

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: can't be read ({error.strerror})") from error

    found = []
    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inner = Path(parent).relative_to(folder)
        found += [
            (inner / name).as_posix() for name in names if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    return sorted(found)


def _classes(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(classes) < 2:
        loose = "; for images without labels there is `unlabelled`, the folder, of a search" if _images(folder) else ""
        raise UserError(f"{folder}: {len(classes)} class folders where at least 2 belong, one a class{loose}")
    return classes


def _check_no_splits(folder: Path, classes: list[str]) -> None:
    """Raise UserError where `classes` are splits by other names, or without the one to train on."""
    named = [name for name in classes if name.lower() in SPLIT_NAMES]
    if named == classes or any(path.is_dir() for name in named for path in (folder / name).iterdir()):
        raise UserError(
            f"{folder}: {', '.join(named)} would be taken for classes; lay splits as train/CLASS/* beside "
            "val/CLASS/*, test/CLASS/* or both"
        )


def _labelled(folder: Path, part: str, classes: list[str]) -> list[Photo]:
    """The photos of `<folder>/<part>`, each labelled by its class's place in `classes`."""
    photos = []
    for name in _classes(folder / part):
        if name not in classes:
            raise UserError(f"{folder / part / name}: there is no class {name} among the train images")
        images = _images(folder / part / name)
        if not images:
            raise UserError(f"{folder / part / name}: no images in it ({', '.join(SUFFIXES)}); fill or remove it")
        photos += [Photo((Path(part) / name / image).as_posix(), classes.index(name)) for image in images]
    return photos


def _by_place(photos: list[Photo]) -> list[Photo]:
    return sorted(photos, key=lambda photo: (photo.hashed, photo.name))


def _check_enough(folder: Path, photos: list[Photo]) -> None:
    if len(photos) < LEAST_IMAGES:
        raise UserError(f"{folder}: {len(photos)} images; to train on some and judge by others takes {LEAST_IMAGES}")


def _cut_off(photos: list[Photo], start: float, total: int) -> tuple[list[Photo], list[Photo]]:
    """Those of the sorted `photos` from `start` on, and the rest; of a few, enough that neither is without any."""
    wanted = sum(photo.hashed >= start for photo in photos)
    n = min(max(wanted, LEAST_OF_A_SPLIT), total // 4)
    return photos[len(photos) - n :], photos[: len(photos) - n]


def _three(folder: Path, photos: list[Photo]) -> list[list[Photo]]:
    """Train, held back and test."""
    _check_enough(folder, photos)
    test, rest = _cut_off(_by_place(photos), 1 - SHARE, len(photos))
    held_back, train = _cut_off(rest, 1 - 2 * SHARE, len(photos))
    return [train, held_back, test]


def _fitting(
    splits: list[list[Photo]], size: tuple[int, int], memory_bytes: int, console: Console
) -> list[list[Photo]]:
    """As many of each split as fit: held back and test take a quarter each at most, train the rest."""
    room, total = memory_bytes // (3 * size[0] * size[1]), sum(map(len, splits))
    if total <= room:
        return splits
    train, held_back, test = splits
    held_back, test = held_back[: room // 4], test[: room // 4]
    train = train[: room - len(held_back) - len(test)]
    console.say(
        f"{total:,} images of {size[0]}x{size[1]} are more than {memory_bytes / 2**30:.3g} GiB: taken are "
        f"{len(train):,} to train on, {len(held_back):,} held back and {len(test):,} for the test, picked by hash"
    )
    return [train, held_back, test]


def _decoded(
    source: str,
    folder: Path,
    splits: list[list[Photo]],
    classes: int,
    size: tuple[int, int],
    console: Console,
    memory_bytes: int,
) -> ImageData:
    import torch

    splits = _fitting(splits, size, memory_bytes, console)
    images, read = decode(folder, [photo.name for split in splits for photo in split], size, console)
    were_read, loaded, start = iter(read), [], 0
    for split in splits:
        labels = [photo.label for photo in split if next(were_read)]
        pixels = images[start : start + len(labels)]
        loaded.append(
            Split(pixels, torch.tensor(labels, dtype=torch.int64), GREY if pixels.shape[1] == 1 else IMAGENET)
        )
        start += len(labels)
    train, held_back, test = loaded
    if not len(held_back) or not len(test):
        raise UserError(f"{folder}: of the few images for a test none can be read; repair them, or add more")
    return ImageData(source, train, held_back, test, classes, unlabelled=not classes)
