from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from amc_latency.android_bench.safe.folders import WorkingFolder

KILLED = """
import os, sys
from pathlib import Path
from amc_latency.android_bench.safe.folders import WorkingFolder
(WorkingFolder(Path(sys.argv[1])).path() / "half").write_text("done")
os.kill(os.getpid(), 9)
"""


def test_it_is_made_when_asked_for_and_is_gone_at_the_end(tmp_path: Path) -> None:
    with WorkingFolder(tmp_path / "t.tsv") as folder:
        assert list(tmp_path.iterdir()) == []
        (folder.path() / "a").write_text("1")
        assert folder.path().parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_made_is_found_and_then_removed(tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "t.tsv")], check=False).returncode == -9
    with WorkingFolder(tmp_path / "t.tsv") as folder:
        assert (folder.path() / "half").read_text() == "done"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("is_link", [False, True])
def test_a_folder_without_our_marker_is_left_alone(tmp_path: Path, is_link: bool) -> None:
    with WorkingFolder(tmp_path / "t.tsv") as folder:
        name = folder.path()
    own = tmp_path / "own" if is_link else name
    own.mkdir()
    if is_link:
        name.symlink_to(own)
    (own / "mine").write_text("1")
    with WorkingFolder(tmp_path / "t.tsv") as folder, pytest.raises(FileExistsError, match="is not a folder of amc"):
        folder.path()
    assert (own / "mine").read_text() == "1"


@pytest.mark.timeout(10)
def test_a_marker_that_is_a_pipe_is_not_ours(tmp_path: Path) -> None:
    with WorkingFolder(tmp_path / "t.tsv") as folder:
        name = folder.path()
        (marker,) = name.iterdir()
    name.mkdir()
    os.mkfifo(marker)
    with WorkingFolder(tmp_path / "t.tsv") as folder, pytest.raises(FileExistsError, match="is not a folder of amc"):
        folder.path()
    assert marker.is_fifo()


def test_a_long_name_has_one_too(tmp_path: Path) -> None:
    with WorkingFolder(tmp_path / ("a" * 255)) as folder:
        assert folder.path().is_dir()
