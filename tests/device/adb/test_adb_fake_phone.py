"""The fake phone itself: with the real `adb` client, which was not written to please it, and its faults."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from adb_shell.auth.keygen import keygen
from hypothesis import given
from hypothesis import strategies as st

from tests.fake_phone.adbd import FakeAdbd
from tests.fake_phone.faults import Cut, Fault, Faults

TMP = "/data/local/tmp"
Adb = Callable[..., "subprocess.CompletedProcess[str]"]


def state_of(adb: Adb, address: str, wanted: str) -> str:
    """What `adb devices` calls the phone, once it is `wanted` or ten seconds are over."""
    adb("connect", address)
    state = ""
    for _ in range(100):
        lines = [line.split("\t") for line in adb("devices").stdout.splitlines() if line.startswith(address)]
        state = lines[0][1] if lines else ""
        if state == wanted:
            break
        time.sleep(0.1)
    return state


@pytest.fixture
def on_phone(tmp_path: Path, adb: Adb) -> Iterator[Callable[[FakeAdbd], Adb]]:
    """Connects the real adb to a phone."""
    addresses = []

    def connect(daemon: FakeAdbd) -> Adb:
        assert state_of(adb, daemon.address, "device") == "device"
        addresses.append(daemon.address)
        return lambda *arguments, **options: adb("-s", daemon.address, *arguments, **options)

    yield connect
    for address in addresses:
        adb("disconnect", address)


@pytest.mark.parametrize("options", [{}, {"auth": "ask"}, {"maxdata": 4096}], ids=["plain", "ask", "small"])
def test_the_real_adb_works_with_it(
    tmp_path: Path, on_phone: Callable[[FakeAdbd], Adb], options: dict[str, Any]
) -> None:
    folder = tmp_path / "here" / "folder"
    (folder / "deeper").mkdir(parents=True)
    data = bytes(range(256)) * 12_000
    (folder / "large").write_bytes(data)
    (folder / "deeper" / "two words").write_bytes(b"")
    with FakeAdbd(tmp_path / "phone", **options) as daemon:
        phone = on_phone(daemon)
        ran = phone("shell", "echo out; echo err >&2; exit 5")
        assert (ran.returncode, ran.stdout, ran.stderr) == (5, "out\n", "err\n")
        assert phone("shell", "cat", stdin="typed\n").stdout == "typed\n"
        assert phone("exec-out", "echo out; echo err >&2").stdout == "out\nerr\n"
        phone("push", str(folder), TMP).check_returncode()
        assert sorted(phone("shell", f"cd {TMP}/folder && find . -type f").stdout.split("\n")) == [
            "",
            "./deeper/two words",
            "./large",
        ]
        phone("pull", f"{TMP}/folder", str(tmp_path / "back")).check_returncode()
        assert (tmp_path / "back" / "large").read_bytes() == data
        missing = phone("pull", f"{TMP}/none", str(tmp_path))
        assert missing.returncode == 1
        assert "No such file" in missing.stdout + missing.stderr


def test_a_phone_of_shell_v1_loses_exit_codes(tmp_path: Path, on_phone: Callable[[FakeAdbd], Adb]) -> None:
    with FakeAdbd(tmp_path, shell_v2=False) as daemon:
        ran = on_phone(daemon)("shell", "echo out; exit 5")
        assert (ran.returncode, ran.stdout) == (0, "out\n")


def test_only_known_keys_get_in(tmp_path: Path, adb: Adb, adb_home: Path) -> None:
    keygen(str(tmp_path / "other"))
    other, own = (tmp_path / "other.pub").read_text(), (adb_home / ".android" / "adbkey.pub")
    with FakeAdbd(tmp_path, auth="known", known_keys=[other]) as daemon:
        assert state_of(adb, daemon.address, "unauthorized") == "unauthorized"
        assert "unauthorized" in adb("-s", daemon.address, "shell", "true").stderr
        adb("disconnect", daemon.address)
    if not own.exists():
        pytest.skip("adb wrote no adbkey.pub")
    with FakeAdbd(tmp_path, auth="known", known_keys=[other, own.read_text()]) as daemon:
        assert state_of(adb, daemon.address, "device") == "device"
        adb("disconnect", daemon.address)


def test_it_runs_as_a_program(tmp_path: Path, adb: Adb) -> None:
    root = Path(__file__).resolve().parents[3]
    faults = tmp_path / "faults.json"
    faults.write_text('[{"kind": "truncate", "after": 2}]')
    hook = tmp_path / "hook"
    hook.write_text('#!/bin/sh\necho "$1" > "$1.seen"\n')
    hook.chmod(0o755)
    options = ["--root", str(tmp_path / "phone"), "--faults", str(faults), "--on-push", str(hook)]
    for command in (["-m", "tests.fake_phone.adbd"], [str(root / "tests" / "fake_phone" / "adbd.py")]):
        program = subprocess.Popen([sys.executable, *command, *options], cwd=root, stdout=subprocess.PIPE, text=True)
        try:
            assert program.stdout is not None
            address = program.stdout.readline().removeprefix("listening on ").strip()
            assert state_of(adb, address, "device") == "device"
            assert adb("-s", address, "shell", "echo out").stdout == "ou"
            adb("-s", address, "push", str(faults), TMP).check_returncode()
            pushed = tmp_path / "phone" / "data" / "local" / "tmp" / "faults.json"
            assert Path(f"{pushed}.seen").read_text() == f"{pushed}\n"
            adb("disconnect", address)
        finally:
            program.terminate()
            assert program.wait(10) == 0
            program.stdout.close()


def test_paths_in_commands_point_into_its_folder(tmp_path: Path) -> None:
    root = str(tmp_path)
    daemon = FakeAdbd(tmp_path)
    daemon.close()
    for command, expected in {
        "cat /sys/class/x": f"cat {root}/sys/class/x",
        "ls '/data/local/tmp/a b' >/data/local/tmp": f"ls '{root}/data/local/tmp/a b' >{root}/data/local/tmp",
        "A=/system/bin:/system/xbin": f"A={root}/system/bin:{root}/system/xbin",
        f"cat {root}/sys/x": f"cat {root}/sys/x",
        "cat /data/local/tmpfile x/sys/y $D/sys/z ${D}/sys/z": "cat /data/local/tmpfile x/sys/y $D/sys/z ${D}/sys/z",
        "cat /proc/cpuinfo /proc/self/stat": "cat /proc/cpuinfo /proc/self/stat",
    }.items():
        assert daemon.host_command(command) == expected
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").touch()
    assert daemon.host_command("cat /proc/cpuinfo") == f"cat {root}/proc/cpuinfo"
    assert daemon.host_path("/data/x") == daemon.host_path(f"{root}/data/x") == f"{root}/data/x"
    (tmp_path / "out").symlink_to("/etc")
    for path in ("/../../etc/passwd", "/out/passwd", f"{root}/../x", f"{root}x"):
        if path == f"{root}x":
            assert daemon.host_path(path) == f"{root}{root}x"
            continue
        with pytest.raises(PermissionError):
            daemon.host_path(path)


def never(seconds: float) -> None:
    raise AssertionError(f"waits for {seconds} s")


@given(
    st.binary(max_size=60), st.lists(st.integers(0, 60)), st.integers(0, 70), st.sampled_from(["garble", "truncate"])
)
def test_where_a_fault_strikes_does_not_hang_on_how_bytes_are_parted(
    data: bytes, cuts: list[int], after: int, kind: Any
) -> None:
    faults = Faults([Fault(kind, after=after)])
    strike = faults.strike("run", "", never)
    strike.begin()
    borders = [0, *sorted(cuts), len(data)]
    parts = [data[start:end] for start, end in itertools.pairwise(borders)]
    got = b"".join(piece for part in parts for piece in strike.through(part))
    strike.end()
    assert got[:after] == data[:after]
    assert bool(faults.fired) == (after < len(data))
    if kind == "truncate":
        assert got == data[:after]
    else:
        # Eight bytes at most, where the pieces are large enough.
        assert len(got) == len(data)
        assert (got != data) == (after < len(data))
        assert got[after + 8 :] == data[after + 8 :]


def test_faults_wait_for_their_request_and_for_one_another() -> None:
    second, third, word = Fault("cut", nth=2), Fault("hang", nth=2), Fault("delay", on="push", matching="x")
    faults = Faults([second, third, word])
    requests = [("run", "a"), ("push", "y"), ("run", "b"), ("run", "c"), ("push", "xx"), ("run", "d")]
    assert [faults.take(*request) for request in requests] == [None, None, second, third, word, None]
    assert faults.pending == []
    faults.add(Fault("cut", on="receive", after=10, seconds=3))
    faults.received(9)
    with pytest.raises(Cut) as cut:
        faults.received(1)
    assert cut.value.seconds == 3
    faults.received(1000)
