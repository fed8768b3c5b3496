"""SIGKILL at any moment, then the same command again: nothing that was stored is lost, and the result is the same."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.attacks.harness import Attack, Case, Wrong
from benchmarks.attacks.jobs import WORKS, Job, Undisturbed, check_ended

_COUNTS = {"profile": (110, 3), "search": (40, 1), "train": (50, 1)}
"""Kills in a full run and in a quick one."""


def attacks() -> list[Attack]:
    """By what is killed."""
    return [
        Attack(f"SIGKILL of {name}", partial(_kills, name), full, quick, case_s=90.0)
        for name, (full, quick) in _COUNTS.items()
    ]


def _kills(name: str, folder: Path) -> Callable[[Case], None]:
    work = WORKS[name]()
    undisturbed = Undisturbed(work, folder)

    def try_case(case: Case) -> None:
        place = case.folder / f"job-{case.number}"
        place.mkdir()
        kept: set[str] = set()
        for _ in range(case.draw.choice((1, 1, 2))):
            moment_s = case.draw.uniform(0.0, 1.05 * undisturbed.seconds)
            case.note += f"killed after {moment_s:.3f} of {undisturbed.seconds:.2f} s; "
            with Job(work.do, place) as job:
                time.sleep(moment_s)
                check_ended(job.kill(), "died", "ok")
            now = work.kept(place)
            if lost := kept - now:
                raise Wrong(f"{len(lost)} stored lines were lost, such as {min(lost)[:200]}")
            kept = now
        with Job(work.do, place) as job:
            check_ended(job.wait(), "ok")
        if lost := kept - work.kept(place):
            raise Wrong(f"{len(lost)} stored lines were lost, such as {min(lost)[:200]}")
        undisturbed.check_same(place)
        shutil.rmtree(place)

    return try_case
