"""Images that are decoded when they are wanted: the same ones as if they were kept, in the same order, and bounded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from amc_latency.data import InMemory, Streaming
from amc_latency.data.augmentation import Augmentation
from amc_latency.data.items import Kept
from amc_latency.data.sets.folders import load_folder
from amc_latency.data.streamed import Streamed, streamed
from amc_latency.data.workers import read_batches
from amc_latency.errors import JobError, UserError
from amc_latency.pixels import Normalisation
from tests.amc_latency.data.photo_files import QUIET, Heard, numbered, paint

SIZE = (8, 8)
NOTHING = Streaming(memory_gib=0.0)
PIXELS = Normalisation((0.25,) * 3, (0.5,) * 3)


def photos(folder: Path, classes: int = 2, each: int = 20) -> Path:
    """Noise, some of it too large for `SIZE`, of all shapes."""
    random = np.random.default_rng(0)
    for label in range(classes):
        place = folder / f"class{label}"
        place.mkdir(parents=True)
        for i in range(each):
            shape = (int(random.integers(6, 30)), int(random.integers(6, 30)), 3)
            Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(place / f"{i:02}.png")
    return folder


def batches(split: Streamed | InMemory, text: str, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    dealt = torch.randperm(len(split), generator=generator).split(5)
    return list(split.batches(dealt, SIZE, Augmentation.of(text), generator))


def test_what_is_streamed_is_what_is_kept(tmp_path: Path) -> None:
    photos(tmp_path)
    kept, read = load_folder(tmp_path, SIZE, QUIET), load_folder(tmp_path, SIZE, QUIET, streaming=NOTHING)
    for one, other in zip(kept.splits, read.splits, strict=True):
        assert isinstance(one, Streamed)
        assert isinstance(other, Streamed)
        assert (isinstance(one.items, Kept), isinstance(other.items, Kept)) == (True, False)
        assert torch.equal(one.kept().images, other.kept().images)
        assert torch.equal(one.labels, other.labels)
        for few, many in zip(one.parts(SIZE, 3), one.parts(SIZE, 3), strict=True):
            assert torch.equal(few[0], many[0])
        whole = torch.cat([inputs for inputs, _ in other.parts((6, 4), 3)])
        assert torch.equal(whole, one.kept().inputs((6, 4)))
    assert kept.digest() == read.digest()
    for text in ("none", "flip", "crop,flip,erasing", "shift,mixup"):
        for (one, labels), (other, others) in zip(batches(kept.train, text), batches(read.train, text), strict=True):
            assert torch.equal(one, other)
            assert torch.equal(labels, others)


def test_all_is_kept_or_nothing(tmp_path: Path) -> None:
    # Of 14x16 pixels the middle is cut out of 9x10: 40 times 270 bytes.
    for i in range(40):
        paint(tmp_path / "ab"[i % 2] / f"{i}.png", size=(16, 14))
    heard = Heard()
    for n_bytes, is_kept in ((40 * 270, True), (40 * 270 - 1, False)):
        data = load_folder(tmp_path, SIZE, heard, streaming=Streaming(n_bytes / 2**30))
        assert [isinstance(split.items, Kept) for split in data.splits] == [is_kept] * 3  # type: ignore[attr-defined]
    (line,) = heard.lines
    assert line.startswith("40 images are 1.01e-05 GiB decoded, and up to")
    assert line.endswith("are kept: they are decoded whenever they are used")


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
def test_workers_read_what_one_process_does(tmp_path: Path) -> None:
    split = load_folder(photos(tmp_path), SIZE, QUIET, streaming=NOTHING).train
    assert isinstance(split, Streamed)
    changes = Augmentation.of("crop,trivial,erasing")
    change = changes.for_images(SIZE, 2, split.view.middle, (0.0, 0.0, 0.0))

    def changed(pixels: np.ndarray) -> np.ndarray:
        return change(Image.fromarray(pixels)).numpy()

    dealt = list(split.indices.split(5))
    torch.manual_seed(3)
    one, three = (list(read_batches(split.items, dealt, changed, 7, workers)) for workers in (0, 3))
    for mine, theirs in zip(one, three, strict=True):
        assert np.array_equal(mine.images, theirs.images)
    # The network's own chance is left alone.
    assert torch.initial_seed() == 3
    again = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(again, torch.rand(3))


def test_the_seed_and_the_epoch_decide(tmp_path: Path) -> None:
    split = load_folder(photos(tmp_path), SIZE, QUIET).train
    first, same, other = (batches(split, "crop,flip", seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(first, same, strict=True))
    assert not all(torch.equal(a, b) for (a, _), (b, _) in zip(first, other, strict=True))


def test_a_process_that_dies_is_named() -> None:
    class Dies:
        def read(self, index: int) -> np.ndarray:
            import os

            os._exit(9)

    with pytest.raises(JobError, match=r"ended from outside.*memory"):
        list(read_batches(Dies(), [torch.arange(3)], lambda item: item, workers=1))  # type: ignore[arg-type]


def broken(folder: Path) -> None:
    """A tenth of the files, cut off in the middle."""
    for i in (3, 17):
        path = folder / "class0" / f"{i:02}.png"
        path.write_bytes(path.read_bytes()[:60])


def test_what_cannot_be_read_is_left_out_and_named_once(tmp_path: Path) -> None:
    broken(photos(tmp_path))
    heard = Heard()
    data = load_folder(tmp_path, SIZE, heard, streaming=NOTHING)
    heard.lines.clear()
    for _ in range(2):
        seen = [sum(len(labels) for _, labels in split.parts(SIZE)) for split in data.splits]
    assert sum(seen) == 38
    assert [len(split) for split in data.splits] != seen
    named = " ".join(heard.lines)
    assert (named.count("class0/03.png"), named.count("class0/17.png")) == (1, 1)
    assert "2 of 40 images can't be read" in named
    # A batch to train on keeps its size: another of it comes twice.
    assert sum(len(labels) for _, labels in batches(data.train, "flip")) == len(data.train)
    assert len(data.train.kept()) == seen[0]
    for name in ("05", "06", "07"):
        (tmp_path / "class1" / f"{name}.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"5 of 40 images can't be read.*repair or remove them"):
        [*map(list, (split.parts(SIZE) for split in data.splits))]


def test_labels_stay_with_their_images_where_some_cannot_be_read(tmp_path: Path) -> None:
    for label in range(2):
        numbered(tmp_path / f"class{label}", 40, first=100 * label)
    for name in ("class0/007.png", "class1/111.png", "class1/112.png"):
        (tmp_path / name).write_bytes(b"")
    data = load_folder(tmp_path, SIZE, QUIET, streaming=NOTHING)
    found = 0
    for split in data.splits:
        raw = split.fitted(3, Normalisation((0.0,) * 3, (1 / 255,) * 3))
        for inputs, labels in [*raw.parts(SIZE, 7), *batches(raw, "flip")]:
            assert torch.equal(labels, (inputs[:, 0, 0, 0].round() >= 100).long())
            found += len(labels)
    assert found == 77 + 80


def test_grey_images_are_repeated_over_three_channels(tmp_path: Path) -> None:
    for label in range(2):
        for i in range(20):
            (tmp_path / str(label)).mkdir(exist_ok=True)
            Image.new("L", (9, 9), 10 * i).save(tmp_path / str(label) / f"{i}.png")
    train = load_folder(tmp_path, SIZE, QUIET).train
    assert (train.channels, train.normalisation.mean) == (1, (pytest.approx(0.449),))
    wide = train.fitted(3, PIXELS)
    for inputs, _ in batches(wide, "crop,flip"):
        assert inputs.shape[1:] == (3, *SIZE)
        assert torch.equal(inputs[:, 0], inputs[:, 2])
    assert wide.inputs(SIZE).shape == (len(train), 3, *SIZE)


def test_images_in_memory_are_changed_one_by_one_too() -> None:
    images = torch.randint(0, 256, (12, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split = InMemory(images, torch.arange(12) % 3, PIXELS)
    assert torch.equal(streamed(split).kept().images, images)
    crops = torch.cat([inputs for inputs, _ in batches(split, "crop")])
    assert crops.shape == (12, 3, 8, 8)
    # Resized parts of images hold no colour that is brighter or darker.
    whole = split.inputs(SIZE)
    assert whole.min() <= crops.min() <= crops.max() <= whole.max()


def test_a_digest_sees_names_sizes_labels_and_some_bytes_but_decodes_nothing(tmp_path: Path) -> None:
    photos(tmp_path)
    data = load_folder(tmp_path, SIZE, QUIET, streaming=NOTHING)

    def digests() -> set[str]:
        return {load_folder(tmp_path, SIZE, QUIET).digest(), data.digest()}

    (first,) = digests()
    path = tmp_path / "class0" / "03.png"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"\0")
    assert data.digest() != first
    path.write_bytes(content)
    assert digests() == {first}
    assert load_folder(tmp_path, (9, 8), QUIET).digest() != first
    assert replace(data, test=data.test.labelled(1 - data.test.labels)).digest() != first
