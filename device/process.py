"""A child process that does jobs one at a time: it may die or hang, and never stays behind."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any

from device.base import DeviceError

_START_TIMEOUT_S = 120.0


class WorkerDied(Exception):
    """The worker ended or hung while it had a job: how, in a few words."""


class WorkerProcess:
    """Starts `command` and waits until it says that it is ready.

    A job is a JSON line with its payload's length as `bytes`, then the payload; an answer is a JSON line.
    Raises `DeviceError` when the process cannot start; `hint` then says what to do.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str] | None = None, hint: str = "") -> None:
        self._failure: str | None = None
        self._received = b""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `stop`)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                bufsize=0,
                env=env,
            )
        except OSError as error:
            self._errors.close()
            raise DeviceError(f"cannot start {command[0]}: {error}") from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._jobs: IO[bytes] = self._process.stdin
        self._answers: IO[bytes] = self._process.stdout
        os.set_blocking(self._jobs.fileno(), False)
        self._deadline = time.monotonic() + _START_TIMEOUT_S
        self._timeout_s = _START_TIMEOUT_S
        try:
            self.answer()
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
            while self._failure is None and b"\n" not in self._received:
                self._wait(self._answers, selectors.EVENT_READ)
                received = os.read(self._answers.fileno(), 1 << 16)
                if not received:
                    self._fail(self._how_it_ended())
                self._received += received
        except TimeoutError as error:
            self._fail(str(error))
        if self._failure is not None:
            raise WorkerDied(self._failure)
        line, _, self._received = self._received.partition(b"\n")
        return json.loads(line)

    def stop(self) -> None:
        """Kill and reap it; harmless when it is gone already."""
        self._failure = self._failure or "stopped"
        self._process.kill()
        self._process.wait()
        for stream in (self._jobs, self._answers, self._errors):
            stream.close()

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
        return words[-1][:200] if words else ""
