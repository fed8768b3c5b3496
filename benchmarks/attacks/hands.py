"""Several hands on the same files at once: nobody's timings are lost, and whoever cannot go on says so."""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.attacks.harness import Attack, Case, Wrong
from benchmarks.attacks.jobs import Job, Profile, Search, Undisturbed, check_ended
from benchmarks.attacks.peers import GREETINGS, Peer

_WAIT_S = 0.002
_LATEST = 0.6
"""Of a table's rows: so far it may have come when something happens to it."""


def attacks() -> list[Attack]:
    """By what is done to a running profile or search."""
    return [
        Attack("two profiles on one table", _two_profiles, 30, 2, case_s=60.0),
        Attack("merge over a running profile", _merge_over, 15, 1, case_s=60.0),
        Attack("rm, mv, cp under a running profile", _taken_away, 15, 1, case_s=60.0),
        Attack("two searches in one folder", _two_searches, 10, 0, case_s=90.0),
        Attack("adb key made by three at once", _three_keys, 20, 1, case_s=60.0),
    ]


def _place(case: Case) -> Path:
    place = case.folder / f"job-{case.number}"
    place.mkdir()
    return place


def _two_profiles(folder: Path) -> Callable[[Case], None]:
    work = Profile()
    undisturbed = Undisturbed(work, folder)

    def try_case(case: Case) -> None:
        place = _place(case)
        own = place / "t.tsv.networks"
        if case.number % 2:
            own.mkdir()
            (own / "thesis.txt").write_text("years of work")
        with Job(work.do, place) as one:
            time.sleep(case.draw.choice((0.0, case.draw.uniform(0, undisturbed.seconds))))
            with Job(work.do, place) as other:
                for job in (other, one):
                    check_ended(job.wait(), "ok", "refused")
        if "ok" not in (one.wait().kind, other.wait().kind):
            raise Wrong(f"neither went on: {one.wait().text[:200]}; {other.wait().text[:200]}")
        if case.number % 2:
            if not (own / "thesis.txt").exists():
                raise Wrong("a folder of the user's own was removed")
            shutil.rmtree(own)
        undisturbed.check_same(place)
        shutil.rmtree(place)

    return try_case


def _in_the_middle(case: Case, work: Profile, job: Job, undisturbed: Undisturbed, place: Path) -> bool:
    """Wait until a share of the rows is there; False where the job was too quick for that."""
    wanted = int(case.draw.uniform(0.05, _LATEST) * len(undisturbed.kept))
    while len(work.kept(place)) < wanted:
        if not job.runs:
            return False
        time.sleep(_WAIT_S)
    return True


def _merge_over(folder: Path) -> Callable[[Case], None]:
    from amc_latency.lut.table.merge import merge
    from amc_latency.lut.table.table import LatencyTable

    work = Profile()
    undisturbed = Undisturbed(work, folder)
    pair = [folder / "a.tsv", folder / "b.tsv"]
    for path in pair:
        with LatencyTable.open(work.table(undisturbed.folder)) as whole:
            LatencyTable.create(path, whole.identity, whole.protocol).close()
            with LatencyTable.open(path) as half:
                for timing in whole.rows[::3]:
                    half.append(timing)

    def try_case(case: Case) -> None:
        place = _place(case)
        with Job(work.do, place) as job:
            if not _in_the_middle(case, work, job, undisturbed, place):
                return
            with Job(merge, pair, work.table(place), True) as merging:
                merged = merging.wait()
            ended = job.wait()
        check_ended(merged, "ok", "refused")
        check_ended(ended, "ok", "refused")
        _nothing_lost_in_silence(case, ended.kind, work, undisturbed, place)
        shutil.rmtree(place)

    return try_case


def _nothing_lost_in_silence(case: Case, kind: str, work: Profile, undisturbed: Undisturbed, place: Path) -> None:
    if kind != "ok":
        return
    rows = len(work.kept(place))
    if rows < len(undisturbed.kept):
        raise Wrong(f"the profile ended well, and its table has {rows} of {len(undisturbed.kept)} rows")


def _taken_away(folder: Path) -> Callable[[Case], None]:
    work = Profile()
    undisturbed = Undisturbed(work, folder)

    def try_case(case: Case) -> None:
        place = _place(case)
        table = work.table(place)
        what = ("rm", "mv", "another in its place")[case.number % 3]
        case.note = what
        with Job(work.do, place) as job:
            if not _in_the_middle(case, work, job, undisturbed, place):
                return
            match what:
                case "rm":
                    table.unlink()
                case "mv":
                    table.rename(place / "elsewhere.tsv")
                case _:
                    lines = table.read_bytes().split(b"\n")[:7]
                    (place / "new.tsv").write_bytes(b"\n".join(lines) + b"\n")
                    (place / "new.tsv").rename(table)
            ended = job.wait()
        check_ended(ended, "ok", "refused")
        _nothing_lost_in_silence(case, ended.kind, work, undisturbed, place)
        shutil.rmtree(place)

    return try_case


def _two_searches(folder: Path) -> Callable[[Case], None]:
    work = Search()
    undisturbed = Undisturbed(work, folder)

    def try_case(case: Case) -> None:
        place = _place(case)
        with Job(work.do, place) as one:
            time.sleep(case.draw.choice((0.0, case.draw.uniform(0, undisturbed.seconds))))
            with Job(work.do, place) as other:
                for job in (other, one):
                    check_ended(job.wait(), "ok", "refused")
        if "ok" not in (one.wait().kind, other.wait().kind):
            raise Wrong(f"neither went on: {one.wait().text[:200]}; {other.wait().text[:200]}")
        undisturbed.check_same(place)
        shutil.rmtree(place)

    return try_case


def _three_keys(folder: Path) -> Callable[[Case], None]:
    from amc_latency.device.adb.adb_direct import DirectTransport
    from amc_latency.device.base import DeviceError

    def connect(port: int) -> None:
        # Whoever answers hangs up: by then the key is there.
        transport = DirectTransport(f"127.0.0.1:{port}", answer_s=1.0)
        try:
            transport.connect()
        except DeviceError:
            pass
        finally:
            transport.close()

    def try_case(case: Case) -> None:
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        from tests.fake_phone.adbd import parse_public_key

        home = _place(case)
        os.environ["ANDROID_USER_HOME"] = str(home)
        with Peer(GREETINGS["hangs up"]) as peer:
            jobs = [Job(connect, peer.port) for _ in range(3)]
            for job in jobs:
                check_ended(job.wait(), "ok")
        key, public = home / "adbkey", home / "adbkey.pub"
        private = load_pem_private_key(key.read_bytes(), None)
        if parse_public_key(public.read_text())[0] != private.private_numbers().public_numbers.n:  # type: ignore[union-attr]
            raise Wrong("adbkey.pub does not belong to adbkey")
        if stat.S_IMODE(key.stat().st_mode) & 0o077:
            raise Wrong(f"the key may be read by others: {stat.S_IMODE(key.stat().st_mode):o}")
        if left := [path.name for path in home.iterdir() if path.name.startswith("tmp")]:
            raise Wrong(f"left behind: {left}")
        shutil.rmtree(home)

    return try_case
