"""What runs in a connection to the fake phone: streams, and in them commands and files."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import queue
import select
import signal
import stat
import struct
import subprocess
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from .adbd import Connection, FakeAdbd

_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = 0, 1, 2, 3, 4
_SYNC_CHUNK = 64 << 10


class Closed(Exception):
    """The peer has gone, or closed the stream."""


class Stream:
    """One service's bytes, both ways, one unacknowledged packet at a time."""

    def __init__(self, connection: Connection, local: int, remote: int) -> None:
        self.local, self.remote = local, remote
        self.closed = threading.Event()
        self._connection = connection
        self._arrived: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._may_send = threading.Semaphore(1)
        self._unread = b""

    def arrived(self, data: bytes) -> None:
        """The peer sent this."""
        self._arrived.put(data)

    def acknowledged(self) -> None:
        """The peer took what was written last."""
        self._may_send.release()

    def write(self, data: bytes) -> None:
        """Send bytes. Raises `Closed`."""
        size = self._connection.maxdata
        for start in range(0, len(data), size):
            self._may_send.acquire()
            if self.closed.is_set():
                raise Closed
            self._connection.send("WRTE", self.local, self.remote, data[start : start + size])

    def read(self, size: int) -> bytes:
        """So many bytes. Raises `Closed`."""
        while len(self._unread) < size:
            data = self._arrived.get()
            if data is None:
                raise Closed
            self._unread += data
            self._connection.send("OKAY", self.local, self.remote)
        data, self._unread = self._unread[:size], self._unread[size:]
        return data

    def wait(self, seconds: float) -> None:
        """Let time pass. Raises `Closed`."""
        if self.closed.wait(None if math.isinf(seconds) else seconds):
            raise Closed

    def close(self, tell: bool = True) -> None:
        """End it; whoever reads or writes is told by `Closed`."""
        if self.closed.is_set():
            return
        self.closed.set()
        self._connection.forget(self)
        self._arrived.put(None)
        self._may_send.release()
        if tell:
            self._connection.send("CLSE", self.local, self.remote)


def serve_shell(stream: Stream, command: str, v2: bool, daemon: FakeAdbd) -> None:
    """Run a command until its output ends; with `v2`, streams are told apart and the exit code comes last.

    When the computer goes away, the shell gets SIGHUP, but not its children, as with the real daemon.
    """
    strike = daemon.faults.strike("run", command, stream.wait)
    strike.begin()
    process = subprocess.Popen(
        [*daemon.shell, daemon.host_command(command) or "exec sh"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if v2 else subprocess.STDOUT,
        start_new_session=True,
        cwd=daemon.root,
        env={**os.environ, "PATH": f"{daemon.root}/bin:{os.environ.get('PATH', '')}"},
    )
    assert process.stdin is not None
    threading.Thread(target=_feed, args=(stream, process.stdin, v2), daemon=True).start()
    try:
        for ident, data in _output(process, stream):
            for part in strike.through(data):
                stream.write(struct.pack("<BI", ident, len(part)) + part if v2 else part)
        strike.end()
        code = process.wait()
        if v2:
            stream.write(struct.pack("<BIB", _EXIT, 1, code if code >= 0 else 128 - code))
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGHUP)
            threading.Thread(target=process.wait, daemon=True).start()
        for pipe in filter(None, (process.stdin, process.stdout, process.stderr)):
            with contextlib.suppress(OSError):
                pipe.close()


def _output(process: subprocess.Popen[bytes], stream: Stream) -> Iterator[tuple[int, bytes]]:
    """What the process writes, and to which of the two, until both are closed. Raises `Closed`."""
    pipes = {pipe: ident for pipe, ident in ((process.stdout, _STDOUT), (process.stderr, _STDERR)) if pipe}
    while pipes:
        # The time-out is for a stream that is closed while nothing is written.
        for pipe in select.select(list(pipes), [], [], 0.1)[0]:
            if data := os.read(pipe.fileno(), 1 << 16):
                yield pipes[pipe], data
            else:
                del pipes[pipe]
        if stream.closed.is_set():
            raise Closed


def _feed(stream: Stream, stdin: BinaryIO, v2: bool) -> None:
    """What the computer types. Without v2 every byte is input; with it, packets say what they are."""
    with contextlib.suppress(Closed, OSError, ValueError):
        while True:
            ident, size = struct.unpack("<BI", stream.read(5)) if v2 else (_STDIN, 1)
            data = stream.read(size)
            if ident == _CLOSE_STDIN:
                stdin.close()
            elif ident == _STDIN:
                stdin.write(data)
                stdin.flush()


class SyncService:
    """Files: STAT, STA2, LST2, LIST, SEND and RECV."""

    def __init__(self, stream: Stream, daemon: FakeAdbd) -> None:
        self._stream = stream
        self._daemon = daemon
        self._receiving = False
        self._mtime = 0

    def serve(self) -> None:
        """Answer requests until the peer quits. Raises `Closed` and `Cut`."""
        while True:
            ident, size = struct.unpack("<4sI", self._stream.read(8))
            if ident == b"QUIT":
                return
            argument = os.fsdecode(self._stream.read(size))
            match ident:
                case b"STAT":
                    self._stat(argument)
                case b"STA2" | b"LST2":
                    self._stat_v2(ident, argument)
                case b"LIST":
                    self._list(argument)
                case b"SEND":
                    path, _, mode = argument.rpartition(",")
                    self._receive(path, int(mode))
                case b"RECV":
                    self._send(argument)
                case _:
                    self._fail(f"unknown request {ident!r}")
                    return

    def _fail(self, why: str) -> None:
        text = os.fsencode(why)
        self._stream.write(b"FAIL" + struct.pack("<I", len(text)) + text)

    def _stat(self, path: str) -> None:
        fields = (0, 0, 0)
        with contextlib.suppress(OSError):
            st = os.stat(self._daemon.host_path(path))
            fields = (st.st_mode, st.st_size & 0xFFFFFFFF, int(st.st_mtime))
        self._stream.write(struct.pack("<4s3I", b"STAT", *fields))

    def _stat_v2(self, ident: bytes, path: str) -> None:
        try:
            st = os.stat(self._daemon.host_path(path))
        except OSError as error:
            self._stream.write(struct.pack("<4sI64x", ident, error.errno or errno.EIO))
            return
        owner = (st.st_dev, st.st_ino, st.st_mode, st.st_nlink, st.st_uid, st.st_gid)
        times = (int(st.st_atime), int(st.st_mtime), int(st.st_ctime))
        self._stream.write(struct.pack("<4sI2Q4IQ3q", ident, 0, *owner, st.st_size, *times))

    def _list(self, path: str) -> None:
        with contextlib.suppress(OSError), os.scandir(self._daemon.host_path(path)) as entries:
            for entry in entries:
                st, name = entry.stat(follow_symlinks=False), os.fsencode(entry.name)
                fields = (st.st_mode, st.st_size & 0xFFFFFFFF, int(st.st_mtime), len(name))
                self._stream.write(struct.pack("<4s4I", b"DENT", *fields) + name)
        self._stream.write(struct.pack("<4s16x", b"DONE"))

    def _receive(self, path: str, mode: int) -> None:
        strike = self._daemon.faults.strike("push", path, self._stream.wait)
        self._receiving = True
        try:
            strike.begin()
            full = self._daemon.host_path(path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            # A new file, so that a program that runs may be replaced.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(full)
            try:
                with open(full, "wb") as file:
                    while data := self._next_data():
                        for part in strike.through(data):
                            file.write(part)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(full)
                raise
            os.chmod(full, stat.S_IMODE(mode) & 0o777)
            os.utime(full, (self._mtime, self._mtime))
            if self._daemon.on_push:
                self._daemon.on_push(full)
            strike.end()
        except OSError as error:
            # Said at once, though the peer may be sending still; what comes is read and thrown away.
            self._fail(error.strerror or str(error))
            while self._next_data():
                pass
        else:
            self._stream.write(struct.pack("<4sI", b"OKAY", 0))

    def _next_data(self) -> bytes:
        """The next piece of the file that is being pushed; nothing after the last."""
        while self._receiving:
            ident, size = struct.unpack("<4sI", self._stream.read(8))
            if ident != b"DATA":
                self._receiving, self._mtime = False, size
            elif size:
                return self._stream.read(size)
        return b""

    def _send(self, path: str) -> None:
        strike = self._daemon.faults.strike("pull", path, self._stream.wait)
        try:
            strike.begin()
            with open(self._daemon.host_path(path), "rb") as file:
                for data in iter(lambda: file.read(_SYNC_CHUNK), b""):
                    for part in strike.through(data):
                        self._stream.write(struct.pack("<4sI", b"DATA", len(part)) + part)
            strike.end()
        except OSError as error:
            self._fail(error.strerror or str(error))
        else:
            self._stream.write(struct.pack("<4sI", b"DONE", 0))
