"""Data sets and loaders of a program's own, and torchvision's by name: what is taken, and what is refused in words."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from amc_latency.console import Console
from amc_latency.data import ImageData, InMemory, Streaming, load_data
from amc_latency.data.augmentation import Augmentation
from amc_latency.data.sets.datasets import load_datasets
from amc_latency.errors import UserError
from amc_latency.pixels import IMAGENET
from tests.amc_latency.data.photo_files import QUIET, Heard

SIZE = (8, 8)


class Numbered(Dataset):
    """Images whose red is their number, of classes 0, 1, 2, 0, ..."""

    def __init__(self, n: int = 60, size: int = 80, make: Callable[[Image.Image], Any] = lambda image: image) -> None:
        self.n, self.size, self.make = n, size, make

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Any:
        return self.make(Image.new("RGB", (self.size, self.size), (index, 0, 0))), index % 3


def loaded(train: Any, held_back: Any = None, test: Any = None, console: Console = QUIET, **how: Any) -> ImageData:
    return load_datasets(train, held_back, test, SIZE, console, **how)


def numbers(data: ImageData) -> list[list[int]]:
    """By red, checked against the labels."""
    found = []
    for split in (each.kept() for each in data.splits):
        found.append(split.images[:, 0, 0, 0].tolist())
        assert split.labels.tolist() == [number % 3 for number in found[-1]]
    return found


def every(data: ImageData) -> list[int]:
    """The numbers of all splits, sorted."""
    return sorted(number for split in numbers(data) for number in split)


def to_bytes(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def to_floats(image: Image.Image) -> torch.Tensor:
    return to_bytes(image.resize(SIZE)).float() / 255 - 0.5


@pytest.mark.parametrize("make", [lambda image: image, np.asarray, to_bytes])
def test_a_part_is_held_back_and_tested_by(make: Callable[[Image.Image], Any]) -> None:
    data = loaded(Numbered(make=make))
    assert [len(split) for split in data.splits] == [45, 6, 9]
    assert every(data) == list(range(60))
    assert numbers(data) == numbers(loaded(Numbered(make=make)))
    assert (data.classes, data.source, data.normalisation) == (3, "`train` (Numbered)", IMAGENET)
    assert data.digest() == loaded(Numbered(make=make)).digest() != loaded(Numbered(61, make=make)).digest()


def test_sets_of_their_own_for_each_split() -> None:
    data = loaded(DataLoader(Numbered(40), batch_size=7, shuffle=True), Numbered(21), Numbered(24))
    assert [sorted(split) for split in numbers(data)] == [list(range(n)) for n in (40, 21, 24)]
    whole = ConcatDataset([Numbered(30), Numbered(30)])
    part = Subset(whole, [index for index in range(60) if index % 2])
    assert sorted(numbers(loaded(part, Numbered(6), Numbered(6)))[0]) == sorted(list(range(1, 30, 2)) * 2)


def test_small_images_are_kept_as_they_are() -> None:
    data = loaded(Numbered(size=5))
    assert isinstance(data.train, InMemory)
    assert data.train.images.shape == (45, 3, 5, 5)
    streamed = loaded(Numbered(size=5), streaming=Streaming(0.0)).train
    assert torch.equal(streamed.kept().images, data.train.images)
    dealt, size = [torch.arange(45)], (9, 9)
    for text in ("none", "auto", "crop"):
        one, other = (
            list(split.batches(dealt, size, Augmentation.of(text), torch.Generator().manual_seed(0)))
            for split in (data.train, streamed)
        )
        assert one[0][0].shape == other[0][0].shape == (45, 3, *size)
        if text == "none":
            assert torch.equal(one[0][0], other[0][0])


def test_floats_are_a_networks_input_already() -> None:
    data = loaded(Numbered(make=to_floats))
    assert data.takes_as_given
    inputs, labels = next(data.train.parts(SIZE))
    first = int(labels[0])
    expected = torch.cat([to_floats(Image.new("RGB", (80, 80), (n, 0, 0)))[None] for n in range(first, 60, 3)])
    assert (torch.isclose(inputs[0, 0, 0, 0], expected[:, 0, 0, 0], atol=1e-6)).sum() == 1
    # The set's own transforms say what chance does: nothing is mirrored.
    wide = TensorDataset(torch.arange(8.0).expand(30, 3, 8, 8), torch.arange(30) % 3)
    for batch, _ in loaded(wide).train.batches([torch.arange(20)], SIZE, Augmentation(), torch.Generator()):
        torch.testing.assert_close(batch, torch.arange(8.0).expand(20, 3, 8, 8))
    # As a Fashion-MNIST of one's own would be: another number of channels is the network's affair.
    assert loaded(TensorDataset(torch.rand(30, 5, 8, 8), torch.arange(30) % 3)).train.channels == 5


def test_labels_are_the_sets_own_list_or_read() -> None:
    class Listed(Numbered):
        reads = 0

        def __init__(self, targets: list[int]) -> None:
            super().__init__()
            self.targets = targets

        def __getitem__(self, index: int) -> Any:
            Listed.reads += 1
            return super().__getitem__(index)

    loaded(Listed([index % 3 for index in range(60)]), streaming=Streaming(0.0))
    assert Listed.reads < 10 * 32
    # What a target_transform has made of it counts, and not the list.
    assert loaded(Listed([0] * 60), streaming=Streaming(0.0)).train.labels.unique().tolist() == [0, 1, 2]


def test_a_loaders_own_collate_is_asked() -> None:
    def collate(items: list[Any]) -> Any:
        images, labels = zip(*items, strict=True)
        return torch.stack([to_bytes(image) for image in images]), torch.tensor(labels)

    assert every(loaded(DataLoader(Numbered(), collate_fn=collate))) == list(range(60))


class Shuffled(Numbered):
    """In another order at every call."""

    def __getitem__(self, index: int) -> Any:
        return super().__getitem__(random.randrange(self.n))


class Dicts(Numbered):
    def __getitem__(self, index: int) -> Any:
        return {"image": super().__getitem__(index)[0], "target": 0}


class Labelled(Numbered):
    def __init__(self, label: Any) -> None:
        super().__init__()
        self.label = label

    def __getitem__(self, index: int) -> Any:
        return super().__getitem__(index)[0], self.label


class Stream(IterableDataset):
    def __iter__(self) -> Any:
        return iter([])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Dicts(), r"`train` \(Dicts\): item 0 is a dict of image, target: give \(image, label\)"),
        (DataLoader(Dicts()), r"item 0 is a dict of image, target"),
        (Numbered(0), r"`train` \(Numbered\) gives nothing"),
        (DataLoader(Numbered(0)), "gives nothing"),
        (DataLoader(Stream()), "`train` is Stream: give a data set with __getitem__ and __len__"),
        (iter([1]), "`train` is list_iterator"),
        (Shuffled(), r"item \d+ has another label each time it is read \(\d, \d\)"),
        (Labelled(-1), "item 0 has the label -1: give a class, counted from 0"),
        (Labelled(0.5), "item 0 has the label 0.5"),
        (Labelled([0, 1]), r"item 0 has the label \[0, 1\]"),
        (Numbered(make=lambda image: 3), "item 0 has a int for an image: give one of Pillow"),
        (Numbered(make=lambda image: np.zeros((4, 4, 2), np.uint8)), r"ndarray of uint8 \[4, 4, 2\] for an image"),
        (Numbered(make=lambda image: torch.zeros(3, 9, 9)), r"items are floats \[3, 9, 9\].*takes 8x8"),
        (Numbered(12), "12 items.*takes 20"),
        (Numbered(make=lambda image: 1 / 0), "none of 32 items can be read"),
    ],
)
def test_what_is_no_data_set_is_refused(given: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        loaded(given)


def test_images_and_floats_do_not_mix() -> None:
    with pytest.raises(UserError, match="images in part and floats in part"):
        loaded(Numbered(), Numbered(), Numbered(make=to_floats))


def test_items_that_raise_are_left_out_and_named() -> None:
    class Damaged(Numbered):
        def __getitem__(self, index: int) -> Any:
            if index in (5, 9):
                raise ValueError(f"page {index} is torn")
            return super().__getitem__(index)

    heard = Heard()
    data = loaded(Damaged(), console=heard, streaming=Streaming(0.0))
    assert every(data) == [index for index in range(60) if index not in (5, 9)]
    assert "2 of 60 images can't be read: item 5 (page 5 is torn), item 9" in heard.lines[0]


def test_augmentation_within_a_set_is_no_other_set() -> None:
    def noisy(image: Image.Image) -> torch.Tensor:
        return to_floats(image) + torch.rand(3, 1, 1)

    one, other = loaded(Numbered(make=noisy)), loaded(Numbered(make=noisy))
    assert one.digest() == other.digest()
    dealt = [torch.arange(45)]
    first, again, next_epoch = (
        next(one.train.batches(dealt, SIZE, None, torch.Generator().manual_seed(seed)))[0] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, next_epoch)
    # With chance of its own nothing can be told but that.
    own = np.random.default_rng()
    heard = Heard()
    loaded(Numbered(make=lambda image: to_floats(image) + float(own.random())), console=heard)
    assert "images are others each time they are read" in heard.lines[0]


def test_a_set_that_was_shuffled_anew_is_another() -> None:
    class Once(Numbered):
        def __init__(self, seed: int) -> None:
            super().__init__()
            self.order = random.Random(seed).sample(range(60), 60)

        def __getitem__(self, index: int) -> Any:
            return super().__getitem__(self.order[index])

    assert loaded(Once(0)).digest() == loaded(Once(0)).digest() != loaded(Once(1)).digest()


def test_torchvisions_sets_by_name(tmp_path: Path) -> None:
    for label in range(3):
        folder = tmp_path / "eurosat" / "2750" / f"kind{label}"
        folder.mkdir(parents=True)
        for i in range(20):
            Image.new("RGB", (64, 64), (3 * i + label, 0, 0)).save(folder / f"{i:02}.png")
    data = load_data("torchvision:EuroSAT", data_dir=tmp_path, size=SIZE)
    assert (data.source, data.classes) == ("torchvision:EuroSAT", 3)
    assert every(data) == list(range(60))
    with pytest.raises(UserError, match=r"torchvision's SVHN is not in .*`data_dir`"):
        load_data("torchvision:SVHN", data_dir=tmp_path)
    with pytest.raises(UserError, match=r"no data set of torchvision is called 'EuroSat'.*Did you mean 'EuroSAT'"):
        load_data("torchvision:EuroSat")
