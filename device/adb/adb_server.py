"""A phone through a running adb server: for paired wireless phones, and those on USB that the server holds.

A client of our own, of the four kinds of request that are needed: `adbutils` starts servers unasked, takes the end
of a connection for the end of the output, and sleeps 10 ms after each request. Described in adb's "SERVICES.TXT" and
"SYNC.TXT".
"""

from __future__ import annotations

import os
import re
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from amc_latency.android_bench.safe.text import shown, shown_line
from amc_latency.device.adb.adb_transport import ANSWER_S, AdbTransport, Refused, unauthorized
from amc_latency.device.adb.exchange import BoundedPeer, Exchange, TooMuchError
from amc_latency.device.adb.transport import TransportError

_CHUNK = 64 << 10
"""most bytes in one piece of a file"""
_SHORT_COMMAND, _LONG_COMMAND = 4000, 60_000
"""bytes of a command: what phones before Android 7 take in a packet; and what a request to the server may hold"""


class NoServerError(TransportError):
    """No adb server runs."""


class ServerTransport(AdbTransport):
    """`serial` as `adb devices` shows it; an address that is not there yet is given to the server to connect to."""

    def __init__(self, serial: str, answer_s: float = ANSWER_S) -> None:
        super().__init__(serial, answer_s)
        self._command_limit = _SHORT_COMMAND

    def _connect(self) -> None:
        deadline = time.monotonic() + self.answer_s
        state = self._state()
        if ":" in self.serial and state not in ("device", "unauthorized"):
            # A server tries to get back a phone that it lost, but at long intervals.
            if state is not None:
                with suppress(TransportError):
                    self._ask(f"host:disconnect:{self.serial}")
            said = self._ask(f"host:connect:{self.serial}")
            while (state := self._state()) != "device" and _is_coming(said) and time.monotonic() < deadline:
                time.sleep(0.02)
                if state is None:
                    # What was disconnected is gone only a while later, and until then "already connected".
                    said = self._ask(f"host:connect:{self.serial}")
            if state is None:
                raise TransportError(f"the adb server gets no connection to {self.serial}: {shown_line(said.strip())}")
        if state != "device":
            raise not_ready(self.serial, state)
        features = self._ask(f"host-serial:{self.serial}:features")
        self._command_limit = _LONG_COMMAND if "shell_v2" in features.split(",") else _SHORT_COMMAND

    def _disconnect(self) -> None:
        pass

    def _longest_command(self) -> int:
        return self._command_limit

    def _execute(self, command: str, timeout_s: float) -> bytes:
        output = bytearray()
        with self._service(f"exec:{command}", Exchange(timeout_s)) as peer:
            while part := peer.recv(1 << 16, wait_s=timeout_s):
                output += part
        return bytes(output)

    def _send(self, path: str, content: bytes, mode: int) -> None:
        target = f"{path},{0o100000 | mode}".encode()
        with self._service("sync:", Exchange(self.answer_s, sends=len(content))) as peer:
            try:
                peer.sendall(struct.pack("<4sI", b"SEND", len(target)) + target)
                for start in range(0, len(content), _CHUNK):
                    part = content[start : start + _CHUNK]
                    peer.sendall(struct.pack("<4sI", b"DATA", len(part)) + part)
                peer.sendall(struct.pack("<4sI", b"DONE", int(time.time())))
            except ConnectionError:
                pass  # the phone may have said why before it hung up
            ident, reason = _sync_answer(peer)
            if ident != b"OKAY":
                raise Refused(reason.decode(errors="replace"))

    def _receive(self, path: str) -> bytes:
        name = path.encode()
        content = bytearray()
        with self._service("sync:", Exchange(self.answer_s)) as peer:
            peer.sendall(struct.pack("<4sI", b"RECV", len(name)) + name)
            while True:
                ident, data = _sync_answer(peer)
                if ident == b"DONE":
                    return bytes(content)
                if ident != b"DATA":
                    raise Refused(data.decode(errors="replace"))
                content += data

    def _state(self) -> str | None:
        return server_phones(self.answer_s).get(self.serial)

    def _ask(self, request: str) -> str:
        """A text that the server answers with."""
        with _server(self.answer_s, Exchange(self.answer_s)) as peer, self._as_transport_errors():
            _request(peer, request)
            return _text(peer)

    @contextmanager
    def _service(self, service: str, exchange: Exchange) -> Iterator[BoundedPeer]:
        """A connection to one of the phone's services."""
        with _server(self.answer_s, exchange) as peer, self._as_transport_errors():
            _request(peer, f"host:transport:{self.serial}")
            _request(peer, service)
            yield peer

    @contextmanager
    def _as_transport_errors(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise TransportError(f"{self.serial} does not answer") from error
        except OSError as error:
            raise TransportError(f"the connection to {self.serial} failed: {error}") from error
        except TooMuchError as error:
            raise TooMuchError(f"{self.serial}: {error}") from error
        except _FailedError as error:
            raise not_ready(self.serial, "unauthorized" if "unauthorized" in str(error) else str(error)) from error


def _is_coming(said: str) -> bool:
    """Whether the server's answer to `connect` lets hope that the phone will be there soon."""
    return "connected to" in said or "authenticate" in said


def server_phones(timeout_s: float = ANSWER_S) -> dict[str, str]:
    """Phones that a running adb server sees: serial to state. Raises `TransportError`, and never starts a server."""
    with _server(timeout_s, Exchange(timeout_s)) as peer:
        try:
            _request(peer, "host:devices-l")
            listing = _text(peer)
        except (OSError, _FailedError) as error:
            raise TransportError(f"the adb server does not answer: {error or type(error).__name__}") from error
    # "no permissions (...); see [...]" is the one state of more than a word.
    lines = (re.match(r"(\S+)\s+(no permissions|\S+)", line) for line in listing.splitlines())
    return {line[1]: line[2] for line in lines if line}


class _FailedError(Exception):
    """The server answered FAIL, and why."""


def not_ready(serial: str, state: str | None) -> TransportError:
    """What a state other than `device` means, and what to do; None is a phone that is not seen."""
    match state:
        case "unauthorized":
            return unauthorized(serial)
        case "offline":
            return TransportError(f"{serial} is offline: unplug it and plug it in again, or `adb reconnect offline`")
        case "no permissions":
            return TransportError(
                f"this computer's user may not use {serial}: see https://developer.android.com/studio/run/device"
            )
        case None:
            return TransportError(f"the adb server does not see {serial}: look at `adb devices`")
    return TransportError(f"{serial} is not ready: {state}")


def _server_address() -> tuple[socket.AddressFamily, str | tuple[str, int]]:
    """Where adb itself would look for its server. Raises `TransportError` for an address that is none."""
    asked = os.environ.get("ADB_SERVER_SOCKET", "")
    if asked.startswith(("localfilesystem:", "localabstract:")):
        kind, _, name = asked.partition(":")
        return socket.AF_UNIX, "\0" * (kind == "localabstract") + name
    host = os.environ.get("ANDROID_ADB_SERVER_ADDRESS") or "127.0.0.1"
    port = os.environ.get("ANDROID_ADB_SERVER_PORT") or "5037"
    if asked:
        host, _, port = asked.removeprefix("tcp:").rpartition(":")
    if not port.isdigit():
        raise NoServerError(f"{asked or port} is no address of an adb server: it should look like tcp:localhost:5037")
    return socket.AF_INET, (host or "127.0.0.1", int(port))


@contextmanager
def _server(timeout_s: float, exchange: Exchange) -> Iterator[BoundedPeer]:
    """A connection to the adb server, for one exchange. Raises `NoServerError`."""
    family, address = _server_address()
    try:
        if isinstance(address, tuple):
            peer = socket.create_connection(address, timeout_s)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            peer = socket.socket(family)
            peer.settimeout(timeout_s)
            peer.connect(address)
    except OSError as error:
        where = ":".join(map(str, address)) if isinstance(address, tuple) else address
        raise NoServerError(f"no adb server at {where}: start it by `adb start-server`") from error
    with peer:
        yield BoundedPeer(peer, exchange)


def _request(peer: BoundedPeer, text: str) -> None:
    data = text.encode()
    peer.sendall(f"{len(data):04x}".encode() + data)
    status = peer.exactly(4)
    if status != b"OKAY":
        raise _FailedError(shown_line(_text(peer)) if status == b"FAIL" else f"unexpected answer {status!r}")


def _text(peer: BoundedPeer) -> str:
    size = peer.exactly(4)
    if not re.fullmatch(b"[0-9a-fA-F]{4}", size):
        raise ConnectionAbortedError(f"it does not speak adb's language: {size!r} is no length")
    return shown(peer.exactly(int(size, 16)).decode(errors="replace").replace("\t", " "))


def _sync_answer(peer: BoundedPeer) -> tuple[bytes, bytes]:
    """The kind of an answer about files, and its data."""
    ident, size = struct.unpack("<4sI", peer.exactly(8))
    if ident not in (b"OKAY", b"FAIL", b"DATA", b"DONE") or (size > _CHUNK and ident in (b"FAIL", b"DATA")):
        raise ConnectionAbortedError(f"unexpected answer {ident!r}")
    return ident, peer.exactly(size) if ident in (b"FAIL", b"DATA") else b""
