"""Programs in forks of one process that has imported PyTorch: a fresh interpreter takes two seconds to import it.

A fork runs one as `python -c` would: with its own arguments, environment, folder and streams, and ends as it does.
What is shown of imports, of the interpreter's options or of a process group needs a fresh interpreter all the same.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from types import TracebackType
from typing import Self

_ROOT = Path(__file__).resolve().parents[2]
_SERVE = "import sys; from tests.integration.fork_server import serve; serve(int(sys.argv[1]))()"
COMMAND_LINE = "amc_latency.cli.main:main"
_PRELOADED = (
    *("amc_latency.cli.main", "amc_latency.search.run", "amc_latency.training.train", "amc_latency.measuring.bench"),
    *("amc_latency.device.registry", "amc_latency.device.adb.adb_direct", "amc_latency.lut.prediction.replay"),
    *("scipy.stats", "ai_edge_litert.interpreter"),
    # What torch loads with its first optimizer takes as long as the rest.
    *("torch._dynamo", "torch.fx.experimental.symbolic_shapes", "pydantic.type_adapter"),
)
_NUMBER = struct.Struct("<i")
_REQUEST_BYTES = 1 << 17


class Forked:
    """A program that runs, as a `subprocess.Popen` whose output is text that is read at its end."""

    def __init__(self, pid: int, channel: socket.socket, out: int, err: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._channel = channel
        self._out, self._err = open(out), open(err)  # noqa: SIM115

    def poll(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None while it runs."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        """The same, once it has ended. Raises `subprocess.TimeoutExpired`."""
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("amc-latency", timeout or 0.0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it has said on both streams, once it has ended."""
        self.wait(timeout)
        for stream in (self._out, self._err):
            stream.seek(0)
        return self._out.read(), self._err.read()

    def send_signal(self, number: int) -> None:
        """Nothing happens to one that has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it without any warning."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is not None:
            self.kill()
        self.wait()
        for each in (self._out, self._err, self._channel):
            each.close()

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._channel], [], [], timeout)[0]:
            (status,) = _NUMBER.unpack(self._channel.recv(_NUMBER.size))
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


class ForkServer:
    """The process that forks; it is there once it is needed."""

    def __init__(self) -> None:
        self._channel: socket.socket | None = None

    def start(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        main: str = COMMAND_LINE,
        new_session: bool = False,
    ) -> Forked:
        """Call `main`, a `module:function`, with these arguments there, and with no other environment.

        With `new_session` in a process group of its own, as a terminal or a service manager has it.
        """
        if self._channel is None:
            self._channel = self._begun()
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, theirs:
            request = json.dumps([list(arguments), dict(environment), str(folder), main, new_session]).encode()
            socket.send_fds(self._channel, [request], [theirs.fileno(), out.fileno(), err.fileno()])
            streams = os.dup(out.fileno()), os.dup(err.fileno())
        (pid,) = _NUMBER.unpack(mine.recv(_NUMBER.size))
        return Forked(pid, mine, *streams)

    def close(self) -> None:
        """It ends with its channel."""
        if self._channel is not None:
            self._channel.close()
            self._process.wait()

    def _begun(self) -> socket.socket:
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = os.pathsep.join((str(_ROOT), str(_ROOT / "tests")))
        one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _SERVE, str(theirs.fileno())],
                env={**os.environ, **one_thread, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        return mine


def serve(descriptor: int) -> Callable[[], None]:
    """Answer requests until the channel ends. Returns in each fork what that one is to call."""
    codes: list[int] = []
    # Before all others, so that it is called after them.
    atexit.register(_end, codes)
    for name in _PRELOADED:
        importlib.import_module(name)
    # A fork that collected what is imported would first copy all of it.
    gc.freeze()
    with socket.socket(fileno=descriptor) as channel:
        while True:
            request, descriptors, _, _ = socket.recv_fds(channel, _REQUEST_BYTES, 3)
            if not request:
                os._exit(0)
            # Of those that have been told how their command ended.
            while _ended_child():
                pass
            if os.fork() == 0 and _tell(*descriptors):
                break
            for each in descriptors:
                os.close(each)
    arguments, environment, folder, main, new_session = json.loads(request)
    if new_session:
        os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for each, standard in zip((nothing, *descriptors[1:]), range(3), strict=True):
        os.dup2(each, standard)
        os.close(each)
    os.close(descriptors[0])
    sys.argv = ["-c", *arguments]
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    # Of a group that is sent a signal, all that an interpreter says at its end is looked at.
    return resolve_name(main) if new_session else partial(_noted, resolve_name(main), codes)


def _noted(main: Callable[[], None], codes: list[int]) -> None:
    """Call it, and note the exit code that follows."""
    try:
        main()
        codes.append(0)
    except SystemExit as stopped:
        codes.append(stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None))
        raise
    except Exception:
        codes.append(1)
        raise


def _end(codes: list[int]) -> None:
    """Once all else has been done at exit, leave modules as they are: taking them down copies them in every fork."""
    if codes:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(codes[0] & 0xFF)


def _tell(teller: int, *_: int) -> bool:
    """Fork once more; true there. Here the client is told of that fork's process, and how it ended."""
    pid = os.fork()
    if pid == 0:
        return True
    os.write(teller, _NUMBER.pack(pid))
    _, status = os.waitpid(pid, 0)
    os.write(teller, _NUMBER.pack(status))
    os._exit(0)


def _ended_child() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return False
