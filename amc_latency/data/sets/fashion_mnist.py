"""Fashion-MNIST (Xiao et al., arXiv 1708.07747): 28 x 28 grey images of clothes in 10 classes.

The last 5,000 images of the original train order are held back: nothing is ever trained on them, and every
choice (an epoch count, a policy) is made by them. The 10,000 test images are for the figure at the end.
"""

import gzip
import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from amc_latency.android_bench.safe.files import read_bytes
from amc_latency.android_bench.safe.limits import IDX_BYTES
from amc_latency.data.load import Wanted
from amc_latency.data.sets.torchvision_folder import download_with, torchvision_root
from amc_latency.data.splits import ImageData, InMemory
from amc_latency.errors import UserError
from amc_latency.pixels import NORMALISATIONS

HELD_BACK_FROM = 55_000
"""the first original train index that is held back"""
NORMALISATION = NORMALISATIONS["fashion_mnist"]
"""of the train pixels"""
DEBIAN_DIR = Path("/usr/share/datasets/fashion-mnist")
BUNDLED_DIR = Path(__file__).parents[1] / "bundled"
SOURCES = ["torchvision", "debian", "bundled"]
IDX_TYPES: dict[int, np.dtype[Any]] = {0x08: np.dtype("u1"), 0x0C: np.dtype(">i4")}


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX file (unsigned bytes or int32, 1 to 3 dimensions), plain or gzip.

    Raises UserError naming the file if it is missing, truncated, overlong or no IDX file.
    """
    try:
        data = read_bytes(path, IDX_BYTES)
        if data[:2] == b"\x1f\x8b":
            with gzip.open(io.BytesIO(data)) as packed:
                data = packed.read(IDX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: can't be read ({error}); fetch the file anew") from error
    if len(data) > IDX_BYTES:
        raise UserError(f"{path}: it unpacks to more than {IDX_BYTES / 1e6:.0f} MB; fetch the file anew")
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in IDX_TYPES or not 1 <= data[3] <= 3:
        raise UserError(f"{path}: no IDX file of bytes or int32 (it starts with {data[:4].hex()!r}); fetch it anew")
    dtype, start = IDX_TYPES[data[2]], 4 + 4 * data[3]
    if len(data) < start:
        raise UserError(f"{path}: truncated in its header; fetch the file anew")
    shape = [int(size) for size in np.frombuffer(data[4:start], ">u4")]
    values = shape[0] * (shape[1] if len(shape) > 1 else 1) * (shape[2] if len(shape) > 2 else 1)
    if values == 0 or len(data) - start != values * dtype.itemsize:
        raise UserError(
            f"{path}: its header says {'x'.join(map(str, shape))} values of {dtype.itemsize} bytes, but "
            f"{len(data) - start} bytes follow; fetch the file anew"
        )
    return np.frombuffer(data, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def _find(folder: Path, name: str) -> Path:
    """The file `name` in `folder`, plain or with .gz."""
    plain = folder / name
    return plain if plain.exists() else folder / f"{name}.gz"


def _read_split(folder: Path, prefix: str) -> InMemory:
    """Read `<prefix>-images-idx3-ubyte` and `<prefix>-labels-idx1-ubyte`; check that they belong together."""
    import torch

    images = read_idx(_find(folder, f"{prefix}-images-idx3-ubyte"))
    labels = read_idx(_find(folder, f"{prefix}-labels-idx1-ubyte"))
    if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1] or not 0 <= labels.min() <= labels.max() < 10:
        raise UserError(
            f"{folder}: {prefix} images {images.shape} and labels {labels.shape} are not Fashion-MNIST "
            "(N x 28 x 28, and N labels of 0..9); fetch the files anew"
        )
    return InMemory(torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels.astype(np.int64)), NORMALISATION)


def load(wanted: Wanted) -> ImageData:
    """As a data source. Raises what `load_fashion_mnist` raises."""
    data = load_fashion_mnist(wanted.name, wanted.data_dir, wanted.download)
    if wanted.data_dir is not None and data.source != "torchvision":
        wanted.console.warn(f"`data_dir` {wanted.data_dir} holds no Fashion-MNIST: the {data.source} images are taken")
    return data


def load_fashion_mnist(source: str, data_dir: Path | None = None, download: bool = False) -> ImageData:
    """Load it from one of `SOURCES`, or with "auto" from the first that is there.

    "torchvision" reads `<data_dir>/FashionMNIST/raw`, and with `download` fetches it first. "bundled" has
    8,000 train and 2,000 held-back images, the others 55,000 and 5,000; all have the 10,000 test images.
    Raises UserError for missing or unreadable files, JobError for a failed download.
    """
    import torch

    folders = {
        "torchvision": torchvision_root(data_dir) / "FashionMNIST" / "raw",
        "debian": DEBIAN_DIR,
        "bundled": BUNDLED_DIR,
    }
    if download and source in ("auto", "torchvision"):
        source = "torchvision"
        download_with("FashionMNIST", torchvision_root(data_dir), "use `data='bundled'`, which needs no network")
    if source == "auto":
        source = next((s for s in SOURCES if _find(folders[s], "train-images-idx3-ubyte").exists()), "bundled")
    folder = folders[source]
    if not folder.is_dir():
        hint = {
            "torchvision": "fetch it with `amc-latency train` and `download`, or pass `data='bundled'`",
            "debian": "apt install dataset-fashion-mnist",
        }
        raise UserError(f"{folder}: no such folder; {hint.get(source, 'reinstall amc-latency')}")
    prefix = "train-part" if source == "bundled" else "train"
    both = _read_split(folder, prefix)
    indices = torch.arange(len(both))
    if source == "bundled":
        indices = torch.from_numpy(read_idx(folder / "train-part-indices-idx1-int.gz"))
    elif len(both) != 60_000:
        raise UserError(f"{folder}: {len(both)} train images where Fashion-MNIST has 60000; fetch the files anew")
    trained = indices < HELD_BACK_FROM
    return ImageData(source, both.at(trained), both.at(~trained), _read_split(folder, "t10k"), classes=10)
