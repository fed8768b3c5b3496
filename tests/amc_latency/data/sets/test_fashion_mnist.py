"""Fashion-MNIST: the reader against torchvision's own, and the split that nothing trains on."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.datasets import FashionMNIST

from amc_latency.data import load_data
from amc_latency.data.sets import fashion_mnist
from amc_latency.data.sets.fashion_mnist import BUNDLED_DIR, DEBIAN_DIR, read_idx
from amc_latency.errors import JobError, UserError

needs_debian = pytest.mark.skipif(not DEBIAN_DIR.is_dir(), reason="needs apt install dataset-fashion-mnist")


def idx(code: int, array: np.ndarray) -> bytes:
    return bytes([0, 0, code, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


@pytest.fixture
def torchvision_root(tmp_path: Path) -> Path:
    """A torchvision root with 60,000 x 28 x 28 train images of zeros, and the real test images, unpacked."""
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_bytes(idx(8, np.zeros((60_000, 28, 28), "u1")))
    (raw / "train-labels-idx1-ubyte").write_bytes(idx(8, (np.arange(60_000) >= 55_000).astype("u1")))
    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        (raw / name).write_bytes(gzip.decompress((BUNDLED_DIR / f"{name}.gz").read_bytes()))
    return tmp_path


def test_bundled_test_images_are_those_torchvision_reads(torchvision_root: Path) -> None:
    reference = FashionMNIST(str(torchvision_root), train=False)
    test = load_data("bundled").test
    assert torch.equal(test.images, reference.data.unsqueeze(1))
    assert torch.equal(test.labels, reference.targets)
    assert test.labels.bincount().tolist() == [1000] * 10
    assert (test.images.dtype, test.labels.dtype) == (torch.uint8, torch.int64)


@needs_debian
def test_debian_and_bundled_hold_the_same_images() -> None:
    full, part = load_data("debian"), load_data("bundled")
    assert (len(full.train), len(full.held_back), len(full.test)) == (55_000, 5_000, 10_000)
    assert (len(part.train), len(part.held_back), len(part.test)) == (8_000, 2_000, 10_000)
    for theirs, ours in [(full.train, part.train), (full.held_back, part.held_back), (full.test, part.test)]:
        assert torch.equal(theirs.take(len(ours)).images, ours.images)
        assert torch.equal(theirs.take(len(ours)).labels, ours.labels)
    every = torch.cat([full.train.labels, full.held_back.labels])
    assert every.bincount().tolist() == [6000] * 10


def test_bundled_indices_keep_the_held_back_apart() -> None:
    indices = read_idx(BUNDLED_DIR / "train-part-indices-idx1-int.gz")
    assert indices.tolist() == [*range(8_000), *range(55_000, 57_000)]


def test_held_back_are_the_last_5000_and_auto_prefers_torchvision(torchvision_root: Path) -> None:
    loaded = load_data("auto", torchvision_root)
    assert loaded.source == "torchvision"
    assert loaded.train.labels.tolist() == [0] * 55_000
    assert loaded.held_back.labels.tolist() == [1] * 5_000


def test_auto_falls_back_to_bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion_mnist, "DEBIAN_DIR", tmp_path / "none")
    assert load_data("auto", tmp_path).source == "bundled"


def test_missing_and_unknown_sources_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="train` and `download`"):
        load_data("torchvision", tmp_path)
    with pytest.raises(UserError, match=r'did you mean "bundled".*Known: auto, torchvision, debian, bundled'):
        load_data("bundle")


def test_files_that_do_not_belong_together_are_refused(torchvision_root: Path) -> None:
    raw = torchvision_root / "FashionMNIST" / "raw"
    shutil.copy(raw / "t10k-labels-idx1-ubyte", raw / "train-labels-idx1-ubyte")
    with pytest.raises(UserError, match="train images"):
        load_data("torchvision", torchvision_root)


def test_a_failed_download_is_a_failed_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz")

    monkeypatch.setattr("torchvision.datasets.FashionMNIST", offline)
    with pytest.raises(JobError, match="bundled"):
        load_data("torchvision", tmp_path, download=True)


@pytest.mark.parametrize("pack", [gzip.compress, bytes], ids=["gzip", "plain"])
@pytest.mark.parametrize(("code", "dtype"), [(8, "u1"), (12, ">i4")])
def test_read_idx(tmp_path: Path, code: int, dtype: str, pack: type[bytes]) -> None:
    array = np.array([[1, 2, 3], [4, 5, 200]], dtype)
    path = tmp_path / "file"
    path.write_bytes(pack(idx(code, array)))
    assert read_idx(path).tolist() == [[1, 2, 3], [4, 5, 200]]


@pytest.mark.parametrize("length", [0, 1, 3, 9, 4 + 2 * 4, 4 + 2 * 4 + 5])
def test_truncated_files_are_named(tmp_path: Path, length: int) -> None:
    whole = idx(8, np.ones((2, 3), "u1"))
    assert length < len(whole) == 4 + 2 * 4 + 2 * 3
    for name, content in [("plain", whole[:length]), ("packed", gzip.compress(whole)[:-8])]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            read_idx(tmp_path / name)


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(UserError, match=path.name):
            read_idx(path)


WHOLE = [idx(8, np.arange(24, dtype="u1").reshape(2, 3, 4)), idx(12, np.arange(6, dtype=">i4"))]
WHOLE += [gzip.compress(whole, mtime=0) for whole in WHOLE]


@settings(max_examples=300, deadline=None)
@given(
    whole=st.sampled_from(WHOLE),
    edits=st.lists(st.tuples(st.integers(0, 60), st.binary(max_size=6)), min_size=1, max_size=4),
    length=st.integers(0, 80),
)
def test_mangled_files_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, whole: bytes, edits: list[tuple[int, bytes]], length: int
) -> None:
    mangled = bytearray(whole)
    for position, content in edits:
        mangled[position : position + len(content)] = content
    path = tmp_path_factory.mktemp("mangled") / "file"
    path.write_bytes(mangled[:length])
    try:
        array, message = read_idx(path), ""
    except UserError as error:
        array, message = None, str(error)
    # Read, or refused by name; any other exception fails the test.
    assert str(path) in message if array is None else array.size > 0


def test_mean_and_std_are_those_of_the_images() -> None:
    x = load_data("bundled").train.inputs((28, 28))
    assert x.mean().item() == pytest.approx(0, abs=0.01)
    assert x.std().item() == pytest.approx(1, abs=0.01)


def test_a_file_that_unpacks_to_more_than_any_data_set_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(b"\0" * 101_000_000, 1))
    with pytest.raises(UserError, match="unpacks to more than 100 MB"):
        read_idx(path)
