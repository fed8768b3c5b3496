"""Commands that are ended by a signal while they work: cleanly, with their workers, and going on afterwards.

`AMC_SIGNAL_MOMENTS=1,2,5,10 pytest tests/integration/test_signals.py` tries more moments, in seconds.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.command_line import Cli
from tests.integration.fork_server import Forked

MOMENTS_S = [float(text) for text in os.environ.get("AMC_SIGNAL_MOMENTS", "0.5").split(",")]
"""after it began to work"""
TRAINING = ("--data", "bundled", "--epochs", 50)
COMMANDS: dict[str, tuple[object, ...]] = {
    "profile": ("profile", "--lut", "t.tsv", "--step", 64),
    "train": ("train", "--out", "new.safetensors", "--width", 0.25, "--image-size", 32, *TRAINING),
    "finetune": ("finetune", "--out", "new.safetensors", *TRAINING),
    "search": ("search", "--speedup", 2, "--out", "run", "--data", "bundled"),
}
SIGNALS = {
    "profile": signal.SIGTERM,
    "train": signal.SIGHUP,
    "finetune": signal.SIGINT,
    "search": signal.SIGTERM,
}


def start(cli: Cli, *arguments: object) -> subprocess.Popen[str]:
    """A fresh interpreter, in a group of its own, as a terminal or a service manager has it."""
    return subprocess.Popen(
        [sys.executable, "-m", "amc_latency", *map(str, arguments)],
        env={**os.environ, **cli.environment},
        cwd=cli.home,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def start_loaded(cli: Cli, *arguments: object) -> Forked:
    """One that has nothing to import any more, so that it works at once."""
    environment = {**os.environ, **cli.environment}
    return cli.server.start(list(map(str, arguments)), environment, cli.home, new_session=True)


def in_group(group: int) -> list[int]:
    """The processes of a group that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("moment_s", MOMENTS_S)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_signal_to_the_whole_group_ends_it_cleanly(name: str, moment_s: float, cli: Cli, tmp_path: Path) -> None:
    begin = start if name == "profile" else start_loaded
    with begin(replace(cli, home=tmp_path), *COMMANDS[name]) as process:
        begun_s = time.monotonic()
        # A profile has begun once its worker is there; the others read images for a while.
        while len(in_group(process.pid)) < 2 if name == "profile" else time.monotonic() < begun_s + 1:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < begun_s + 120
            time.sleep(0.01)
        time.sleep(moment_s)
        os.killpg(process.pid, SIGNALS[name])
        out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + SIGNALS[name], err
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    assert "error" not in err.lower()
    assert err.endswith("stopped; the same command goes on from here\n")
    assert out == ""
    assert not in_group(process.pid)
    # A worker that the signal ended would leave an error.
    assert not any("ended by" in path.read_text() for path in tmp_path.glob("t.tsv"))
