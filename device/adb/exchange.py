"""One exchange with a phone or an adb server: how long it may take in all, and how many bytes may come."""

from __future__ import annotations

import socket
import time

from adb_shell.transport.base_transport import BaseTransport
from amc_latency.android_bench.safe.limits import (
    ANSWER_BYTES,
    PACKET_BYTES,
    SLOWEST_ANSWER_BYTES_S,
    SLOWEST_PUSH_BYTES_S,
)
from amc_latency.device.base import DeviceError


class TooMuchError(DeviceError):
    """More bytes than any honest answer has."""


class Exchange:
    """What is left of an exchange that begins now.

    It may take `answer_s`, and beyond that as long as the bytes that passed take on a slow connection: time between
    bytes alone would let a trickle go on for ever. `sends` is how many bytes go out.
    """

    def __init__(self, answer_s: float, sends: int = 0, most_bytes: int = ANSWER_BYTES) -> None:
        self._end_s = time.monotonic() + answer_s + sends / SLOWEST_PUSH_BYTES_S
        self._most_bytes = most_bytes
        self._received = 0

    def left_s(self, wanted_s: float | None = None) -> float:
        """Seconds to wait for the next byte, at most `wanted_s`. Raises `TimeoutError` when none are left."""
        left_s = self._end_s + self._received / SLOWEST_ANSWER_BYTES_S - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("it takes too long in all")
        return left_s if wanted_s is None else min(left_s, wanted_s)

    def received(self, count: int) -> None:
        """So many bytes came. Raises `TooMuchError`."""
        self._received += count
        if self._received > self._most_bytes:
            raise TooMuchError(f"it sends more than {self._most_bytes / 1e6:g} MB, which no honest answer has")


class BoundedPeer:
    """A connected socket within an exchange; the socket's own time-out stays the time between bytes."""

    def __init__(self, peer: socket.socket, exchange: Exchange) -> None:
        self._peer = peer
        self._exchange = exchange
        self._between_s = peer.gettimeout()

    def sendall(self, data: bytes) -> None:
        """Send all of it. Raises `OSError`."""
        # Python counts this time-out for all of the data.
        self._peer.settimeout(self._exchange.left_s())
        self._peer.sendall(data)

    def recv(self, most: int, wait_s: float | None = None) -> bytes:
        """Some bytes, none at the end of the connection; `wait_s` in place of the socket's time-out."""
        self._peer.settimeout(self._exchange.left_s(self._between_s if wait_s is None else wait_s))
        data = self._peer.recv(most)
        self._exchange.received(len(data))
        return data

    def exactly(self, size: int) -> bytes:
        """So many bytes. Raises `ConnectionResetError` if the connection ends before."""
        data = bytearray()
        while len(data) < size:
            part = self.recv(size - len(data))
            if not part:
                raise ConnectionResetError("it ended too early")
            data += part
        return bytes(data)


class BoundedLink(BaseTransport):
    """What carries bytes to a phone, for the adb library, which bounds neither a packet nor a whole exchange.

    `exchange` is the one that goes on; each use of the library begins with a new one.
    """

    def __init__(self, link: BaseTransport) -> None:
        self._link = link
        self.exchange = Exchange(0.0)

    def connect(self, transport_timeout_s: float | None) -> None:
        """Make the connection."""
        self._link.connect(self.exchange.left_s(transport_timeout_s))

    def close(self) -> None:
        """End it."""
        self._link.close()

    def bulk_read(self, numbytes: int, transport_timeout_s: float | None) -> bytes:
        """Some bytes, at most so many. Raises `TooMuchError` for a packet that no phone sends."""
        if numbytes > PACKET_BYTES:
            raise TooMuchError(f"it announces a packet of {numbytes / 1e6:,.0f} MB")
        data = self._link.bulk_read(numbytes, self.exchange.left_s(transport_timeout_s))
        self.exchange.received(len(data))
        return data

    def bulk_write(self, data: bytes, transport_timeout_s: float | None) -> int:
        """Send all bytes."""
        return self._link.bulk_write(data, self.exchange.left_s(transport_timeout_s))
