"""A child process that does jobs one at a time: it may die or hang, and never stays behind."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from amc_latency.android_bench.safe.limits import WORKER_ANSWER_BYTES, WORKER_FILE_BYTES, WORKER_MEMORY_BYTES
from amc_latency.android_bench.safe.records import RecordError, from_json
from amc_latency.android_bench.safe.text import shown_line
from amc_latency.device.base import DeviceError
from amc_latency.device.workers.environment import worker_environment

_START_TIMEOUT_S = 120.0
_CONFINED = Path(__file__).resolve().with_name("confined.py")


class WorkerDied(Exception):
    """The worker ended or hung while it had a job: how, in a few words."""


class WorkerProcess:
    """Starts `command` and waits until it says that it is ready.

    It works in a temporary folder of its own, which is its home too, and gets of `env` (this process's environment, if
    None) what it needs. A job is a JSON line with its payload's length as `bytes`, then the payload; an answer is a
    JSON line.
    Raises `DeviceError` when the process cannot start; `hint` then says what to do.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str] | None = None, hint: str = "") -> None:
        self._failure: str | None = None
        self._received = bytearray()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `stop`)
        self._folder = tempfile.TemporaryDirectory(prefix="amc-latency-worker-", ignore_cleanup_errors=True)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                bufsize=0,
                cwd=self._folder.name,
                env=worker_environment(Path(self._folder.name), env),
            )
        except OSError as error:
            self._errors.close()
            self._folder.cleanup()
            raise DeviceError(f"cannot start {command[0]}: {error}") from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._jobs: IO[bytes] = self._process.stdin
        self._answers: IO[bytes] = self._process.stdout
        os.set_blocking(self._jobs.fileno(), False)
        self._deadline = time.monotonic() + _START_TIMEOUT_S
        self._timeout_s = _START_TIMEOUT_S
        try:
            self.ready = self.answer()
        except WorkerDied as error:
            raise DeviceError(f"the timing process did not start: {error}. {hint}".strip()) from error
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it takes another job: false from the first failure on."""
        return self._failure is None

    def send(self, job: Mapping[str, Any], payload: bytes, timeout_s: float) -> None:
        """Give it a job to be answered within `timeout_s` from now; failures are `answer`'s to raise."""
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s
        header = json.dumps({**job, "bytes": len(payload)}).encode() + b"\n"
        try:
            for part in (header, payload):
                rest = memoryview(part)
                while rest:
                    self._wait(self._jobs, selectors.EVENT_WRITE)
                    rest = rest[os.write(self._jobs.fileno(), rest) :]
        except BrokenPipeError:
            self._fail(self._how_it_ended())
        except TimeoutError as error:
            self._fail(str(error))

    def answer(self) -> dict[str, Any]:
        """The answer to the job sent last. Raises `WorkerDied`, after which the process is gone."""
        try:
            received: bytes | bytearray = self._received
            while self._failure is None and b"\n" not in received:
                self._wait(self._answers, selectors.EVENT_READ)
                received = os.read(self._answers.fileno(), 1 << 16)
                if not received:
                    self._fail(self._how_it_ended())
                self._received += received
                if len(self._received) > WORKER_ANSWER_BYTES:
                    self._fail(f"its answer is longer than {WORKER_ANSWER_BYTES / 1e6:g} MB")
        except TimeoutError as error:
            self._fail(str(error))
        if self._failure is not None:
            raise WorkerDied(self._failure)
        end = self._received.index(b"\n")
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        try:
            return from_json(line, dict[str, Any])
        except RecordError as error:
            self._fail(f"its answer cannot be read: {error}")
            raise WorkerDied(self._failure) from error

    def stop(self) -> None:
        """Kill and reap it; harmless when it is gone already."""
        self._failure = self._failure or "stopped"
        self._process.kill()
        self._process.wait()
        for stream in (self._jobs, self._answers, self._errors):
            stream.close()
        self._folder.cleanup()

    def _wait(self, stream: IO[bytes], event: int) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(stream, event)
            if not selector.select(max(0.0, self._deadline - time.monotonic())):
                raise TimeoutError(f"no answer within {self._timeout_s:g} s")

    def _fail(self, how: str) -> None:
        self._failure = how
        self.stop()

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return "the process stopped answering"
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        said = self._last_words()
        return f"the process {how}" + (f" ({said})" if said else "")

    def _last_words(self) -> str:
        self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - 4096))
        lines = self._errors.read().decode(errors="replace").splitlines()
        words = [line.strip() for line in lines if line.strip() and not line.startswith(("INFO:", "WARNING:"))]
        return shown_line(words[-1]) if words else ""


def confined(worker: Sequence[str], memory_bytes: int | None, file_bytes: int = WORKER_FILE_BYTES) -> list[str]:
    """The command that starts `worker`, a program of Python's, within limits: see
    `amc_latency.device.workers.confined`.

    Without a limit on memory it is a worker that needs the driver of a GPU, and keeps the network too.
    """
    limits = {"memory": memory_bytes, "file": file_bytes, "network": memory_bytes is None}
    # -P: neither the current folder nor this file's may shadow a package.
    return [sys.executable, "-P", str(_CONFINED), json.dumps(limits), *worker]


def memory_for_workers() -> int:
    """What a worker may use: much, and less than this computer has."""
    try:
        own = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return WORKER_MEMORY_BYTES
    return min(WORKER_MEMORY_BYTES, own * 3 // 4)
