"""The tasks by name: which images, which networks, how long each is trained, and what the tables take."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from amc_latency.arguments.names import find
from amc_latency.arguments.settings import setting
from amc_latency.errors import UserError
from benchmarks.common import ROOT


@dataclass(frozen=True)
class Sizes:
    """What a run takes; each is an option of the same name."""

    networks: tuple[str, ...] = setting((), "by the task's names")
    rivals: tuple[str, ...] = setting((), "in this order; all whose packages are installed unless set")
    shares: tuple[float, ...] = setting((), "of the uncut network's measured milliseconds")
    image_size: int = setting(64, "height and width")
    classes: int = setting(0, "the first so many by name, 0 for all; tiny_imagenet alone")
    train_epochs: int = setting(0, "of the uncut network")
    epochs: int = setting(3, "of fine-tuning a cut one")
    train_images: int = setting(0, "that fine-tuning sees, 0 for all")
    judge_images: int = setting(500, "held-back images that judge a policy in a search")
    recalibration_images: int = setting(256, "for the batch norms of each policy's network")
    evaluations: int = setting(100, "policies that each search may try")
    seeds: int = setting(3, "of searches and of fine-tuning")
    rates: tuple[float, ...] = setting(
        (0.005, 0.02, 0.05),
        "learning rates of fine-tuning for batches of 128, less for smaller ones: the first seed takes all, "
        "others the one that did best on held-back images",
    )
    goal: str = setting("2%", "mean error of layers that the latency table is built to")


@dataclass(frozen=True)
class Task:
    """Where images and networks come from."""

    source: Callable[[Path | None, Path, Sizes], str]
    """of the folder of the data, the output folder and the sizes: a data source"""
    train: Callable[[str, str, Path, Sizes], None]
    """of a network's name, the data source, the checkpoint to write and the sizes"""
    networks: Mapping[str, tuple[str, ...]]
    """by name: how `amc-latency train` names them"""
    full: Sizes
    quick: Sizes
    """about ten minutes of one core"""
    needs_folder: bool = True


def task_of(name: str) -> Task:
    """The task `name`. Raises UserError naming the nearest."""
    return find(TASKS, name, "task")


def checkpoint_of(task: Task, network: str, data: Path | None, out: Path, sizes: Sizes) -> tuple[str, str]:
    """The trained network, made if it is not there, and its data source. Raises UserError for what doesn't fit."""
    find(task.networks, network, "network of this task")
    if task.needs_folder and data is None:
        raise UserError("this task needs the folder of its data: --data FOLDER")
    source = task.source(data, out, sizes)
    checkpoint = out / f"{network}-{sizes.image_size}-{sizes.classes or 'all'}-{sizes.train_epochs}.safetensors"
    if network == "bundled":
        return network, source
    if not checkpoint.exists():
        task.train(network, source, checkpoint, sizes)
    return str(checkpoint), source


def _bundled(data: Path | None, out: Path, sizes: Sizes) -> str:
    return "bundled"


def _folder(data: Path | None, out: Path, sizes: Sizes) -> str:
    return f"folder:{data}"


def _tiny_imagenet(data: Path | None, out: Path, sizes: Sizes) -> str:
    """The first classes of Tiny ImageNet by WNID, its photos linked from a folder as others are laid."""
    assert data is not None
    if not sizes.classes:
        return f"imagenet:{data}"
    folder = out / f"tiny_imagenet-{sizes.classes}"
    if not folder.exists():
        link_first_classes(data, folder, sizes.classes)
    return f"folder:{folder}"


def link_first_classes(data: Path, folder: Path, classes: int) -> None:
    """Lay Tiny ImageNet's first `classes`, by WNID, as train/WNID/* and val/WNID/* of links.

    The archive has train/WNID/images/* and val/images/*, whose WNIDs stand in val/val_annotations.txt. Raises
    UserError where these are missing.
    """
    listed, annotations = data / "wnids.txt", data / "val" / "val_annotations.txt"
    for path in (listed, annotations):
        if not path.is_file():
            raise UserError(f"{path} is missing: give the folder that Tiny ImageNet's archive unpacks to")
    kept = sorted(listed.read_text().split())[:classes]
    photos = [(f"train/{wnid}", photo) for wnid in kept for photo in (data / "train" / wnid / "images").iterdir()]
    for line in annotations.read_text().splitlines():
        name, wnid = line.split("\t")[:2]
        if wnid in kept:
            photos.append((f"val/{wnid}", data / "val" / "images" / name))
    # Whole, or not there: a stopped run must not leave a part.
    unfinished = folder.with_name(folder.name + ".partial")
    for inner, photo in photos:
        (unfinished / inner).mkdir(parents=True, exist_ok=True)
        link = unfinished / inner / photo.name
        if not link.is_symlink():
            link.symlink_to(photo.resolve())
    unfinished.rename(folder)


def _train(network: str, source: str, checkpoint: Path, sizes: Sizes) -> None:
    """By the product's own command, with all that it does unless told otherwise."""
    command = [sys.executable, "-m", "amc_latency", "train", *TINY_NETWORKS[network]]
    command += ["--image-size", str(sizes.image_size), "--epochs", str(sizes.train_epochs)]
    subprocess.run([*command, "--data", source, "--out", str(checkpoint)], check=True, cwd=ROOT)


def _transfer(network: str, source: str, checkpoint: Path, sizes: Sizes) -> None:
    from benchmarks.rivals.transfer import transfer

    transfer(network, source, checkpoint, sizes.image_size, sizes.train_epochs)


def _untrained(network: str, source: str, checkpoint: Path, sizes: Sizes) -> None:
    raise UserError(f"{network} comes trained")


TINY_NETWORKS = {
    "mobilenet_v1": ("--model", "mobilenet_v1", "--width", "0.5"),
    "mobilenet_v2": ("--model", "mobilenet_v2", "--width", "1.0"),
    "resnet20": ("--model", "resnet20", "--width", "2.0"),
}
# Of one core of an EPYC (Zen 4): MobileNetV1 of half width trains on about 300 images of 64x64 a second,
# EfficientNet-Lite0 on about 5 photos of 224x224.
_TINY = Sizes(
    networks=("mobilenet_v1",),
    shares=(0.5, 0.35, 0.25),
    image_size=64,
    classes=100,
    train_epochs=20,
    train_images=10_000,
)
_TRASH = Sizes(
    networks=("efficientnet_lite0",),
    rivals=("uniform", "random", "taylor", "tp-l2-8", "tp-bn-8", "ours"),
    shares=(0.7, 0.5),
    image_size=224,
    train_epochs=3,
    epochs=1,
    judge_images=100,
    recalibration_images=64,
    evaluations=60,
)
_BUNDLED = Sizes(
    networks=("bundled",),
    shares=(0.5, 0.35, 0.25),
    image_size=64,
    train_images=8000,
    judge_images=1000,
    seeds=5,
)
_QUICK = {"epochs": 1, "evaluations": 30, "seeds": 2, "goal": "5%", "rates": (0.005, 0.02)}
TASKS = {
    "tiny_imagenet": Task(
        source=_tiny_imagenet,
        train=_train,
        networks=TINY_NETWORKS,
        full=_TINY,
        quick=replace(_TINY, shares=(0.35,), classes=10, train_epochs=6, train_images=0, **_QUICK),
    ),
    "trashnet": Task(
        source=_folder,
        train=_transfer,
        networks={"efficientnet_lite0": ()},
        full=_TRASH,
        quick=replace(_TRASH, shares=(0.5,), image_size=96, train_epochs=1, **_QUICK),
    ),
    "bundled": Task(
        source=_bundled,
        train=_untrained,
        networks={"bundled": ()},
        full=_BUNDLED,
        quick=replace(_BUNDLED, shares=(0.35,), train_images=2000, **_QUICK),
        needs_folder=False,
    ),
}
"""By name; what a `--quick` run takes is there to see that it works."""
