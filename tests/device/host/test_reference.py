"""This computer's reference speed: the first one stays, and a file that is no good costs only the comparison."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from amc_latency.device.host.reference import ReferenceSpeeds, reference_path

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "reference_speed.json"


def test_the_first_value_stays(path: Path) -> None:
    one, other = ReferenceSpeeds(path), ReferenceSpeeds(path)
    assert one.get("hot") is None
    assert one.keep("hot", 200.5) == 200.5
    assert one.keep("hot", 300.0) == 200.5
    # It was opened before there was a file, and times the sentinel too.
    assert other.keep("hot", 400.0) == other.get("hot") == 200.5
    assert other.keep("frame", 350.0) == 350.0
    again = ReferenceSpeeds(path)
    assert (again.get("hot"), again.get("frame"), again.problem) == (200.5, 350.0, None)
    assert json.loads(path.read_text()) == {"frame": 350.0, "hot": 200.5}


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1, 2]", b"7", b"null", b'{"hot": "fast"}', b'{"hot": null}', b"\xff\xfe{}"]
    + [b'{"hot": %s, "frame": 350}' % figure for figure in (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"9" * 5000)],
)
def test_garbage_is_told_and_replaced(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    found = ReferenceSpeeds(path)
    assert found.get("hot") is None
    assert "cannot read this computer's reference speed" in (found.problem or "")
    assert str(path) in (found.problem or "")
    assert "\n" not in (found.problem or "")
    assert found.keep("hot", 210.0) == 210.0
    assert ReferenceSpeeds(path).get("hot") == 210.0


@pytest.mark.parametrize("figure", ["-200.0", "0"])
def test_a_figure_that_is_no_time_is_as_good_as_none(path: Path, figure: str) -> None:
    path.parent.mkdir()
    path.write_text(f'{{"hot": {figure}, "frame": 350}}')
    found = ReferenceSpeeds(path)
    assert (found.get("hot"), found.get("frame")) == (None, 350.0)
    assert found.keep("hot", 210.0) == 210.0
    assert json.loads(path.read_text()) == {"frame": 350.0, "hot": 210.0}


def test_a_place_that_cannot_be_written_keeps_it_for_this_session(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder.json").mkdir()
    for path in (tmp_path / "file" / "speeds.json", tmp_path / "folder.json"):
        found = ReferenceSpeeds(path)
        assert found.keep("hot", 210.0) == 210.0
        assert f"cannot keep this computer's reference speed in {path}" in (found.problem or "")
        assert found.get("hot") == found.keep("hot", 220.0) == 210.0
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.suffix != ".lock") == ["file", "folder.json"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write_keeps_it_for_this_session(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        found = ReferenceSpeeds(tmp_path / "speeds.json")
        assert found.keep("hot", 210.0) == 210.0
        assert "Permission denied" in (found.problem or "")
    finally:
        tmp_path.chmod(0o700)


def test_cores_that_end_their_first_timing_together_agree(path: Path) -> None:
    together = threading.Barrier(8)
    kept: list[float] = []

    def core(number: int) -> None:
        speeds = ReferenceSpeeds(path)
        together.wait()
        kept.append(speeds.keep("hot", 200.0 + number))
        speeds.keep(f"core {number}", 300.0)

    threads = [threading.Thread(target=core, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kept) == 8
    assert len(set(kept)) == 1
    assert json.loads(path.read_text()) == {"hot": kept[0], **{f"core {number}": 300.0 for number in range(8)}}


def test_two_processes_agree(path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from amc_latency.device.host.reference import ReferenceSpeeds\n"
        "print(ReferenceSpeeds(Path(sys.argv[1])).keep('hot', float(sys.argv[2])))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(path), str(us)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for us in (210.0, 220.0)
    ]
    said = [process.communicate()[0] for process in processes]
    assert said[0] == said[1]
    assert ReferenceSpeeds(path).get("hot") == float(said[0])


def test_no_test_comes_near_the_users_own(data_folder: Path) -> None:
    assert reference_path() == data_folder / "amc-latency" / "reference_speed.json"
