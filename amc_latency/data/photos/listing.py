"""Which photos lie in a folder, and of which class each is: by the names of folders, or by Tiny ImageNet's list."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from amc_latency.android_bench.safe.files import read_bytes
from amc_latency.android_bench.safe.limits import LOG_BYTES
from amc_latency.console import Console
from amc_latency.data.photos.decoding import SUFFIXES
from amc_latency.errors import UserError

SPLIT_NAMES = ("train", "training", "val", "valid", "validation", "test", "testing")
ANNOTATIONS = "val/val_annotations.txt"
"""Of Tiny ImageNet: a file of val/images and its class a line, and more that is not read."""
_NAMED = 5
_DEEPEST = 64
"""Folders within folders: `os.walk` calls itself for each."""


@dataclass(frozen=True)
class Photo:
    """A file of a folder, and its class."""

    name: str
    """path within the folder"""
    label: int

    @property
    def hashed(self) -> float:
        """Where in 0..1 the hash puts it."""
        return int.from_bytes(hashlib.sha256(os.fsencode(self.name)).digest()[:6]) / 2**48


def images(folder: Path, console: Console | None = None) -> list[str]:
    """Images at any depth, as sorted paths within `folder`; hidden files and folders are left out.

    Linked folders too, which a `console` is told: a link may lead back to where it lies.
    Raises UserError for a folder that can't be read.
    """

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: can't be read ({error.strerror})") from error

    found, linked = [], []
    for parent, folders, names in os.walk(folder, onerror=refuse):
        inner = Path(parent).relative_to(folder)
        if len(inner.parts) > _DEEPEST:
            raise UserError(f"{folder}: folders in it lie {_DEEPEST} deep and more; photos are looked for no deeper")
        folders[:] = [name for name in folders if not name.startswith(".")]
        linked += [name for name in folders if os.path.islink(os.path.join(parent, name))]
        found += [
            (inner / name).as_posix() for name in names if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    if linked and console is not None:
        console.warn(f"{folder}: links to folders are not followed: {listed(linked)}")
    return sorted(found)


def classes(folder: Path, console: Console | None = None) -> list[str]:
    """The class folders of `folder`, sorted. Raises UserError for fewer than two.

    A link to a folder counts, but for one that leads back to `folder` or above, which is said to a `console`.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    whole = folder.resolve()
    circular = [path.name for path in inside if path.is_symlink() and whole.is_relative_to(path.resolve())]
    if circular and console is not None:
        console.warn(f"{folder}: links that lead back to it are no classes: {listed(circular)}")
    found = [path.name for path in inside if path.name not in circular]
    if len(found) < 2:
        loose = ""
        if images(folder):
            loose = "; for images without labels there is `unlabelled`, the folder, of a search"
        raise UserError(f"{folder}: {len(found)} class folders where at least 2 belong, one a class{loose}")
    return found


def check_no_splits(folder: Path, found: list[str]) -> None:
    """Raise UserError where classes are splits by other names, or without the one to train on."""
    named = [name for name in found if name.lower() in SPLIT_NAMES]
    if named == found or any(path.is_dir() for name in named for path in (folder / name).iterdir()):
        raise UserError(
            f"{folder}: {', '.join(named)} would be taken for classes; lay splits as train/CLASS/* beside "
            "val/CLASS/*, test/CLASS/* or both"
        )


def labelled(folder: Path, part: str, known: Sequence[str], console: Console, only: bool = False) -> list[Photo]:
    """The photos of `<folder>/<part>`, each labelled by its class's place in `known`.

    Raises UserError for a class that is not known, which is left out with `only`, and for one without images.
    """
    labels = {name: label for label, name in enumerate(known)}
    photos = []
    for name in classes(folder / part, console):
        if name not in labels:
            if only:
                continue
            raise UserError(f"{folder / part / name}: there is no class {name} among the train images")
        found = images(folder / part / name, console)
        if not found:
            raise UserError(f"{folder / part / name}: no images in it ({', '.join(SUFFIXES)}); fill or remove it")
        photos += [Photo((Path(part) / name / image).as_posix(), labels[name]) for image in found]
    return photos


def annotated(folder: Path) -> list[tuple[str, str]]:
    """Path within `folder` and class of each photo that its `ANNOTATIONS` names, as Tiny ImageNet's archive lies.

    Raises UserError for a line that names no file or class.
    """
    path = folder / ANNOTATIONS
    try:
        lines = read_bytes(path, LOG_BYTES).decode(errors="replace").splitlines()
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror})") from error
    found = []
    for number, line in enumerate(lines, 1):
        name, *rest = line.split("\t")
        if not rest or not rest[0] or not name.lower().endswith(SUFFIXES) or "/" in name:
            raise UserError(f"{path}: line {number} is no file and class with a tab between: {line[:60]!r}")
        found.append((f"val/images/{name}", rest[0]))
    return found


def listed(names: Collection[str]) -> str:
    """The first few names, and how many more."""
    first = sorted(names)[:_NAMED]
    return ", ".join(first) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
