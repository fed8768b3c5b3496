"""Disks that are full at any moment, and are then freed: a message, nothing lost, and the same result."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.attacks.harness import Attack, Case, Wrong
from benchmarks.attacks.jobs import WORKS, Job, Undisturbed, check_ended

_COUNTS = {"profile": (30, 1), "search": (10, 0), "train": (30, 0)}
"""Cases of a full run and of a quick one."""
_DISK_MB = 24
_NEW_NAMESPACE = 0x00020000


def attacks() -> list[Attack]:
    """Files that may not grow, which any user can have, and a small disk, which only root can make."""
    return [
        *(Attack(f"files that may not grow, {name}", partial(_limited, name), *_COUNTS[name], 90.0) for name in WORKS),
        *(Attack(f"full disk, {name}", partial(_full, name), *_COUNTS[name], 90.0, why_not=_no_disk) for name in WORKS),
    ]


def _limited(name: str, folder: Path) -> Callable[[Case], None]:
    work = WORKS[name]()
    undisturbed = Undisturbed(work, folder)
    largest = max(path.stat().st_size for path in undisturbed.folder.rglob("*") if path.is_file())

    def try_case(case: Case) -> None:
        place = case.folder / f"job-{case.number}"
        place.mkdir()
        most = int(largest * case.draw.random() ** 2)
        case.note = f"no file larger than {most} bytes"
        with Job(work.do, place, before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))) as job:
            check_ended(job.wait(), "refused", "ok")
        _goes_on(undisturbed, place)

    return try_case


def _goes_on(undisturbed: Undisturbed, place: Path) -> None:
    work = undisturbed.work
    kept = work.kept(place)
    with Job(work.do, place) as job:
        check_ended(job.wait(), "ok")
    if lost := kept - work.kept(place):
        raise Wrong(f"{len(lost)} stored lines were lost, such as {min(lost)[:200]}")
    undisturbed.check_same(place)
    shutil.rmtree(place)


def _no_disk() -> str | None:
    tried = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "-o", "size=64k", "none", "/mnt"],
        check=False,
        capture_output=True,
    )
    return (
        None if tried.returncode == 0 else "this user may not mount a small disk; files that may not grow stand for it"
    )


def _full(name: str, folder: Path) -> Callable[[Case], None]:
    disk = folder / "disk"
    disk.mkdir()
    # In a name space of its own, so that it goes with this process.
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_NAMESPACE):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK_MB}m", "none", str(disk)], check=True)
    work = WORKS[name]()
    undisturbed = Undisturbed(work, folder)
    needed = sum(path.stat().st_size for path in undisturbed.folder.rglob("*") if path.is_file())

    def try_case(case: Case) -> None:
        place, filler = disk / "job", disk / "filler"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        left = int(1.2 * needed * case.draw.random() ** 2)
        case.note = f"{left} bytes are free"
        with filler.open("wb") as file:
            file.write(bytes(max(0, shutil.disk_usage(disk).free - left)))
        with Job(work.do, place) as job:
            check_ended(job.wait(), "refused", "ok")
        filler.unlink()
        _goes_on(undisturbed, place)

    return try_case
