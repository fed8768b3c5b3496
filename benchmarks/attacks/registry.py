"""Every attack, in the order of the report."""

from __future__ import annotations

from benchmarks.attacks import (
    bombs,
    checkpoints,
    disks,
    hands,
    kills,
    logs,
    models,
    odd_files,
    phones,
    run_folders,
    tables,
)
from benchmarks.attacks.harness import Attack

_MODULES = (tables, logs, run_folders, models, checkpoints, bombs, odd_files, phones, kills, hands, disks)

ATTACKS: list[Attack] = [attack for module in _MODULES for attack in module.attacks()]
