"""The attack on the product: that it sees what is wrong, and that a quick one finds nothing."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from amc_latency.errors import UserError
from benchmarks.attacks.harness import Attack, Case, Wrong, run
from benchmarks.attacks.mutate import damaged
from benchmarks.attacks.registry import ATTACKS
from benchmarks.common import read_rows
from tests.integration.fork_server import ForkServer

ROOT = Path(__file__).resolve().parents[2]


def _wrong(case: Case) -> None:
    raise Wrong("another number")


def _refused(case: Case) -> None:
    raise UserError("no such file")


def _hangs(case: Case) -> None:
    while True:
        with contextlib.suppress(ValueError):
            time.sleep(60)


def peak_mb() -> int:
    """More than this process ever had: a fork begins with what it has."""
    return 200 + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _takes_memory(case: Case) -> None:
    assert b"\1" * (peak_mb() << 20)


def _dies(case: Case) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _traceback(case: Case) -> None:
    {}["x"]


FAULTS: dict[str, tuple[Callable[[Case], None], str | None]] = {
    "good": (lambda case: None, None),
    "refused": (_refused, None),
    "wrong": (_wrong, "wrong"),
    "hangs": (_hangs, "hang"),
    "memory": (_takes_memory, "memory"),
    "dies": (_dies, "died"),
    "traceback": (_traceback, "traceback"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_kind_of_failure_is_counted_and_the_next_case_still_tried(name: str, tmp_path: Path) -> None:
    faulty, kind = FAULTS[name]

    def prepare(folder: Path) -> Callable[[Case], None]:
        def try_case(case: Case) -> None:
            if case.number in (1, 3):
                case.content = b"what was tried"
                faulty(case)
            (tmp_path / f"tried {case.number}").touch()

        return try_case

    # On a busy machine a second is little for anything but the one that hangs.
    attack = Attack(name, prepare, 5, 5, case_s=1.0 if kind == "hang" else 20.0, peak_mb=peak_mb())
    row = run(attack, range(5), seed=7, keep=tmp_path / "keep")
    assert (row.tried, row.failed, row.kinds) == (5, 2 if kind else 0, {kind: 2} if kind else {})
    assert {path.name for path in tmp_path.glob("tried *")} >= {"tried 0", "tried 2", "tried 4"}
    assert [failure["case"] for failure in row.failures] == ([1, 3] if kind else [])
    if kind in ("wrong", "traceback", "hang"):
        assert (tmp_path / f"keep/{name}-7-3.bin").read_bytes() == b"what was tried"


def test_a_case_is_the_same_each_time(tmp_path: Path) -> None:
    text = bytes(range(256)) * 4

    def prepare(folder: Path) -> Callable[[Case], None]:
        def try_case(case: Case) -> None:
            raise Wrong(damaged(case.draw, text).hex())

        return try_case

    attack = Attack("same", prepare, 3, 3)
    first, again, other = (run(attack, range(3), seed).failures for seed in (1, 1, 2))
    alone = run(attack, range(2, 3), 1).failures
    assert first == again
    assert first[2:] == alone
    assert first != other


QUICK = [attack for attack in ATTACKS if attack.quick]


def test_a_quick_attack_tries_enough() -> None:
    assert len({attack.name for attack in QUICK}) == len(QUICK) > 20
    assert sum(attack.quick for attack in QUICK) > 2500


@pytest.mark.parametrize("attack", QUICK, ids=lambda attack: attack.name)
def test_a_quick_attack_finds_nothing(attack: Attack, fork_server: ForkServer, tmp_path: Path) -> None:
    if reason := attack.why_not():
        pytest.skip(reason)
    rows = tmp_path / "rows.csv"
    options = ["--quick", "--only", attack.name, "--out", str(rows)]
    with fork_server.start(options, os.environ, ROOT, "benchmarks.attack:main") as process:
        out, err = process.communicate(timeout=290)
    assert process.returncode == 0, out + err
    (row,) = read_rows(rows)
    assert (row["attack"], row["tried"], row["failed"]) == (attack.name, str(attack.quick), "0")
