"""Folders of photos, one folder a class, or without labels.

Which split a file belongs to is decided by a hash of its path within the folder: adding files moves no others.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection
from pathlib import Path

from amc_latency.console import Console
from amc_latency.data.labels import check_classes
from amc_latency.data.load import Streaming, Wanted
from amc_latency.data.photos.listing import (
    ANNOTATIONS,
    Photo,
    annotated,
    check_no_splits,
    classes,
    images,
    labelled,
    listed,
)
from amc_latency.data.photos.view import View
from amc_latency.data.splits import LEAST_IMAGES, ImageData
from amc_latency.errors import OptionError, UserError
from amc_latency.pixels import GREY, IMAGENET, Crop

SHARE = 0.15
"""of the images that are held back, and as many again for the test where there is no folder of its own for it"""
MOST = 10_000
"""of either: more tell no more, and every finalist of a search is judged by all of them"""
LEAST_OF_A_SPLIT = 4


def load(wanted: Wanted) -> ImageData:
    """As a data source. Raises what `load_folder` raises."""
    is_imagenet = wanted.name == "imagenet"
    return load_folder(Path(wanted.place), wanted.size, wanted.console, is_imagenet, wanted.crop, wanted.streaming)


def load_folder(
    folder: Path,
    size: tuple[int, int],
    console: Console,
    imagenet: bool = False,
    crop: Crop | None = None,
    streaming: Streaming | None = None,
) -> ImageData:
    """`<folder>/<class>/*`, split by hash; or `<folder>/train/<class>/*` beside `val`, `test` or both.

    With one of `val` and `test`, that is the test split and the held-back images are train's; with both, `val` is
    held back. `imagenet` wants `train` and `val`, and leaves `test` alone: ImageNet's has no labels; so does Tiny
    ImageNet's archive, whose `val` is labelled by a list. Classes are numbered in the order of their folders' names.
    Photos are decoded for `size` (h, w), of which `crop` says what is seen.
    Raises UserError for what is missing, empty or can't be read.
    """
    parts = [part for part in ("train", "val", "test") if (folder / part).is_dir()]
    source = f"{'imagenet' if imagenet else 'folder'}:{folder}"
    if imagenet and parts[:2] != ["train", "val"]:
        raise UserError(f"{folder}: no folders train and val in it; lay them as train/CLASS/* and val/CLASS/*")
    has_list = parts[:2] == ["train", "val"] and (folder / ANNOTATIONS).is_file()
    if imagenet or has_list:
        parts = ["train", "val"]
    if parts[:1] != ["train"] or len(parts) == 1:
        known = classes(folder)
        check_no_splits(folder, known)
        splits = _three(folder, labelled(folder, "", known, console))
    else:
        known = classes(folder / "train")
        listing = annotated(folder) if has_list else []
        if imagenet or has_list:
            of_val = {name for _, name in listing} if has_list else set(classes(folder / "val"))
            known = _in_both(folder, known, of_val, console)
        splits = [_by_place(labelled(folder, "train", known, console, only=True))]
        if has_list:
            splits.append(_by_place([Photo(path, known.index(name)) for path, name in listing]))
        else:
            splits += [_by_place(labelled(folder, part, known, console)) for part in parts[1:]]
        _check_enough(folder / "train", splits[0])
        if len(parts) == 2:
            held_back, train = _cut_off(splits[0], 1 - _share(splits[0]), len(splits[0]))
            splits = [train, held_back, splits[1]]
    check_classes(str(folder), [[photo.label for photo in split] for split in splits], known, console)
    return _loaded(source, folder, splits, len(known), View(size, crop or Crop()), console, streaming)


def load_unlabelled(
    folder: Path,
    size: tuple[int, int],
    console: Console,
    crop: Crop | None = None,
    streaming: Streaming | None = None,
) -> ImageData:
    """All photos under `folder`, split by hash; their labels are 0 until a network has given others.

    Raises UserError for fewer than 20 and for what can't be read.
    """
    if not folder.is_dir():
        raise OptionError("unlabelled", f"{folder}: no such folder")
    splits = _three(folder, [Photo(name, 0) for name in images(folder, console)])
    return _loaded(f"unlabelled:{folder}", folder, splits, 0, View(size, crop or Crop()), console, streaming)


def _in_both(folder: Path, of_train: list[str], of_val: Collection[str], console: Console) -> list[str]:
    """The classes of which there are train and test images; train's others are said. Raises UserError for val's."""
    if unknown := set(of_val) - set(of_train):
        raise UserError(f"{folder / 'val'}: there is no class {min(unknown)} among the train images")
    known = [name for name in of_train if name in of_val]
    if strays := [name for name in of_train if name not in of_val]:
        console.warn(f"{folder}: val has no images of {len(strays)} class folders of train: {listed(strays)}; left out")
    if len(known) < 2:
        raise UserError(f"{folder}: {len(known)} classes in both train and val, where at least 2 belong")
    return known


def _by_place(photos: list[Photo]) -> list[Photo]:
    return sorted(photos, key=lambda photo: (photo.hashed, photo.name))


def _check_enough(folder: Path, photos: list[Photo]) -> None:
    if len(photos) < LEAST_IMAGES:
        raise UserError(f"{folder}: {len(photos)} images; to train on some and judge by others takes {LEAST_IMAGES}")


def _share(photos: list[Photo]) -> float:
    return min(SHARE, MOST / len(photos))


def _cut_off(photos: list[Photo], start: float, total: int) -> tuple[list[Photo], list[Photo]]:
    """Those of the sorted `photos` from `start` on, and the rest; of a few, enough that neither is without any."""
    wanted = sum(photo.hashed >= start for photo in photos)
    n = min(max(wanted, LEAST_OF_A_SPLIT), total // 4)
    return photos[len(photos) - n :], photos[: len(photos) - n]


def _three(folder: Path, photos: list[Photo]) -> list[list[Photo]]:
    """Train, held back and test."""
    _check_enough(folder, photos)
    share = _share(photos)
    test, rest = _cut_off(_by_place(photos), 1 - share, len(photos))
    held_back, train = _cut_off(rest, 1 - 2 * share, len(photos))
    return [train, held_back, test]


def _loaded(
    source: str,
    folder: Path,
    splits: list[list[Photo]],
    classes: int,
    view: View,
    console: Console,
    streaming: Streaming | None,
) -> ImageData:
    import torch

    from amc_latency.data.items import Skipped
    from amc_latency.data.photos.decoding import room_to_decode
    from amc_latency.data.photos.files import PhotoFiles
    from amc_latency.data.streamed import Streamed, kept_if_they_fit

    names = [photo.name for split in splits for photo in split]
    files = PhotoFiles(folder, names, view, room_to_decode())
    skipped = Skipped(str(folder), len(names), console)
    is_grey = _all_grey(folder, names)
    loaded, start = [], 0
    for split in splits:
        labels = torch.tensor([photo.label for photo in split], dtype=torch.int64)
        indices = torch.arange(start, start + len(split))
        pixels, colours = (GREY, 1) if is_grey else (IMAGENET, 3)
        loaded.append(Streamed(files, indices, labels, pixels, colours, view, skipped))
        start += len(split)
    train, held_back, test = kept_if_they_fit(loaded, streaming or Streaming(), console)
    if not len(held_back) or not len(test):
        raise UserError(f"{folder}: of the few images for a test none can be read; repair them, or add more")
    return ImageData(source, train, held_back, test, classes, unlabelled=not classes)


def _all_grey(folder: Path, names: list[str]) -> bool:
    """Whether no photo has colours, by their headers: the first that has ends the search."""
    from amc_latency.data.photos.decoding import shows_grey

    found = False
    # Pillow's warnings of odd metadata name no file.
    with warnings.catch_warnings(action="ignore"):
        for name in names:
            grey = shows_grey(folder / name)
            if grey is False:
                return False
            found |= grey is True
    return found
