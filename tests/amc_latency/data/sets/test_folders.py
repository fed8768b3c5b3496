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
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from amc_latency.data import ImageData, load_data
from amc_latency.data.photos.listing import Photo
from amc_latency.data.sets.folders import _by_place, _three, load_folder, load_unlabelled
from amc_latency.errors import UserError
from amc_latency.pixels import IMAGENET, Crop
from tests.amc_latency.data.photo_files import QUIET, Heard, looked_at, numbered, paint

SIZE = (8, 8)


def numbers(data: ImageData) -> list[set[int]]:
    """Of the images of each split: train, held back, test."""
    return [set(split.kept().images[:, 0, 0, 0].tolist()) for split in data.splits]


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
    for split in (each.kept() for each in data.splits):
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
        labels = dict(zip(data.test.kept().images[:, 0, 0, 0].tolist(), data.test.labels.tolist(), strict=True))
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
        ours = looked_at(tmp_path / name, (56, 56))
        assert isinstance(ours, np.ndarray)
        assert np.array_equal(ours, np.asarray(usual(image)))
        bicubic = Compose([Resize(60, InterpolationMode.BICUBIC), CenterCrop(56)])
        ours = looked_at(tmp_path / name, (56, 56), Crop(56 / 60, "bicubic"))
        assert np.array_equal(ours, np.asarray(bicubic(image)))


def test_a_photo_for_a_network_that_is_not_square(tmp_path: Path) -> None:
    # Left third red, middle green, right third blue; 7/8 of the height is kept, and as much of the width as fits.
    pixels = np.zeros((80, 240, 3), np.uint8)
    for third in range(3):
        pixels[:, 80 * third : 80 * (third + 1), third] = 255
    Image.fromarray(pixels).save(tmp_path / "flag.png")
    found = looked_at(tmp_path / "flag.png", (35, 70))
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
    found = looked_at(tmp_path / "turned.png", (8, 8))
    assert isinstance(found, np.ndarray)
    assert (found[1, 4].tolist(), found[6, 4].tolist()) == ([0, 0, 255], [255, 0, 0])
    Image.fromarray(np.full((20, 20), 128 * 256, np.uint16)).save(tmp_path / "deep.png")
    Image.new("P", (20, 20)).save(tmp_path / "palette.png")
    Image.new("RGBA", (20, 20), (1, 2, 3, 0)).save(tmp_path / "clear.png")
    Image.new("L", (1, 1), 9).save(tmp_path / "dot.png")
    kinds = {name: looked_at(tmp_path / f"{name}.png", (4, 4)) for name in ("deep", "palette", "clear", "dot")}
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
    assert {split.channels for split in data.splits} == {1}
    assert len(data.train.normalisation.mean) == 1
    assert abs(int(data.train.kept().images[0, 0, 0, 0]) - 77) <= 2
    paint(tmp_path / "20.jpg")
    assert load_unlabelled(tmp_path, SIZE, QUIET).train.channels == 3


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
    photo = looked_at(path, SIZE)
    assert photo if isinstance(photo, str) else photo.shape[:2] == SIZE


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


def tiny(folder: Path, strays: int = 0) -> None:
    """As Tiny ImageNet's archive lies: red is a number, and the label its tens, of 3 classes."""
    for label in range(3 + strays):
        for i in range(10):
            paint(folder / "train" / f"n0{label}" / "images" / f"n0{label}_{i}.JPEG", (10 * label + i,) * 3)
        (folder / "train" / f"n0{label}" / f"n0{label}_boxes.txt").write_text("")
    lines = []
    for i in range(6):
        paint(folder / "val" / "images" / f"val_{i}.JPEG", (100 + i,) * 3)
        lines.append(f"val_{i}.JPEG\tn0{i % 3}\t0\t32\t44\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    paint(folder / "test" / "images" / "test_0.JPEG")


@pytest.mark.parametrize("kind", ["imagenet", "folder"])
def test_tiny_imagenets_archive(tmp_path: Path, kind: str) -> None:
    tiny(tmp_path)
    data = load_data(f"{kind}:{tmp_path}", size=SIZE)
    assert data.classes == 3
    for split in (data.train, data.held_back):
        kept = split.kept()
        assert kept.labels.tolist() == (kept.images[:, 0, 4, 4].float() / 10).floor().long().tolist()
    test = data.test.kept()
    assert test.labels.tolist() == [(int(red) - 100) % 3 for red in test.images[:, 0, 4, 4]]
    assert len(test) == 6


def test_classes_that_val_has_not_are_left_out_of_imagenet(tmp_path: Path) -> None:
    tiny(tmp_path, strays=2)
    heard = Heard()
    data = load_data(f"imagenet:{tmp_path}", size=SIZE, console=heard)
    assert (data.classes, len(data.train) + len(data.held_back)) == (3, 30)
    assert heard.lines[0] == f"{tmp_path}: val has no images of 2 class folders of train: n03, n04; left out"
    with (tmp_path / "val" / "val_annotations.txt").open("a") as file:
        file.write("val_6.JPEG\tn09\n")
    with pytest.raises(UserError, match="no class n09 among the train"):
        load_data(f"imagenet:{tmp_path}", size=SIZE)
    (tmp_path / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn00\n../../etc/passwd.png\tn01\n")
    with pytest.raises(UserError, match=r"val_annotations.txt: line 2 is no file and class"):
        load_data(f"imagenet:{tmp_path}", size=SIZE)


def test_a_class_that_a_split_has_not_is_said(tmp_path: Path) -> None:
    for label, name in enumerate("abc"):
        numbered(tmp_path / "train" / name, 20, 20 * label)
    for name in "ab":
        numbered(tmp_path / "val" / name, 4)
    heard = Heard()
    data = load_data(f"folder:{tmp_path}", size=SIZE, console=heard)
    assert (data.classes, heard.lines) == (3, [f"{tmp_path}: no test image is of class c"])


def test_an_image_a_class_is_refused(tmp_path: Path) -> None:
    for i in range(30):
        paint(tmp_path / f"class{i:02}" / "only.png", (i, 0, 0))
    with pytest.raises(UserError, match="no class of the held-back images is among the train images: give more"):
        load_data(f"folder:{tmp_path}", size=SIZE)


def test_links_in_circles_end(tmp_path: Path) -> None:
    for label, name in enumerate("ab"):
        numbered(tmp_path / "set" / name, 20, 20 * label)
    (tmp_path / "set" / "a" / "up").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "round").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "above").symlink_to(tmp_path)
    (tmp_path / "set" / "b" / "self.png").symlink_to("self.png")
    heard = Heard()
    data = load_data(f"folder:{tmp_path / 'set'}", size=SIZE, console=heard)
    assert (data.classes, sum(map(len, data.splits))) == (2, 40)
    circular, inner, unread = heard.lines
    assert circular.endswith("links that lead back to it are no classes: above, round")
    assert inner.endswith("links to folders are not followed: up")
    assert "1 of 41 images can't be read: b/self.png (Too many levels of symbolic links)" in unread
    # A class may be a link to a folder elsewhere.
    numbered(tmp_path / "elsewhere", 20, 40)
    (tmp_path / "set" / "c").symlink_to(tmp_path / "elsewhere")
    assert load_data(f"folder:{tmp_path / 'set'}", size=SIZE).classes == 3


def test_odd_kinds_of_files(tmp_path: Path) -> None:
    Image.new("CMYK", (30, 20), (0, 255, 255, 0)).save(tmp_path / "ink.jpg")
    frames = [Image.new("RGB", (9, 9), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    for name in ("ink.jpg", "moving.gif"):
        found = looked_at(tmp_path / name, (4, 4))
        assert isinstance(found, np.ndarray)
        assert np.abs(found.astype(int) - (255, 0, 0)).max() <= 2
    (tmp_path / "none.jpg").write_bytes(b"")
    assert looked_at(tmp_path / "none.jpg", (4, 4)) == "an empty file"
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    noise.save(tmp_path / "half.jpg")
    content = (tmp_path / "half.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(content[: len(content) // 2])
    assert "truncated" in str(looked_at(tmp_path / "half.jpg", (4, 4)))
