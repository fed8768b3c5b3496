"""Images from the user's own function: what is taken, and what is refused in words."""

from pathlib import Path

import numpy as np
import pytest
import torch

from amc_latency.data import load_data
from amc_latency.errors import UserError

HEAD = """
from dataclasses import dataclass
import numpy as np, torch

def arrays(shape, n, labels=None):
    images = (np.arange(n * int(np.prod(shape))) % 251).astype(np.uint8).reshape(n, *shape)
    return images, (np.arange(n) % 4 if labels is None else labels)

def data(shape=(3, 6, 5), n=40, m=10, **changed):
    a, b = arrays(shape, n)
    c, d = arrays(shape, m)
    return {"train_images": a, "train_labels": b, "test_images": c, "test_labels": d} | changed
"""


def own(tmp_path: Path, body: str) -> str:
    path = tmp_path / str(len(list(tmp_path.iterdir()))) / "mine.py"
    path.parent.mkdir()
    path.write_text(f"{HEAD}\n{body}\n")
    return f"{path}:make"


def test_a_tenth_is_held_back_and_images_keep_their_labels(tmp_path: Path) -> None:
    text = own(tmp_path, "def make():\n    return data(n=100)")
    data = load_data(text)
    assert (data.source, data.classes, data.unlabelled) == (text, 4, False)
    assert [len(split) for split in data.splits] == [90, 10, 10]
    pixels = (np.arange(100 * 90) % 251).astype(np.uint8).reshape(100, 90)
    numbers = {tuple(row): i for i, row in enumerate(pixels.tolist())}
    found = []
    for split in (data.train, data.held_back):
        for image, label in zip(split.images.flatten(1).tolist(), split.labels.tolist(), strict=True):
            found.append(numbers[tuple(image)])
            assert label == found[-1] % 4
    assert sorted(found) == list(range(100))
    assert found != sorted(found)
    assert torch.equal(load_data(text).train.images, data.train.images)


def test_mean_and_std_are_those_of_the_images(tmp_path: Path) -> None:
    data = load_data(own(tmp_path, "def make():\n    return data()"))
    every = torch.cat([data.train.images, data.held_back.images]).double() / 255
    assert data.test.normalisation.mean == pytest.approx(every.mean((0, 2, 3)).tolist())
    assert data.test.normalisation.std == pytest.approx(every.std((0, 2, 3), correction=0).tolist())
    black = load_data(own(tmp_path, "def make():\n    return data(train_images=np.zeros((40, 3, 6, 5), np.uint8))"))
    assert black.train.normalisation.std == (1, 1, 1)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [("(3, 6, 5)", (3, 6, 5)), ("(1, 6, 5)", (1, 6, 5)), ("(6, 5, 3)", (3, 6, 5)), ("(6, 5)", (1, 6, 5))],
)
def test_layouts_and_kinds_of_containers(tmp_path: Path, shape: str, expected: tuple[int, int, int]) -> None:
    dictionary = load_data(own(tmp_path, f"def make():\n    return data({shape})"))
    assert dictionary.train.images.shape[1:] == expected
    images = (np.arange(10 * 6 * 5 * expected[0]) % 251).astype(np.uint8)
    plain = images.reshape(10, 6, 5, 3).transpose(0, 3, 1, 2) if shape == "(6, 5, 3)" else images.reshape(10, *expected)
    assert np.array_equal(dictionary.test.images.numpy(), plain)
    body = f"""
@dataclass
class Mine:
    train_images: object
    train_labels: object
    test_images: object
    test_labels: object

def make():
    return Mine(**{{name: torch.from_numpy(value) for name, value in data({shape}).items()}})
"""
    as_dataclass = load_data(own(tmp_path, body))
    assert as_dataclass.digest() == dictionary.digest()


def test_larger_images_are_shrunk_to_what_the_network_takes(tmp_path: Path) -> None:
    # Stripes of one pixel: without antialiasing they would stay stripes.
    body = "def make():\n    x = np.zeros((40, 1, 64, 64), np.uint8)\n    x[..., ::2] = 200\n"
    text = own(tmp_path, body + "    return data(train_images=x, test_images=x[:10])")
    assert load_data(text, size=(64, 64)).train.images.shape[1:] == (1, 64, 64)
    small = load_data(text, size=(8, 8)).train.images
    assert small.shape[1:] == (1, 8, 8)
    assert (small.int() - 100).abs().max() < 15


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 3", "int without train_images, train_labels, test_images, test_labels"),
        ("return data(test_labels=None)", "without test_labels"),
        ("return data(train_images=np.zeros((40, 3, 6, 5)))", "train_images is float64: give uint8"),
        ("return data(test_images=np.zeros((10, 4, 6, 5), np.uint8))", "test_images is 10x4x6x5: give"),
        ("return data(train_images=[1])", "train_images is list: give a NumPy array"),
        ("return data(train_labels=np.zeros(39, int))", "train_labels is int64 39: give 40 integers"),
        ("return data(train_labels=np.zeros(40))", "train_labels is float64 40"),
        ("return data(train_labels=np.arange(40) - 1)", "there is a -1"),
        ("return data(test_images=np.zeros((10, 3, 7, 5), np.uint8))", "train images are 3x6x5 and test images 3x7x5"),
        ("return data(n=19)", "19 train images.*takes 20"),
        ("return data(m=0)", "not empty"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(UserError, match=f"mine.py:make.*{message}"):
        load_data(own(tmp_path, f"def make():\n    {body}"))


def test_a_missing_function_and_one_that_raises(tmp_path: Path) -> None:
    text = own(tmp_path, "def make():\n    raise RuntimeError('my disk is gone')")
    with pytest.raises(UserError, match="make"):
        load_data(text)
    with pytest.raises(UserError, match="other"):
        load_data(text.replace(":make", ":other"))
    with pytest.raises(UserError, match=r"gone\.py"):
        load_data(str(tmp_path / "gone.py") + ":make")
    with pytest.raises(UserError, match="FUNCTION"):
        load_data(str(tmp_path / "mine.py"))
