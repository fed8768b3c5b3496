"""Folders of real small PNG and JPEG files: classes, splits by hash, decoding, and every way to be refused."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import CenterCrop, Compose, Resize

from amc_latency.console import Console
from amc_latency.data import ImageData, load_data
from amc_latency.data.photos import _photo
from amc_latency.data.sets.folders import Photo, _by_place, _three, load_folder, load_unlabelled
from amc_latency.errors import UserError
from amc_latency.pixels import IMAGENET

QUIET = Console(quiet=True)
SIZE = (8, 8)


class Heard(Console):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    warn = say


def paint(path: Path, colour: int | tuple[int, int, int] = (200, 100, 50), size: tuple[int, int] = (12, 10)) -> None:
    """A file of one colour, whose red may serve as its number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if isinstance(colour, int) else "RGB", size, colour).save(path)


def numbered(folder: Path, n: int, first: int = 0) -> None:
    """PNG files whose red channel is their number."""
    for i in range(first, first + n):
        paint(folder / f"{i:03}.png", (i, 0, 0))


def numbers(data: ImageData) -> list[set[int]]:
    """Of the images of each split: train, held back, test."""
    return [set(split.images[:, 0, 0, 0].tolist()) for split in data.splits]


def test_classes_are_numbered_as_torchvision_does(tmp_path: Path) -> None:
    for number, name in enumerate(["pear", "Apple", "fig/inner"]):
        numbered(tmp_path / name, 20, 20 * number)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "notes.txt").write_text("not an image")
    reference = ImageFolder(str(tmp_path), allow_empty=True)
    expected = {np.asarray(image)[0, 0, 0]: label - 1 for image, label in reference}  # .hidden is its class 0
    data = load_folder(tmp_path, SIZE, QUIET)
    assert (data.classes, data.source, data.unlabelled) == (3, f"folder:{tmp_path}", False)
    found = {}
    for split in data.splits:
        assert split.images.shape[1:] == (3, *SIZE)
        assert (split.images.dtype, split.labels.dtype, split.normalisation) == (torch.uint8, torch.int64, IMAGENET)
        found |= dict(zip(split.images[:, 0, 0, 0].tolist(), split.labels.tolist(), strict=True))
    assert found == expected
    assert sum(map(len, data.splits)) == 60


def test_added_files_move_no_others(tmp_path: Path) -> None:
    numbered(tmp_path / "deep" / "er", 100)
    before = numbers(load_unlabelled(tmp_path, SIZE, QUIET))
    numbered(tmp_path, 60, first=100)
    after = numbers(load_unlabelled(tmp_path, SIZE, QUIET))
    assert all(old <= new for old, new in zip(before, after, strict=True))
    assert set().union(*after) == set(range(160))
    # 15 % of 100, within four standard errors of a binomial.
    assert all(1 <= len(split) <= 29 for split in before[1:])


@settings(max_examples=60, deadline=None)
@given(n=st.integers(20, 400), salt=st.integers(0, 10**6))
def test_every_split_has_some_images_and_train_has_half(n: int, salt: int) -> None:
    photos = [Photo(f"{salt}/{i}.jpg", i) for i in range(n)]
    splits = _three(Path(), photos)
    assert sorted(photo.label for split in splits for photo in split) == list(range(n))
    train, held_back, test = map(len, splits)
    assert train >= n / 2
    assert min(held_back, test) >= 4


def test_the_order_has_nothing_to_do_with_the_classes() -> None:
    photos = _by_place([Photo(f"{'ab'[i // 500]}/{i}.jpg", i // 500) for i in range(1000)])
    # Half of any 200 by chance, five standard errors.
    assert abs(sum(photo.label for photo in photos[:200]) - 100) < 5 * 50**0.5


def test_a_class_may_have_a_splits_name(tmp_path: Path) -> None:
    for name in ("control", "test"):
        numbered(tmp_path / name, 20)
    assert load_folder(tmp_path, SIZE, QUIET).classes == 2


def test_train_beside_val_test_or_both(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        numbered(tmp_path / "train" / name, 20, first=0 if name == "cat" else 20)
    paint(tmp_path / "val" / "dog" / "1.png", (201, 0, 0))
    paint(tmp_path / "val" / "cat" / "2.png", (202, 0, 0))
    for source in ("folder", "imagenet"):
        data = load_data(f"{source}:{tmp_path}", size=SIZE)
        train, held_back, test = numbers(data)
        assert train | held_back == set(range(40))
        assert 4 <= len(held_back) <= 10
        assert not train & held_back
        assert test == {201, 202}
        labels = dict(zip(data.test.images[:, 0, 0, 0].tolist(), data.test.labels.tolist(), strict=True))
        assert labels == {201: 1, 202: 0}
    for name in ("cat", "dog"):
        paint(tmp_path / "test" / name / "3.png", (203, 0, 0))
    assert numbers(load_folder(tmp_path, SIZE, QUIET)) == [set(range(40)), {201, 202}, {203}]
    # ImageNet's own test images have no labels.
    assert numbers(load_folder(tmp_path, SIZE, QUIET, imagenet=True))[2] == {201, 202}


def test_photos_are_cut_as_imagenets_evaluation_does(tmp_path: Path) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    usual = Compose([Resize(64), CenterCrop(56)])  # 256 to 224
    for name, shape in [("wide.png", (384, 256)), ("high.png", (256, 320))]:
        image = Image.fromarray(coarse).resize(shape, Image.Resampling.BICUBIC)
        image.save(tmp_path / name)
        ours = _photo(tmp_path / name, (56, 56))
        assert isinstance(ours, np.ndarray)
        # The same middle to a pixel's fraction: torchvision rounds where the crop begins.
        assert np.abs(ours.astype(int) - np.asarray(usual(image)).astype(int)).mean() < 1.5
        shifted = np.roll(np.asarray(usual(image)), 2, axis=1).astype(int)
        assert np.abs(ours.astype(int) - shifted).mean() > 4


def test_a_photo_for_a_network_that_is_not_square(tmp_path: Path) -> None:
    # Left third red, middle green, right third blue; 7/8 of the height is kept, and as much of the width as fits.
    pixels = np.zeros((80, 240, 3), np.uint8)
    for third in range(3):
        pixels[:, 80 * third : 80 * (third + 1), third] = 255
    Image.fromarray(pixels).save(tmp_path / "flag.png")
    found = _photo(tmp_path / "flag.png", (35, 70))
    assert isinstance(found, np.ndarray)
    assert found.shape == (35, 70, 3)
    # Of 240 columns the middle 140: 30 red, 80 green, 30 blue, at half the size.
    assert found[17].argmax(1).tolist() == [0] * 15 + [1] * 40 + [2] * 15


def test_kinds_of_pixels(tmp_path: Path) -> None:
    turned = Image.new("RGB", (40, 40), (255, 0, 0))
    turned.paste((0, 0, 255), (0, 0, 20, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown a quarter turn to the right: the left half becomes the upper one
    turned.save(tmp_path / "turned.png", exif=exif)
    found = _photo(tmp_path / "turned.png", (8, 8))
    assert isinstance(found, np.ndarray)
    assert (found[1, 4].tolist(), found[6, 4].tolist()) == ([0, 0, 255], [255, 0, 0])
    Image.fromarray(np.full((20, 20), 128 * 256, np.uint16)).save(tmp_path / "deep.png")
    Image.new("P", (20, 20)).save(tmp_path / "palette.png")
    Image.new("RGBA", (20, 20), (1, 2, 3, 0)).save(tmp_path / "clear.png")
    Image.new("L", (1, 1), 9).save(tmp_path / "dot.png")
    kinds = {name: _photo(tmp_path / f"{name}.png", (4, 4)) for name in ("deep", "palette", "clear", "dot")}
    assert {name: (photo.shape, photo.reshape(-1).tolist()[:3]) for name, photo in kinds.items()} == {
        "deep": ((4, 4), [128] * 3),
        "palette": ((4, 4, 3), [0] * 3),
        "clear": ((4, 4, 3), [1, 2, 3]),
        "dot": ((4, 4), [9] * 3),
    }


def test_grey_photos_have_one_channel_unless_one_has_colours(tmp_path: Path) -> None:
    for i in range(20):
        paint(tmp_path / f"{i}.jpg", 77)
    data = load_unlabelled(tmp_path, SIZE, QUIET)
    assert {split.images.shape[1] for split in data.splits} == {1}
    assert len(data.train.normalisation.mean) == 1
    assert abs(int(data.train.images[0, 0, 0, 0]) - 77) <= 2
    paint(tmp_path / "20.jpg")
    assert load_unlabelled(tmp_path, SIZE, QUIET).train.images.shape[1] == 3


def test_a_few_broken_files_are_named_and_left_out(tmp_path: Path) -> None:
    numbered(tmp_path, 50)
    whole = (tmp_path / "007.png").read_bytes()
    (tmp_path / "007.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "011.png").write_text("no picture")
    console = Heard()
    data = load_unlabelled(tmp_path, SIZE, console)
    assert set().union(*numbers(data)) == set(range(50)) - {7, 11}
    assert sum(map(len, data.splits)) == 48
    (line,) = console.lines
    assert all(part in line for part in ("2 of 50", "007.png", "011.png"))
    for i in range(20, 26):
        (tmp_path / f"{i:03}.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"8 of 50 images can't be read.*and 5 more; repair"):
        load_unlabelled(tmp_path, SIZE, QUIET)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=40, deadline=None)
@given(edits=st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=8)), max_size=5), length=st.integers(0, 400))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_mangled_files_are_read_or_said_to_be_broken(
    tmp_path_factory: pytest.TempPathFactory, kind: str, edits: list[tuple[int, bytes]], length: int
) -> None:
    content = io.BytesIO()
    Image.new("RGB", (9, 9), (1, 2, 3)).save(content, kind)
    mangled = bytearray(content.getvalue())
    for position, piece in edits:
        mangled[position : position + len(piece)] = piece
    path = tmp_path_factory.mktemp("mangled") / "file"
    path.write_bytes(mangled[:length])
    photo = _photo(path, SIZE)
    assert photo if isinstance(photo, str) else photo.shape[:2] == SIZE


def test_more_images_than_memory_takes(tmp_path: Path) -> None:
    numbered(tmp_path, 200)
    console = Heard()
    data = load_unlabelled(tmp_path, SIZE, console, memory_bytes=100 * 3 * 8 * 8)
    whole = numbers(load_unlabelled(tmp_path, SIZE, QUIET))
    part = numbers(data)
    assert all(some <= every for some, every in zip(part, whole, strict=True))
    assert sum(map(len, part)) == 100
    assert all(len(some) == min(25, len(every)) for some, every in zip(part[1:], whole[1:], strict=True))
    assert "200 images of 8x8" in console.lines[0]


def nothing(folder: Path) -> None:
    pass


def loose(folder: Path) -> None:
    numbered(folder, 30)


def one_class(folder: Path) -> None:
    numbered(folder / "only", 30)


def empty_class(folder: Path) -> None:
    numbered(folder / "full", 30)
    (folder / "bare").mkdir()


def too_few(folder: Path) -> None:
    numbered(folder / "a", 10)
    numbered(folder / "b", 9)


def another_class_in_val(folder: Path) -> None:
    for name in ("train/a", "train/b", "val/a", "val/c"):
        numbered(folder / name, 20)


def no_train(folder: Path) -> None:
    for name in ("val/a", "val/b", "test/a", "test/b"):
        numbered(folder / name, 20)


def other_names(folder: Path) -> None:
    for name in ("Training/a", "Training/b", "validation/a", "validation/b"):
        numbered(folder / name, 20)


def splits_without_classes(folder: Path) -> None:
    for name in ("train", "test"):
        numbered(folder / name, 20)
    (folder / "train").rename(folder / "training")


@pytest.mark.parametrize(
    ("kind", "lay", "message"),
    [
        ("folder", nothing, "0 class folders"),
        ("folder", loose, "0 class folders.*`unlabelled`"),
        ("folder", one_class, "1 class folders where at least 2"),
        ("folder", empty_class, "bare: no images"),
        ("folder", too_few, "19 images.*takes 20"),
        ("folder", no_train, "test, val would be taken for classes; lay splits as train/CLASS"),
        ("folder", other_names, "Training, validation would be taken for classes"),
        ("folder", splits_without_classes, "test, training would be taken for classes"),
        ("folder", another_class_in_val, "no class c among the train"),
        ("imagenet", one_class, "no folders train and val"),
    ],
)
def test_what_is_no_data_set_is_refused(tmp_path: Path, kind: str, lay: Callable[[Path], None], message: str) -> None:
    lay(tmp_path)
    with pytest.raises(UserError, match=message):
        load_data(f"{kind}:{tmp_path}", size=SIZE)


def test_missing_folders_are_named(tmp_path: Path) -> None:
    for load in (
        lambda: load_data(f"folder:{tmp_path / 'gone'}"),
        lambda: load_unlabelled(tmp_path / "gone", SIZE, QUIET),
    ):
        with pytest.raises(UserError, match="gone: no such folder"):
            load()
    with pytest.raises(UserError, match="`data=folder:DIR`"):
        load_data("folder:")
    with pytest.raises(UserError, match=r"0 images.*takes 20"):
        load_unlabelled(tmp_path, SIZE, QUIET)
