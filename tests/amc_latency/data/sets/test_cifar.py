"""CIFAR in its own file format, small enough to be written here; torchvision reads it."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets

from amc_latency.data import load_data
from amc_latency.errors import JobError, UserError


def write_batch(path: Path, n: int, seed: int, key: str, classes: int) -> list[str]:
    """A batch in CIFAR's format, and torchvision's entry for it: its name and MD5."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (n, 3 * 32 * 32), dtype=np.uint8)
    content = pickle.dumps({"data": pixels, key: random.integers(0, classes, n).tolist()})
    path.write_bytes(content)
    return [path.name, hashlib.md5(content).hexdigest()]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    ten, hundred = tmp_path / "cifar-10-batches-py", tmp_path / "cifar-100-python"
    batches = [write_batch(ten / f"data_batch_{i}", 20, i, "labels", 10) for i in range(1, 6)]
    monkeypatch.setattr(datasets.CIFAR10, "train_list", batches)
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [write_batch(ten / "test_batch", 30, 6, "labels", 10)])
    monkeypatch.setattr(datasets.CIFAR100, "train_list", [write_batch(hundred / "train", 50, 7, "fine_labels", 100)])
    monkeypatch.setattr(datasets.CIFAR100, "test_list", [write_batch(hundred / "test", 10, 8, "fine_labels", 100)])
    for kind, folder, key in ((datasets.CIFAR10, ten, "label_names"), (datasets.CIFAR100, hundred, "fine_label_names")):
        content = pickle.dumps({key: ["a", "b"]})
        (folder / "meta").write_bytes(content)
        meta = {"filename": "meta", "key": key, "md5": hashlib.md5(content).hexdigest()}
        monkeypatch.setattr(kind, "meta", meta)
    return tmp_path


def test_the_last_tenth_of_train_is_held_back(root: Path) -> None:
    data = load_data("cifar10", root)
    assert (data.source, data.classes) == ("cifar10", 10)
    assert [len(split) for split in data.splits] == [90, 10, 30]
    # A row of the file is 1,024 red bytes, then green, then blue, each row by row.
    for number, split, row in ((1, data.train, 3), (5, data.held_back, 19), (6, data.test, 29)):
        random = np.random.default_rng(number)
        pixels = random.integers(0, 256, (30 if number == 6 else 20, 3072), dtype=np.uint8)
        labels = random.integers(0, 10, len(pixels))
        at = {3: 3, 19: 9, 29: 29}[row]
        assert split.images[at].flatten().tolist() == pixels[row].tolist()
        assert split.labels[at] == labels[row]
    assert (data.train.images.dtype, data.train.labels.dtype) == (torch.uint8, torch.int64)
    assert len(data.train.normalisation.mean) == 3


def test_cifar100_has_its_fine_labels(root: Path) -> None:
    data = load_data("cifar100", root)
    assert ([len(split) for split in data.splits], data.classes) == ([45, 5, 10], 100)
    random = np.random.default_rng(8)
    random.integers(0, 256, (10, 3072), dtype=np.uint8)
    assert data.test.labels.tolist() == random.integers(0, 100, 10).tolist()


def test_missing_and_damaged_sets_say_how_to_fetch_them(root: Path) -> None:
    with pytest.raises(UserError, match="train`, `data='cifar100'` and `download`"):
        load_data("cifar100", root / "elsewhere")
    (root / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"torn")
    with pytest.raises(UserError, match="train`, `data='cifar10'` and `download`"):
        load_data("cifar10", root)


def test_a_failed_download_is_a_failed_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise RuntimeError("Error downloading cifar-10-python.tar.gz")

    monkeypatch.setattr("torchvision.datasets.CIFAR10", offline)
    with pytest.raises(JobError, match="CIFAR10 could not be downloaded"):
        load_data("cifar10", tmp_path, download=True)
    with pytest.raises(UserError, match="not for folder:somewhere"):
        load_data("folder:somewhere", download=True)
