"""Runs the cases of an attack in a process of its own, where they may crash, hang and take memory; counts what fails.

A case passes if the product does what was asked or refuses it as it does a user's mistake. It fails by a traceback, by
taking too long, by memory, by a dead process, and by `Wrong`: a wrong number, a lost row, a file of someone else's.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import mmap
import os
import random
import re
import resource
import select
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

PEAK_MB = 1500
"""Of memory in use, by any process of a case; more is a failure."""
_ADDRESS_SPACE = 8 << 30
"""Of virtual memory, most of which is never touched: what keeps this computer alive."""
_FULL_OF_MEMORY = 77
"""Exit code of a worker that has taken too much and must be followed by a fresh one."""
_REPORTED = 20
"""Failures of one attack whose text is kept; all are counted."""
_AGAIN_S = 2.0
"""A hang that swallows its alarm is given another so much later."""


class Wrong(Exception):
    """The product did not crash, and is wrong all the same: what it said or did."""


class Hang(BaseException):
    """A case has taken longer than it may."""


@dataclass
class Case:
    """One input of an attack."""

    number: int
    draw: random.Random
    """seeded by the attack's name, the run's seed and the number: the same case each time"""
    folder: Path
    """the attack's own, for the case to work in"""
    content: bytes = b""
    """what is kept if the case fails"""
    note: str = ""
    """what was done, where the content does not show it"""


@dataclass(frozen=True)
class Attack:
    """One row of the report."""

    name: str
    prepare: Callable[[Path], Callable[[Case], None]]
    """makes, in the process that will try them, what tries one case"""
    full: int
    """cases of a full run"""
    quick: int
    case_s: float = 10.0
    """the longest that a case may take"""
    peak_mb: int = PEAK_MB
    why_not: Callable[[], str | None] = lambda: None
    """why this computer cannot do it, if so"""


@dataclass
class Row:
    """What became of an attack."""

    attack: str
    seed: int
    tried: int = 0
    failed: int = 0
    peak_mb: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    kinds: dict[str, int] = field(default_factory=dict)
    """failures by kind: traceback, hang, wrong, memory, died"""
    failures: list[dict[str, Any]] = field(default_factory=list)
    skipped: str = ""


def run(attack: Attack, cases: range, seed: int, keep: Path | None = None) -> Row:
    """All cases, in as many processes one after another as it takes."""
    row, began = Row(attack.name, seed), time.monotonic()
    if reason := attack.why_not():
        row.skipped = reason
        return row
    following = cases.start
    with tempfile.TemporaryDirectory(prefix="attack-") as name:
        while following < cases.stop:
            folder = Path(name) / str(following)
            folder.mkdir()
            following = _one_process(attack, range(following, cases.stop), seed, folder, row, keep)
            shutil.rmtree(folder, ignore_errors=True)
    row.tried, row.seconds = len(cases), time.monotonic() - began
    return row


def _one_process(attack: Attack, cases: range, seed: int, folder: Path, row: Row, keep: Path | None) -> int:
    """Try cases until all are done or the process ended; the number of the next case."""
    place = mmap.mmap(-1, 16)
    _note_place(place, cases.start)
    reader, writer = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        code = 1
        try:
            code = _work(attack, cases, seed, folder, place, writer, keep)
        except BaseException:
            os.write(writer, _line("traceback", cases.start, f"not prepared: {traceback.format_exc()}"))
        finally:
            os._exit(code)
    os.close(writer)
    # A case that stays in C is not interrupted by its alarm.
    killed = False
    for text in _lines(reader, place, 3 * attack.case_s + 30):
        if text is None:
            killed = True
            _kill_group(pid)
            break
        failure = json.loads(text)
        row.failed += 1
        row.kinds[failure["kind"]] = row.kinds.get(failure["kind"], 0) + 1
        if len(row.failures) < _REPORTED:
            row.failures.append(failure)
    os.close(reader)
    _, status, usage = os.wait4(pid, 0)
    _kill_group(pid)
    row.peak_mb = max(row.peak_mb, usage.ru_maxrss // 1024)
    row.cpu_s += usage.ru_utime + usage.ru_stime
    number = struct.unpack("<q", place[:8])[0]
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        return cases.stop
    if code in (1, _FULL_OF_MEMORY):
        # What was wrong has been said; without preparation there is no use in going on.
        return cases.stop if code == 1 else number + 1
    kind = "hang" if killed else "died"
    row.failed += 1
    row.kinds[kind] = row.kinds.get(kind, 0) + 1
    how = (
        "it could not be interrupted" if killed else f"by {signal.Signals(-code).name}" if code < 0 else f"code {code}"
    )
    if len(row.failures) < _REPORTED:
        row.failures.append({"kind": kind, "case": number, "text": how})
    return number + 1


def _work(
    attack: Attack, cases: range, seed: int, folder: Path, place: mmap.mmap, writer: int, keep: Path | None
) -> int:
    os.setsid()
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _at_home(folder)
    # What native code says must not land in the report.
    noise = os.open(folder / "noise.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for stream in (1, 2):
        os.dup2(noise, stream)
    with open(os.open(os.devnull, os.O_RDONLY), closefd=False) as nothing:
        os.dup2(nothing.fileno(), 0)
    sys.stdout, sys.stderr = open(os.dup(1), "w"), open(os.dup(2), "w")  # noqa: SIM115
    faulthandler.enable(sys.stderr)
    try_case = attack.prepare(folder)
    signal.signal(signal.SIGALRM, _hang)
    for number in cases:
        _note_place(place, number)
        case = Case(number, random.Random(f"{attack.name}/{seed}/{number}"), folder)
        failure = _failure(try_case, case, attack.case_s)
        peak_mb = _peak_mb()
        full = peak_mb > attack.peak_mb
        if failure is None and full:
            failure = "memory", f"{peak_mb} MB"
        if failure is not None:
            kind, text = failure
            text = f"{case.note}: {text}" if case.note else text
            os.write(writer, _line(kind, number, text))
            if keep is not None:
                _keep(keep, f"{attack.name}-{seed}-{number}", case, text)
        if full:
            return _FULL_OF_MEMORY
    return 0


def _failure(try_case: Callable[[Case], None], case: Case, case_s: float) -> tuple[str, str] | None:
    from amc_latency.errors import exit_code

    signal.setitimer(signal.ITIMER_REAL, case_s, _AGAIN_S)
    try:
        try:
            try_case(case)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except Hang:
        return "hang", f"not done after {case_s:g} s\n{_trace()}"
    except Wrong as error:
        return "wrong", str(error)
    except Exception as error:
        if exit_code(error) is None:
            return "traceback", _trace()
    except BaseException:
        return "traceback", _trace()
    return None


def _peak_mb() -> int:
    """The most that this process, any that it waited for, or a child that is there now has had in memory."""
    peaks_kb = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    with contextlib.suppress(OSError, ValueError):
        for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
            found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{child}/status").read_text())
            peaks_kb += [int(found[1])] if found else []
    return max(peaks_kb) // 1024


def _hang(number: int, frame: FrameType | None) -> None:
    raise Hang


def _trace() -> str:
    text = traceback.format_exc()
    return text if len(text) < 3000 else text[:500] + "\n...\n" + text[-2400:]


def _at_home(folder: Path) -> None:
    """Nothing of the user's is read or written."""
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "TMPDIR"):
        home = folder / name.lower()
        home.mkdir()
        os.environ[name] = str(home)
    tempfile.tempdir = None
    for name in [name for name in os.environ if name.startswith(("ADB_", "ANDROID_"))]:
        del os.environ[name]
    os.environ["ANDROID_ADB_SERVER_PORT"] = "1"
    os.environ["OMP_NUM_THREADS"] = "1"
    work = folder / "work"
    work.mkdir()
    os.chdir(work)


def _note_place(place: mmap.mmap, number: int) -> None:
    place[:16] = struct.pack("<qd", number, time.monotonic())


def _line(kind: str, number: int, text: str) -> bytes:
    return json.dumps({"kind": kind, "case": number, "text": text[:4000]}).encode() + b"\n"


def _lines(reader: int, place: mmap.mmap, longest_s: float) -> Iterator[bytes | None]:
    """Lines as they come; None once nothing has moved for too long."""
    rest = b""
    while True:
        if not select.select([reader], [], [], 1.0)[0]:
            since = struct.unpack("<qd", place[:16])[1]
            if time.monotonic() - since > longest_s:
                yield None
                return
            continue
        if not (part := os.read(reader, 1 << 16)):
            return
        *whole, rest = (rest + part).split(b"\n")
        yield from whole


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _keep(folder: Path, name: str, case: Case, text: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    plain = "".join(c if c.isalnum() or c in "-." else "_" for c in name)
    (folder / f"{plain}.txt").write_text(text)
    if case.content:
        (folder / f"{plain}.bin").write_bytes(case.content)
