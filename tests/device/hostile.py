"""Phones and adb servers that mean no good: each answers a connection with a function of its own."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator

Answer = Callable[[socket.socket], None]


@contextlib.contextmanager
def listening(answer: Answer) -> Iterator[int]:
    """A port where `answer` gets each connection, in a thread; it ends when the other side hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))
    open_now: list[socket.socket] = []

    def serve(peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):
            answer(peer)

    def accept() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            open_now.append(peer)
            threading.Thread(target=serve, args=(peer,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for peer in open_now:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
        thread.join()


def packet(name: bytes, arg0: int, arg1: int, data: bytes = b"", size: int | None = None) -> bytes:
    """One of adb's packets; `size` is what it says of its length."""
    command = int.from_bytes(name, "little")
    said = len(data) if size is None else size
    return struct.pack("<6I", command, arg0, arg1, said, sum(data) & 0xFFFFFFFF, command ^ 0xFFFFFFFF) + data


def next_packet(peer: socket.socket) -> tuple[bytes, int, int, bytes]:
    """What the computer sends; `OSError` when it hung up."""
    command, arg0, arg1, size, _, _ = struct.unpack("<6I", exactly(peer, 24))
    return command.to_bytes(4, "little"), arg0, arg1, exactly(peer, size)


def exactly(peer: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = peer.recv(size - len(data))
        if not part:
            raise ConnectionResetError
        data += part
    return data


def phone(serve: Callable[[socket.socket, int], None], maxdata: int = 1 << 20) -> Answer:
    """A phone that lets everybody in, and answers what is opened with `serve(peer, remote)`."""

    def answer(peer: socket.socket) -> None:
        next_packet(peer)
        peer.sendall(packet(b"CNXN", 0x01000000, maxdata, b"device::features=shell_v2"))
        while True:
            name, remote, _, _ = next_packet(peer)
            if name == b"OPEN":
                peer.sendall(packet(b"OKAY", 7, remote))
                serve(peer, remote)

    return answer


def server(*services: bytes, then: Answer) -> Answer:
    """An adb server that says OKAY to each of these services (by what they begin with), and then does `then`."""

    def answer(peer: socket.socket) -> None:
        for service in services:
            asked = exactly(peer, int(exactly(peer, 4), 16))
            if not asked.startswith(service):
                then(peer)
                return
            peer.sendall(b"OKAY")
        then(peer)

    return answer
