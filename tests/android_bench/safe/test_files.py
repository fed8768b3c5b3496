from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from amc_latency.android_bench.safe.files import read_bytes, replacing, sidecar


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
