"""What `data` means."""

from __future__ import annotations

from pathlib import Path

from amc_latency.console import Console
from amc_latency.data.splits import ImageData
from amc_latency.errors import OptionError, UserError

FASHION_MNIST = ("auto", "torchvision", "debian", "bundled")
CIFAR = ("cifar10", "cifar100")
WITH_PLACE = ("folder:DIR", "imagenet:DIR", "FILE.py:FUNCTION")


def check_source(source: str) -> None:
    """Raise UserError for a `source` that names nothing, or a folder or file that is not there; nothing is loaded."""
    from amc_latency.models.spec import names_own_file
    from amc_latency.names import nearest

    kind, _, place = source.partition(":")
    if source in (*FASHION_MNIST, *CIFAR) or names_own_file(source):
        return
    if kind not in ("folder", "imagenet"):
        if Path(source).is_dir():
            raise OptionError("data", f"{source} is a folder: say `data=folder:{source}` or `data=imagenet:{source}`")
        if Path(source).exists():
            raise OptionError(
                "data", f"{source} is a file: images come from a folder, `data=folder:DIR`, or FILE.py:FUNCTION"
            )
        names = [*FASHION_MNIST, *CIFAR, *WITH_PLACE]
        raise UserError(
            f'no data source is called "{source}"; did you mean "{nearest(source, names)}"? Known: {", ".join(names)}'
        )
    if not place:
        raise OptionError("data", f"{kind} needs a folder: `data={kind}:DIR`")
    if not Path(place).is_dir():
        raise UserError(f"{place}: no such folder")


def load_data(
    source: str = "auto",
    data_dir: Path | None = None,
    download: bool = False,
    size: tuple[int, int] = (224, 224),
    console: Console | None = None,
) -> ImageData:
    """Load what `source` names: a set by name, or with its place as in "folder:DIR" and "FILE.py:FUNCTION".

    `data_dir` is where torchvision keeps its sets, `download` has it fetch one first. Photos of a folder are decoded
    for a network that takes `size` (h, w); all other sets keep their own.
    Raises UserError for an unknown source and for what is missing or wrong there, JobError for a failed download.
    """
    console = console or Console(quiet=True)
    kind, _, place = source.partition(":")
    if download and source not in ("auto", "torchvision", *CIFAR):
        raise OptionError(
            "download", f"is for torchvision's sets, {', '.join(CIFAR)} and Fashion-MNIST: not for {source}"
        )
    if data_dir is not None and source not in ("auto", "torchvision", *CIFAR):
        raise OptionError("data_dir", f"is where torchvision keeps its sets: not for {source}")
    check_source(source)
    if source in FASHION_MNIST:
        from amc_latency.data.sets.fashion_mnist import load_fashion_mnist

        data = load_fashion_mnist(source, data_dir, download)
        if data_dir is not None and data.source != "torchvision":
            console.warn(f"`data_dir` {data_dir} holds no Fashion-MNIST: the {data.source} images are taken")
        return data
    if source in CIFAR:
        from amc_latency.data.sets.cifar import load_cifar

        return load_cifar(source, data_dir, download)
    if kind in ("folder", "imagenet"):
        from amc_latency.data.sets.folders import load_folder

        return load_folder(Path(place), size, console, imagenet=kind == "imagenet")
    from amc_latency.data.sets.own import load_own

    return load_own(source, size)
