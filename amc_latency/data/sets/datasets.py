"""A program's own `Dataset` or `DataLoader`: its items are read one by one, and checked before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Subset, default_collate

from amc_latency.console import Console
from amc_latency.data.items import Kept, Skipped
from amc_latency.data.labels import check_classes
from amc_latency.data.load import Streaming
from amc_latency.data.photos.decoding import reason
from amc_latency.data.photos.files import sample
from amc_latency.data.photos.pixel_modes import as_bytes, levels_of
from amc_latency.data.photos.view import View
from amc_latency.data.splits import LEAST_IMAGES, ImageData
from amc_latency.data.streamed import Streamed, kept_if_they_fit
from amc_latency.data.workers import chance, read_batches
from amc_latency.errors import UserError
from amc_latency.pixels import GREY, IMAGENET, NORMALISATIONS, Crop, Normalisation

HELD_BACK_SHARE, TEST_SHARE = 0.1, 0.15
MOST_HELD_BACK = 5000
SAMPLE = 32
"""items of a set that are read several times, to see whether they are the same each time"""
SMALL = 64
"""Images of one size up to this are a set such as CIFAR, and no photos."""
_LABELS_AT_ONCE = 256


@dataclass(frozen=True)
class DatasetItems:
    """The items (image, label) of a map-style data set."""

    dataset: Any
    title: str
    collate: Callable[[list[Any]], Any] | None = None
    """of a loader that has its own"""
    view: View | None = None
    """that images are shrunk for; None leaves them as they are"""
    is_steady: bool = True
    """whether the same seed gives the same pixels"""

    def pair(self, index: int) -> tuple[Any, int]:
        """Image and label. Raises UserError for an item that is something else, or without a class for a label."""
        item = self.dataset[index] if self.collate is None else self.collate([self.dataset[index]])
        if not isinstance(item, tuple | list) or len(item) < 2:
            keys = f" of {', '.join(map(str, item))}" if isinstance(item, dict) else ""
            raise UserError(f"{self.title}: item {index} is a {type(item).__name__}{keys}: give (image, label)")
        image, label = item[:2] if self.collate is None else (item[0][0], item[1][0])
        found = np.asarray(label)
        if found.size != 1 or not np.issubdtype(found.dtype, np.integer) or int(found.flat[0]) < 0:
            what = f"{label!r}"[:40]
            raise UserError(f"{self.title}: item {index} has the label {what}: give a class, counted from 0")
        return image, int(found.flat[0])

    def array(self, image: Any, index: int) -> np.ndarray:
        """The image of that item, as `Items.read`. Raises UserError for what is none."""
        if isinstance(image, torch.Tensor):
            image = image.detach().cpu().numpy()
            if image.dtype == np.uint8 and image.ndim == 3:
                image = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
        if isinstance(image, np.ndarray) and np.issubdtype(image.dtype, np.floating) and image.ndim == 3:
            return image.astype(np.float32)
        if isinstance(image, np.ndarray) and image.dtype == np.uint8:
            image = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
            if image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3):
                image = Image.fromarray(image)
        if not isinstance(image, Image.Image):
            shape = f" of {image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else ""
            raise UserError(
                f"{self.title}: item {index} has a {type(image).__name__}{shape} for an image: give one of Pillow, "
                "bytes [H, W, 3] or [3, H, W], or floats [C, H, W] as the network takes them"
            )
        found = as_bytes(image, levels_of(image))
        return np.asarray(found if self.view is None else self.view.shrunk(found))

    def read(self, index: int) -> np.ndarray | str:
        """As `Items.read`."""
        try:
            return self.array(self.pair(index)[0], index)
        except Exception as error:
            return (
                reason(error) if isinstance(error, OSError | UserError) else f"{type(error).__name__}: {reason(error)}"
            )

    def name(self, index: int) -> str:
        """As `Items.name`."""
        return f"item {index}"

    def add_to(self, digest: Any, indices: Sequence[int]) -> None:
        """Which items, and the pixels of a few; without these where they are others each time."""
        digest.update(f"{len(self.dataset)} {list(indices)}".encode())
        for index in sample(indices, SAMPLE) if self.is_steady else ():
            with chance(index):
                item = self.read(index)
            digest.update(item.encode() if isinstance(item, str) else np.ascontiguousarray(item).data)


@dataclass(frozen=True)
class _Labels:
    """The labels of items, read as if they were images."""

    items: DatasetItems

    def read(self, index: int) -> np.ndarray | str:
        try:
            return np.array(self.items.pair(index)[1])
        except Exception as error:
            return reason(error)

    def name(self, index: int) -> str:
        return self.items.name(index)

    def add_to(self, digest: Any, indices: Sequence[int]) -> None:
        raise NotImplementedError


def items_of(given: Any, title: str) -> DatasetItems:
    """The items of a map-style data set, or of a loader's. Raises UserError for anything else, and for none."""
    collate = None
    if isinstance(given, DataLoader):
        collate = None if given.collate_fn is default_collate else given.collate_fn
        given = given.dataset
    if not hasattr(given, "__getitem__") or not hasattr(given, "__len__"):
        raise UserError(
            f"{title} is {type(given).__name__}: give a data set with __getitem__ and __len__, or a DataLoader of one; "
            "what can only be read in its own order can't be split and resumed"
        )
    if not len(given):
        raise UserError(f"{title} ({type(given).__name__}) gives nothing: it has no items")
    return DatasetItems(given, f"{title} ({type(given).__name__})", collate)


def load_datasets(
    train: Any,
    held_back: Any | None,
    test: Any | None,
    size: tuple[int, int],
    console: Console,
    crop: Crop | None = None,
    streaming: Streaming | None = None,
    source: str | None = None,
    classes: int | None = None,
) -> ImageData:
    """Data sets or loaders of (image, label) as the three splits.

    A tenth of `train` is held back, 5,000 at most, unless set; without `test` too, 15 % of it are the test images.
    Images are of Pillow, or bytes; floats [C, H, W] are taken for a network's input as the set's own transforms made
    it: nothing is normalised or augmented. `size` (h, w) is what the network takes, `crop` what it sees of an image.
    Raises UserError for anything else, and for a set whose labels are others each time it is read.
    """
    given = {"train": train, "held_back": held_back, "test": test}
    sets = {part: items_of(each, f"`{part}`") for part, each in given.items() if each is not None}
    looks = {part: _look(items, size, crop or Crop(), console) for part, items in sets.items()}
    kinds = {look.kind for look in looks.values()}
    if ("tensors" in kinds) != (kinds == {"tensors"}):
        raise UserError(f"{' and '.join(sets)} give images in part and floats in part: make them alike")
    colours = max(look.colours for look in looks.values())
    splits: dict[str, Streamed] = {}
    for part, look in looks.items():
        skipped = Skipped(look.items.title, len(look.items.dataset), console)
        labels, indices = _labels(look.items, skipped)
        pixels = NORMALISATIONS["raw"] if look.kind == "tensors" else GREY if colours == 1 else IMAGENET
        if len(pixels.mean) < colours:
            pixels = Normalisation(pixels.mean * colours, pixels.std * colours)
        how = (pixels, colours, look.view, skipped, look.kind, look.is_fixed)
        splits[part] = Streamed(look.items, indices, labels, *how)
    three = _three(splits)
    found = 1 + max(int(split.labels.max()) for split in three if len(split))
    where = source or sets["train"].title
    names = [str(label) for label in range(found)]
    check_classes(where, [split.labels.tolist() for split in three], names, console)
    # Small images are fastest all in one.
    ours, judged, tested = (
        split.kept() if split.kind == "pixels" and isinstance(split.items, Kept) else split
        for split in kept_if_they_fit(three, streaming or Streaming(), console)
    )
    return ImageData(where, ours, judged, tested, classes or found, takes_as_given=kinds == {"tensors"})


@dataclass(frozen=True)
class _Look:
    """What a few items of a set say of all."""

    items: DatasetItems
    kind: Any
    colours: int
    view: View
    is_fixed: bool


def _look(items: DatasetItems, size: tuple[int, int], crop: Crop, console: Console) -> _Look:
    """Read a few items three times. Raises UserError for what no network is trained on."""
    arrays, is_steady, is_fixed = [], True, True
    for index in sample(range(len(items.dataset)), SAMPLE):
        found = []
        for seed in (2 * index, 2 * index, 2 * index + 1):
            with chance(seed):
                try:
                    image, label = items.pair(index)
                    found.append((items.array(image, index), label))
                except UserError:
                    raise
                except Exception as error:
                    console.detail(f"{items.title}: item {index}: {reason(error)}")
                    break
        if len(found) < 3:
            continue
        if len({label for _, label in found}) > 1:
            raise UserError(
                f"{items.title}: item {index} has another label each time it is read ({found[0][1]}, {found[2][1]}): "
                "a resumed run would not see the same data; fix the set's order, and leave shuffling to the training"
            )
        is_steady &= np.array_equal(found[0][0], found[1][0])
        is_fixed &= is_steady and np.array_equal(found[0][0], found[2][0])
        arrays.append(found[0][0])
    if not arrays:
        raise UserError(f"{items.title}: none of {SAMPLE} items can be read")
    if not is_steady:
        console.say(f"{items.title}: images are others each time they are read: a resumed run is not told from another")
    first = arrays[0]
    view, kind, colours = View(size, crop), "photos", 3 if any(each.ndim == 3 for each in arrays) else 1
    if first.dtype == np.float32:
        odd = next((each for each in arrays if each.shape != first.shape), first)
        if odd.shape != first.shape or first.shape[1:] != size:
            raise UserError(
                f"{items.title}: items are floats {list(odd.shape)}, and the network takes {size[0]}x{size[1]}: "
                "resize them in the set's own transforms, or give images"
            )
        view, kind, colours = View(size, Crop(1.0)), "tensors", first.shape[0]
    elif max(first.shape[:2]) <= SMALL and len({each.shape[:2] for each in arrays}) == 1:
        view, kind = View((first.shape[0], first.shape[1]), Crop(1.0)), "pixels"
    return _Look(replace(items, is_steady=is_steady, view=view), kind, colours, view, is_fixed)


def _labels(items: DatasetItems, skipped: Skipped) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels int64 [N] of what can be read, and which items these are; by the set's own list of them if it has one."""
    known = _targets(items.dataset)
    if known is not None and items.collate is None:
        checked = sample(range(len(known)), SAMPLE)
        if all(_Labels(items).read(index) == known[index] for index in checked):
            return torch.from_numpy(known), torch.arange(len(known))
    indices = torch.arange(len(items.dataset))
    labels, found = [], []
    with skipped.console.progress("reading labels", len(indices)) as meter:
        dealt = indices.split(_LABELS_AT_ONCE)
        for places, read in zip(dealt, read_batches(_Labels(items), dealt, _as_it_is), strict=True):
            skipped.add(read.unread)
            labels.append(torch.from_numpy(read.images.astype(np.int64)))
            found.append(places[torch.from_numpy(read.places)])
            meter.update(meter.done + len(places))
    skipped.tell()
    return torch.cat(labels), torch.cat(found)


def _targets(dataset: Any) -> np.ndarray | None:
    """The labels that a set lists without its images being read, int64 [N], as torchvision's do."""
    if isinstance(dataset, Subset):
        whole = _targets(dataset.dataset)
        return None if whole is None else whole[np.asarray(dataset.indices)]
    if isinstance(dataset, ConcatDataset):
        parts = [_targets(part) for part in dataset.datasets]
        return None if any(part is None for part in parts) else np.concatenate(parts)  # type: ignore[arg-type]
    for name in ("targets", "labels", "_labels"):
        try:
            found = np.asarray(getattr(dataset, name, None))
        except ValueError:
            continue
        if found.shape == (len(dataset),) and np.issubdtype(found.dtype, np.integer):
            return found.astype(np.int64)
    return None


def _three(splits: dict[str, Streamed]) -> list[Streamed]:
    """Train, held back and test, of what is given of them; train's order is picked by a fixed seed."""
    train, parts = splits["train"], dict(splits)
    train = train.at(torch.randperm(len(train), generator=torch.Generator().manual_seed(0)))
    n = len(train)
    if len(parts) < 3 and n < LEAST_IMAGES:
        raise UserError(f"{train.skipped.where}: {n} items; to train on some and judge by others takes {LEAST_IMAGES}")
    if "held_back" not in parts:
        n_held_back = min(MOST_HELD_BACK, round(HELD_BACK_SHARE * n))
        parts["held_back"], train = train.take(n_held_back), train.at(slice(n_held_back, n))
    if "test" not in parts:
        n_test = min(MOST_HELD_BACK, round(TEST_SHARE * n))
        parts["test"], train = train.take(n_test), train.at(slice(n_test, n))
    return [train, parts["held_back"], parts["test"]]


def _as_it_is(item: np.ndarray) -> np.ndarray:
    return item
