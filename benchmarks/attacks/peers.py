"""Hostile ends of a connection on loopback: a phone's adb daemon, and an adb server, that answer as they like."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Self

_DRIP_S = 0.3
_BLOCK = bytes(1 << 16)
_MOST_BYTES = 6 << 30
"""Of what calls itself endless: a listener that takes it all has failed long before."""
_MOST_S = 150.0


class Peer:
    """Listens on a port of loopback; `answer` has each connection, until it returns or the other end goes."""

    def __init__(self, answer: Callable[[socket.socket], None]) -> None:
        self._answer = answer
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for peer in self._open:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
            peer.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open.append(peer)
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError, struct.error):
            self._answer(peer)
        with contextlib.suppress(OSError):
            peer.close()


def exactly(peer: socket.socket, size: int) -> bytes:
    """So many bytes. Raises `EOFError`."""
    data = bytearray()
    while len(data) < size:
        part = peer.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return bytes(data)


def silent(peer: socket.socket) -> None:
    """Take what comes and say nothing."""
    while peer.recv(1 << 16):
        pass


def drip(peer: socket.socket, data: bytes) -> None:
    """A byte now and then: each is an answer in time."""
    ends = time.monotonic() + _MOST_S
    position = 0
    while time.monotonic() < ends:
        peer.sendall(data[position : position + 1] or b"\0")
        position += 1
        time.sleep(_DRIP_S)


def endless(peer: socket.socket, piece: bytes) -> None:
    """The same over and over."""
    sent, many = 0, piece * max(1, (1 << 18) // len(piece))
    while sent < _MOST_BYTES:
        peer.sendall(many)
        sent += len(many)


def packet(
    name: bytes, arg0: int, arg1: int, data: bytes = b"", size: int | None = None, magic: int | None = None
) -> bytes:
    """A packet of adb's, whose header may lie about its length."""
    wire = int.from_bytes(name, "little")
    length = len(data) if size is None else size
    check = sum(data) & 0xFFFFFFFF
    return struct.pack("<6I", wire, arg0, arg1, length, check, wire ^ 0xFFFFFFFF if magic is None else magic) + data


BANNER = b"device::ro.product.name=fake;ro.product.model=Fake;ro.product.device=fake;features=cmd,stat_v2,shell_v2\0"
WELCOME = packet(b"CNXN", 0x01000001, 1 << 20, BANNER)

# What a phone does instead of the welcome.
GREETINGS: dict[str, Callable[[socket.socket], None]] = {
    "nothing": silent,
    "hangs up": lambda peer: None,
    "garbage": lambda peer: peer.sendall(random.Random(1).randbytes(4096)),
    "a web server": lambda peer: peer.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"),
    "a banner of 4 GB": lambda peer: endless_after(peer, packet(b"CNXN", 0x01000001, 1 << 20, size=0xFFFFFFFF)),
    "a banner of 64 MB": lambda peer: endless_after(peer, packet(b"CNXN", 0x01000001, 1 << 20, size=64 << 20)),
    "a banner that drips": lambda peer: drip(peer, WELCOME),
    "half a header": lambda peer: (peer.sendall(WELCOME[:11]), silent(peer))[0],
    "a wrong magic": lambda peer: peer.sendall(packet(b"CNXN", 1, 4096, BANNER, magic=1)),
    "questions without end": lambda peer: endless(peer, packet(b"AUTH", 1, 0, bytes(20))),
    "questions that drip": lambda peer: _repeat(peer, packet(b"AUTH", 1, 0, bytes(20))),
    "a token of no bytes": lambda peer: (peer.sendall(packet(b"AUTH", 1, 0)), silent(peer))[0],
    "a token of 1 MB": lambda peer: (peer.sendall(packet(b"AUTH", 1, 0, bytes(1 << 20))), silent(peer))[0],
    "acknowledgements without end": lambda peer: endless(peer, packet(b"OKAY", 1, 1)),
    "encryption": lambda peer: (peer.sendall(packet(b"STLS", 0x01000000, 0)), silent(peer))[0],
    "packets of 0 bytes": lambda peer: _stream(peer, lambda draw: packet(b"CNXN", 0x01000001, 0, b"")),
    "an unknown packet": lambda peer: (peer.sendall(packet(b"WHAT", 1, 1, b"x")), silent(peer))[0],
}


def endless_after(peer: socket.socket, head: bytes) -> None:
    """A header, then bytes without end."""
    peer.sendall(head)
    endless(peer, _BLOCK)


def _repeat(peer: socket.socket, data: bytes) -> None:
    ends = time.monotonic() + _MOST_S
    while time.monotonic() < ends:
        peer.sendall(data)
        time.sleep(_DRIP_S)


def _stream(peer: socket.socket, piece: Callable[[random.Random], bytes]) -> None:
    draw = random.Random(0)
    peer.sendall(WELCOME)
    _, _, _, size, *_ = struct.unpack("<6I", exactly(peer, 24))
    exactly(peer, size)
    for _ in range(100_000):
        peer.sendall(piece(draw))


Service = Callable[[socket.socket, int], None]
"""With the computer's number of the stream that it has opened."""


def _write(data: bytes, size: int | None = None) -> Service:
    return lambda peer, remote: peer.sendall(packet(b"WRTE", 1, remote, data, size))


def _then(*services: Service) -> Service:
    def serve(peer: socket.socket, remote: int) -> None:
        for service in services:
            service(peer, remote)

    return serve


def _sync(ident: bytes, data: bytes = b"", size: int | None = None) -> bytes:
    return struct.pack("<4sI", ident, len(data) if size is None else size) + data


def _okay(peer: socket.socket, remote: int) -> None:
    peer.sendall(packet(b"OKAY", 1, remote))


def _close(peer: socket.socket, remote: int) -> None:
    peer.sendall(packet(b"CLSE", 1, remote))


def _quiet(peer: socket.socket, remote: int) -> None:
    silent(peer)


def _endless_writes(data: bytes) -> Service:
    return lambda peer, remote: endless(peer, packet(b"WRTE", 1, remote, data))


def _mixed(seed: int) -> Service:
    """Packets of all sorts at random."""

    def serve(peer: socket.socket, remote: int) -> None:
        draw = random.Random(seed)
        for _ in range(2000):
            name = draw.choice((b"WRTE", b"WRTE", b"OKAY", b"CLSE", b"OPEN", b"AUTH", b"CNXN", b"SYNC"))
            data = draw.choice(
                (b"", _sync(b"DATA", b"x" * 9), _sync(b"FAIL", b"\x1b[2J"), draw.randbytes(50), _sync(b"OKAY"))
            )
            ids = draw.choice((1, 0, 7, 0xFFFFFFFF)), draw.choice((remote, remote, 0, 99))
            peer.sendall(packet(name, *ids, data, draw.choice((None, None, None, 1 << 20, 0))))
        silent(peer)

    return serve


# What a phone does once a stream to its shell or its files is opened.
SERVICES: dict[str, Service] = {
    "nothing": _quiet,
    "closes it": _close,
    "opens it, then nothing": _then(_okay, _quiet),
    "opens it, then closes": _then(_okay, _close),
    "output without end": _then(_okay, _endless_writes(b"x" * 60_000)),
    "empty output without end": _then(_okay, _endless_writes(b"")),
    "output of one byte without end": _then(_okay, _endless_writes(b"x")),
    "output of 4 GB in a packet": _then(
        _okay, lambda peer, remote: endless_after(peer, packet(b"WRTE", 1, remote, b"", 0xFFFFFFFF))
    ),
    "output that drips": _then(_okay, lambda peer, remote: _repeat(peer, packet(b"WRTE", 1, remote, b"x"))),
    "a packet that drips": _then(_okay, lambda peer, remote: drip(peer, packet(b"WRTE", 1, remote, bytes(5000)))),
    "acknowledgements without end": _then(_okay, lambda peer, remote: endless(peer, packet(b"OKAY", 1, remote))),
    "others' packets without end": _then(
        _okay, lambda peer, remote: endless(peer, packet(b"WRTE", 9, 99, b"x" * 4000))
    ),
    "control characters": _then(_okay, _write(b"\x1b[2J\x9b31m\x07" * 20), _close),
    "a lost line": _then(_okay, _write(b"12345"), lambda peer, remote: peer.close()),
    "files without end": _then(_okay, _endless_writes(_sync(b"DATA", bytes(60_000)))),
    "files of 4 GB in a piece": _then(_okay, _write(_sync(b"DATA", b"", 0xFFFFFFFF)), _endless_writes(b"x" * 60_000)),
    "files of no bytes without end": _then(_okay, _endless_writes(_sync(b"DATA") * 1000)),
    "files that drip": _then(
        _okay, lambda peer, remote: _repeat(peer, packet(b"WRTE", 1, remote, _sync(b"DATA", b"x")))
    ),
    "a refusal with control characters": _then(_okay, _write(_sync(b"FAIL", b"\x1b]0;x\x07no")), _close),
    "a refusal of 4 GB": _then(_okay, _write(_sync(b"FAIL", b"", 0xFFFFFFFF)), _endless_writes(b"x" * 60_000)),
    "done at once": _then(_okay, _okay, _write(_sync(b"DONE")), _close),
    "taken at once": _then(_okay, _okay, _write(_sync(b"OKAY")), _quiet),
    "an unknown answer": _then(_okay, _okay, _write(_sync(b"WHAT", b"x" * 100)), _quiet),
    **{f"packets at random, {seed}": _then(_okay, _mixed(seed)) for seed in range(12)},
}


def phone(greeting: str | None, service: str) -> Callable[[socket.socket], None]:
    """A phone with this greeting, or that welcomes everybody and answers every stream with this service."""

    def answer(peer: socket.socket) -> None:
        _, _, _, size, *_ = struct.unpack("<6I", exactly(peer, 24))
        exactly(peer, size)
        if greeting is not None:
            GREETINGS[greeting](peer)
            return
        peer.sendall(WELCOME)
        while True:
            name, remote, _, size, *_ = struct.unpack("<4s5I", exactly(peer, 24))
            exactly(peer, size)
            if name == b"OPEN":
                SERVICES[service](peer, remote)

    return answer


# What an adb server does with a request: the word in front says from which request on.
ANSWERS: dict[str, Callable[[socket.socket], None]] = {
    "nothing": silent,
    "hangs up": lambda peer: None,
    "garbage": lambda peer: peer.sendall(random.Random(2).randbytes(4096)),
    "OKAYzzzz": lambda peer: peer.sendall(b"OKAYzzzz"),
    "FAILxxxx": lambda peer: peer.sendall(b"FAILxxxx"),
    "FAIL-001": lambda peer: peer.sendall(b"FAIL-001x"),
    "OKAY+fff": lambda peer: peer.sendall(b"OKAY+fff" + b"x" * 5000),
    "OKAY_1_0": lambda peer: peer.sendall(b"OKAY1_00" + b"x" * 5000),
    "OKAYffff and a drip": lambda peer: (peer.sendall(b"OKAYffff"), drip(peer, b""))[0],
    "OKAYffff and no end": lambda peer: (peer.sendall(b"OKAYffff"), endless(peer, _BLOCK))[0],
    "a drip": lambda peer: drip(peer, b"OKAY"),
    "FAIL with control characters": lambda peer: peer.sendall(b"FAIL0010\x1b[2J\x9b31m\x07unautho"),
    "a listing with control characters": lambda peer: peer.sendall(b"OKAY%04x" % len(_LISTING) + _LISTING),
    "OKAY and bytes without end": lambda peer: (peer.sendall(b"OKAY"), endless(peer, _BLOCK))[0],
    "OKAY without end": lambda peer: endless(peer, b"OKAY"),
    "OKAY, then a file without end": lambda peer: _okay_then(peer, _sync(b"DATA", bytes(60_000))),
    "OKAY, then a file of no bytes without end": lambda peer: _okay_then(peer, _sync(b"DATA")),
    "OKAY, then a piece of 4 GB": lambda peer: (
        peer.sendall(b"OKAY" + _sync(b"DATA", b"", 0xFFFFFFFF)),
        endless(peer, _BLOCK),
    )[0],
    "OKAY, then a refusal with control characters": lambda peer: peer.sendall(b"OKAY" + _sync(b"FAIL", b"\x1b[2Jno")),
    "OKAY, then a drip": lambda peer: (peer.sendall(b"OKAY"), drip(peer, _sync(b"DATA", bytes(60_000))))[0],
}
_LISTING = b"127.0.0.1:5555 device product:x model:\x1b[2J\x9b31m device:y\n\x1b]0;x\x07 \x1b[31mevil\n" * 20


def _okay_then(peer: socket.socket, piece: bytes) -> None:
    peer.sendall(b"OKAY")
    endless(peer, piece)


def server(honest: int, name: str, serial: str) -> Callable[[socket.socket], None]:
    """An adb server that answers `honest` requests, of all connections together, as it should, and all others so."""
    answered: Iterator[int] = iter(range(1 << 30))

    def answer(peer: socket.socket) -> None:
        while True:
            request = exactly(peer, int(exactly(peer, 4), 16))
            if next(answered) >= honest:
                ANSWERS[name](peer)
                return
            texts = {b"host:devices-l": f"{serial} device product:x model:y device:z\n".encode(), b"host:features": b""}
            peer.sendall(b"OKAY")
            if request in texts or request.endswith(b":features"):
                text = texts.get(request, b"shell_v2,cmd")
                peer.sendall(b"%04x" % len(text) + text)

    return answer
