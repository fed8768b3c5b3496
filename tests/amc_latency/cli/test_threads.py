"""Threads that wait asleep, and no more of them than a container may run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from amc_latency.cli.threads import cores_allowed, share_cores

SHOWING = """
import os, sys
os.environ["OMP_DISPLAY_ENV"] = "verbose"
sys.argv = ["amc-latency", "inspect", "--model", "lenet", "--input", "1x28x28", "--json"]
from amc_latency.cli.main import main
main()
"""


def test_the_command_line_loads_torch_with_threads_that_sleep() -> None:
    # OpenMP itself says what it took: 0 spins before a thread sleeps.
    unset = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    done = subprocess.run([sys.executable, "-c", SHOWING], env=unset, capture_output=True, text=True, check=False)
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr
    assert "GOMP_SPINCOUNT = '0'" in done.stderr


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_what_the_user_set_is_left(name: str, tmp_path: Path) -> None:
    environ = {name: "active", "OMP_NUM_THREADS": "64"}
    quota = tmp_path / "cpu.max"
    quota.write_text("100000 100000\n")
    share_cores(environ, quota)
    assert environ == {name: "active", "OMP_NUM_THREADS": "64"}


@pytest.mark.parametrize(
    ("text", "cores"),
    # Microseconds of all cores in a period: 1.5 cores can keep two threads busy.
    [("200000 100000\n", 2), ("150000 100000\n", 2), ("50000 100000\n", 1), ("max 100000\n", None), ("", None)],
)
def test_a_containers_quota_in_cores(text: str, cores: int | None, tmp_path: Path) -> None:
    path = tmp_path / "cpu.max"
    path.write_text(text)
    assert cores_allowed(path) == cores


def test_no_more_threads_than_the_quota_and_no_more_than_there_are_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    path = tmp_path / "cpu.max"
    for quota, threads in (("200000 100000", "2"), ("800000 100000", None), ("1600000 100000", None), ("max 1", None)):
        path.write_text(quota)
        environ: dict[str, str] = {}
        share_cores(environ, path)
        assert environ.get("OMP_NUM_THREADS") == threads
        assert environ["OMP_WAIT_POLICY"] == "passive"
    path.unlink()
    environ = {}
    share_cores(environ, path)
    assert environ == {"OMP_WAIT_POLICY": "passive"}
