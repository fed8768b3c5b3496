"""A child process that dies, hangs or talks too much, with small Python programs in its place."""

from __future__ import annotations

import os
import signal
import sys

import pytest
from amc_latency.device.base import DeviceError
from amc_latency.device.workers.process import WorkerDied, WorkerProcess

START = "import json, sys, time\nprint('{}', flush=True)\n"
ECHO = """
while line := sys.stdin.buffer.readline():
    job = json.loads(line)
    payload = sys.stdin.buffer.read(job["bytes"])
    print("chatter", file=sys.stderr)
    print(json.dumps({"name": job["name"], "sum": sum(payload)}), flush=True)
"""


def started(program: str) -> WorkerProcess:
    return WorkerProcess([sys.executable, "-c", START + program])


def test_jobs_larger_than_a_pipe_arrive_whole() -> None:
    worker = started(ECHO)
    try:
        for name, payload in (("small", b"\x01"), ("large", b"\x02" * 5_000_000), ("empty", b"")):
            worker.send({"name": name}, payload, timeout_s=60)
            assert worker.answer() == {"name": name, "sum": sum(payload)}
        assert worker.alive
    finally:
        worker.stop()
    assert not worker.alive


def test_an_exit_is_told_with_its_last_words() -> None:
    worker = started("sys.stdin.readline(); print('INFO: fine\\nout of luck\\n', file=sys.stderr); sys.exit(3)")
    worker.send({}, b"x", timeout_s=60)
    with pytest.raises(WorkerDied, match=r"^the process ended with exit code 3 \(out of luck\)$"):
        worker.answer()
    assert not worker.alive


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="needs waitid")
def test_a_death_between_jobs_shows_in_the_next_answer() -> None:
    worker = started(ECHO)
    os.kill(worker.pid, signal.SIGKILL)
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
    worker.send({"name": "late"}, b"x", timeout_s=60)
    with pytest.raises(WorkerDied, match="ended by SIGKILL"):
        worker.answer()


def test_a_process_that_does_not_read_is_given_up() -> None:
    worker = started("time.sleep(600)")
    worker.send({}, b"x" * 5_000_000, timeout_s=0.3)
    with pytest.raises(WorkerDied, match=r"no answer within 0\.3 s"):
        worker.answer()
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)


def test_a_process_that_never_starts_says_what_to_do() -> None:
    with pytest.raises(DeviceError, match=r"did not start: .*exit code 1 \(no room\)\. Make some\."):
        WorkerProcess([sys.executable, "-c", "import sys; sys.exit('no room')"], hint="Make some.")
