from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from amc_latency.android_bench.safe.files import read_bytes, read_whole, regular_file, replacing, sidecar


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 10)
    assert read_bytes(path, 10) == b"x" * 10
    with pytest.raises(OSError, match="larger than"):
        read_bytes(path, 9)


@pytest.mark.timeout(10)
def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path, why in ((pipe, "no regular file"), (Path("/dev/zero"), "no regular file"), (tmp_path, "is a folder")):
        with pytest.raises(OSError, match=why):
            read_bytes(path, 10)


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").symlink_to("a")
    assert read_bytes(tmp_path / "b", 1) == b"1"


def swap_at_open(monkeypatch: pytest.MonkeyPatch, path: Path, other: Path, before: bool) -> None:
    """`other` takes the place of `path` right before it is opened, or right after."""
    real_open = os.open

    def opened(name: Path, *arguments: int, **more: int) -> int:
        monkeypatch.undo()
        if before:
            os.replace(other, path)
        descriptor = real_open(name, *arguments, **more)
        if not before:
            os.replace(other, path)
        return descriptor

    monkeypatch.setattr(os, "open", opened)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("before", [True, False])
def test_a_pipe_that_takes_a_files_place_is_neither_waited_for_nor_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    path, pipe = tmp_path / "a", tmp_path / "pipe"
    path.write_bytes(b"file")
    os.mkfifo(pipe)
    held = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    os.write(held, b"pipe")
    swap_at_open(monkeypatch, path, pipe, before)
    if before:
        with pytest.raises(OSError, match="no regular file"):
            read_bytes(path, 10)
    else:
        assert read_bytes(path, 10) == b"file"
    assert path.is_fifo()
    assert os.read(held, 10) == b"pipe"
    os.close(held)


def test_a_file_that_grew_after_it_was_opened_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 10)
    with regular_file(path, 10) as file:
        path.write_bytes(b"x" * 11)
        with pytest.raises(OSError, match="larger than"):
            read_whole(file, path, 10)


HOLDING = """
import sys, time
from pathlib import Path
from amc_latency.android_bench.safe.files import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print(temporary, flush=True)
    time.sleep(60)
"""


def hold(path: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that is in the middle of replacing `path`, and its temporary file."""
    process = subprocess.Popen([sys.executable, "-c", HOLDING, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def put(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text)


def test_what_a_killed_process_left_goes_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    process, left = hold(path)
    with process:
        assert left.parent == tmp_path
        put(tmp_path / "b", "other")
        assert left.read_text() == "half"
        process.kill()
        process.wait()
        assert left.exists()
        put(path, "new")
    assert {entry.name: entry.read_text() for entry in tmp_path.iterdir()} == {"a": "new", "b": "other"}


def test_only_our_own_regular_files_are_taken_for_left_overs(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine")
    (tmp_path / f".amc-latency-{'0' * 16}.tmp").symlink_to(mine)
    (tmp_path / f".amc-latency-{'1' * 16}.tmp").mkdir()
    os.mkfifo(tmp_path / f".amc-latency-{'2' * 16}.tmp")
    (tmp_path / ".amc-latency-notes.tmp").write_text("mine")
    (tmp_path / f".amc-latency-{'3' * 16}.tmp").write_text("left")
    before = {entry.name for entry in tmp_path.iterdir()}
    put(tmp_path / "a", "new")
    assert {entry.name for entry in tmp_path.iterdir()} == before - {f".amc-latency-{'3' * 16}.tmp"} | {"a"}
    assert mine.read_text() == "mine"


def test_the_longest_name_that_a_folder_takes_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 127 + "a")
    assert len(os.fsencode(path.name)) == 255
    put(path, "new")
    assert path.read_text() == "new"
    beside = sidecar(path, ".resume")
    put(beside, "half")
    assert beside != sidecar(tmp_path / ("é" * 127 + "b"), ".resume")
    assert sidecar(tmp_path / "a", ".resume").name == "a.resume"


def test_an_error_in_the_block_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        put(path, "new \ud800")
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ["old"]


def test_a_new_file_replaces_none(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with replacing(path, new=True) as temporary:
        temporary.write_text("first")
    with pytest.raises(FileExistsError), replacing(path, new=True) as temporary:
        temporary.write_text("second")
    assert [entry.read_text() for entry in tmp_path.iterdir()] == ["first"]


def test_a_temporary_file_that_somebody_replaced_becomes_nothing(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "a"
    victim.write_text("mine")

    def attacked() -> None:
        with replacing(path) as temporary:
            temporary.unlink()
            temporary.symlink_to(victim)

    with pytest.raises(OSError, match="replaced while"):
        attacked()
    assert not path.exists()
    assert victim.read_text() == "mine"


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("mode", [0o600, 0o440, 0o664, 0o755])
def test_a_file_that_replaces_another_has_its_permissions(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a"
    put(path, "old")
    assert mode_of(path) == 0o640
    path.chmod(mode)
    with replacing(path) as temporary:
        # Half of what only its owner may read is not for others either.
        assert mode_of(temporary) == 0o600
        temporary.write_text("new")
    assert (path.read_text(), mode_of(path)) == ("new", mode)


@pytest.mark.usefixtures("umask")
def test_a_link_that_is_replaced_gives_the_permissions_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    (tmp_path / "a").chmod(0o604)
    (tmp_path / "b").symlink_to("a")
    put(tmp_path / "b", "new")
    assert not (tmp_path / "b").is_symlink()
    assert (mode_of(tmp_path / "b"), (tmp_path / "a").read_text()) == (0o604, "old")
    # One to nowhere has none to give.
    (tmp_path / "c").symlink_to("nowhere")
    put(tmp_path / "c", "new")
    assert mode_of(tmp_path / "c") == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
@pytest.mark.parametrize("allowed", ["owner", "group", "nothing"])
def test_owner_and_group_stay_or_the_group_gets_no_more_than_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: str
) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    os.chown(path, 12345, 54321)
    path.chmod(0o664)
    real_fchown = os.fchown

    def fchown(descriptor: int, owner: int, group: int) -> None:
        if allowed == "nothing" or (allowed == "group" and owner != -1):
            raise PermissionError
        real_fchown(descriptor, owner, group)

    monkeypatch.setattr(os, "fchown", fchown)
    put(path, "new")
    status = path.stat()
    expected = {
        "owner": (12345, 54321, 0o664),
        "group": (os.geteuid(), 54321, 0o664),
        "nothing": (os.geteuid(), os.getegid(), 0o644),
    }
    assert (status.st_uid, status.st_gid, mode_of(path)) == expected[allowed]
