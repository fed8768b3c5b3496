"""Phones and adb servers that send too much, too long, too slowly or nonsense: an error in one line, soon."""

from __future__ import annotations

import re
import socket
import struct
import time
import tracemalloc
from collections.abc import Callable
from importlib import import_module

import pytest
from amc_latency.android_bench.safe.limits import ANSWER_BYTES
from amc_latency.device.adb.adb_direct import DirectTransport
from amc_latency.device.adb.adb_server import ServerTransport, server_phones
from amc_latency.device.adb.adb_transport import AdbTransport
from amc_latency.device.adb.exchange import BoundedPeer, Exchange, TooMuchError
from amc_latency.device.adb.transport import TransportError
from amc_latency.device.base import DeviceError

from tests.device.hostile import exactly, listening, next_packet, packet, phone, server

pytestmark = [pytest.mark.usefixtures("own_adb"), pytest.mark.timeout(60)]
BLOCK = b"x" * (1 << 20)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of small packets is not given its 16 seconds."""
    monkeypatch.setattr(import_module("amc_latency.device.adb.exchange"), "SLOWEST_ANSWER_BYTES_S", 5e6)


def failed(act: Callable[[], object]) -> str:
    """What the user would read. Nothing may hold much more than an answer may have, and nothing may hang."""
    tracemalloc.start()
    with pytest.raises(DeviceError) as told:
        act()
    assert tracemalloc.get_traced_memory()[1] < 8 * ANSWER_BYTES
    tracemalloc.stop()
    assert re.fullmatch(r"[ -~]+", str(told.value)), "one line without control characters"
    return str(told.value)


def direct(port: int) -> DirectTransport:
    return DirectTransport(f"127.0.0.1:{port}", answer_s=0.2)


def write_for_ever(peer: socket.socket, remote: int, data: bytes) -> None:
    while True:
        peer.sendall(packet(b"WRTE", 7, remote, data))
        while next_packet(peer)[0] != b"OKAY":
            pass


def drip(peer: socket.socket) -> None:
    while True:
        peer.sendall(b"\0")
        time.sleep(0.05)


GREETINGS = {
    "a packet of 4 GB": (lambda peer: peer.sendall(packet(b"CNXN", 1, 4096, size=0xFFFFFFFF)), "a packet of 4,295 MB"),
    "bytes one by one": (drip, "does not answer"),
    "half a greeting, bytes one by one": (
        lambda peer: (peer.sendall(packet(b"CNXN", 1, 4096, size=100)), drip(peer)),
        "does not answer",
    ),
    "packets that nobody asked for": (
        lambda peer: [peer.sendall(packet(b"WRTE", 1, 1, BLOCK)) for _ in range(1000)],
        "more than 16 MB|does not answer",
    ),
    "a token of the wrong length": (lambda peer: peer.sendall(packet(b"AUTH", 1, 0, b"short")), "failed"),
    "packets of nothing": (lambda peer: peer.sendall(packet(b"CNXN", 1, 0, b"device::")), "packets of 0 bytes only"),
    "escape sequences": (lambda peer: peer.sendall(b"\x1b]0;owned\x07" * 10), "does not speak adb's language"),
}


@pytest.mark.parametrize("greeting", GREETINGS)
def test_greetings(greeting: str) -> None:
    answer, words = GREETINGS[greeting]

    def serve(peer: socket.socket) -> None:
        next_packet(peer)
        answer(peer)
        while peer.recv(1 << 16):
            pass

    with listening(serve) as port:
        assert re.search(words, failed(direct(port).connect))


def send_files(peer: socket.socket, remote: int, data: bytes) -> None:
    """The phone takes the request, and answers with this for ever."""
    next_packet(peer)
    peer.sendall(packet(b"OKAY", 7, remote))
    write_for_ever(peer, remote, data)


def sync_pieces(size: int, data: bytes) -> bytes:
    return struct.pack("<4sI", b"DATA", size) + data


SERVICES = {
    "endless output": (lambda peer, remote: write_for_ever(peer, remote, BLOCK), "more than 16 MB"),
    "output byte by byte": (lambda peer, remote: slow_writes(peer, remote), "does not answer"),
    "a packet of 4 GB": (
        lambda peer, remote: peer.sendall(packet(b"WRTE", 7, remote, size=0xFFFFFFFF)),
        "a packet of 4,295 MB",
    ),
    "packets of other streams": (
        lambda peer, remote: [peer.sendall(packet(b"WRTE", n, 99, BLOCK)) for n in range(1000)],
        "more than 16 MB|does not answer",
    ),
    "nothing": (lambda peer, remote: None, "does not answer"),
}


def slow_writes(peer: socket.socket, remote: int) -> None:
    while True:
        peer.sendall(packet(b"WRTE", 7, remote, b"x"))
        time.sleep(0.05)


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("act", ["run", "pull", "push"])
def test_services(service: str, act: str) -> None:
    serve, words = SERVICES[service]
    with listening(phone(serve)) as port:
        transport = direct(port)
        transport.connect()
        acts = {
            "run": lambda: transport.run("true", timeout_s=5.0 if "endless" in service else 0.1),
            "pull": lambda: transport.pull("/x"),
            "push": lambda: transport.push({"/x": b"y"}),
        }
        said = failed(acts[act])
        # Without a header, a stream of `x` is no file, and what is pushed is never acknowledged.
        assert re.search(words if act == "run" else f"{words}|acknowledges nothing|failed|does not answer", said)
        with pytest.raises(TransportError, match="is not connected"):
            transport.run("true")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (sync_pieces(len(BLOCK) - 8, BLOCK[8:]), "more than 16 MB"),
        (sync_pieces(0xFFFFFFFF, b"x"), "a piece of a file of 4,295 MB"),
        (sync_pieces(0, b"") * 100_000, "more than 16 MB|does not answer"),
        (struct.pack("<4sI", b"FAIL", 0xFFFFFFF0), "a piece of a file"),
        (struct.pack("<4sI", b"FAIL", 8) + b"\x1b]0;me\x07\n", r"cannot read /x: \\x1b\]0;me\\x07\\n"),
    ],
    ids=["endless", "huge piece", "empty pieces", "huge reason", "escape sequences"],
)
def test_files(data: bytes, words: str) -> None:
    with listening(phone(lambda peer, remote: send_files(peer, remote, data))) as port:
        transport = direct(port)
        transport.connect()
        assert re.search(words, failed(lambda: transport.pull("/x")))


def test_a_phone_that_takes_any_packet_gets_no_buffer_of_that_size() -> None:
    def serve(peer: socket.socket, remote: int) -> None:
        send_files(peer, remote, struct.pack("<4sI", b"FAIL", 2) + b"no")

    with listening(phone(serve, maxdata=0xFFFFFFFF)) as port:
        transport = direct(port)
        transport.connect()
        assert failed(lambda: transport.pull("/x")).endswith("cannot read /x: no")


@pytest.mark.parametrize("code", ["9" * 5000, "\N{ARABIC-INDIC DIGIT ONE}", "-1", "1.0", "0x1"])
def test_exit_codes_that_no_shell_has(code: str) -> None:
    class Said(DirectTransport):
        def _execute(self, command: str, timeout_s: float) -> bytes:
            nonce = re.search(r"\\n%s %s %s %s- %s\\n\" ([0-9a-f]{16})", command)
            assert nonce is not None
            return f"\n{nonce[1]} {code} {code} - {nonce[1]}\n".encode()

        def _connect(self) -> None:
            pass

        def _longest_command(self) -> int:
            return 10_000

    transport = Said("phone")
    transport.connect()
    with pytest.raises(TransportError, match="the connection was lost in the middle of a command"):
        transport.run("true")


ANSWERS = {
    "OKAYzzzz": (b"OKAYzzzz", "b'zzzz' is no length"),
    "OKAY and a sign": (b"OKAY+fff", "is no length"),
    "OKAY and a space": (b"OKAY fff", "is no length"),
    "OKAY and hexadecimal": (b"OKAY0x10", "is no length"),
    "OKAY and an underline": (b"OKAY1_00", "is no length"),
    "FAILxxxx": (b"FAILxxxx", "is no length"),
    "FAIL and escapes": (b"FAIL0007\x1b[2Ja\nb", r"\\x1b\[2Ja\\nb"),
    "another word": (b"\x1b[2J", r"unexpected answer b'\\x1b\[2J'"),
    "not all of it": (b"OKAY00ffabc", "it ended too early"),
}


def to_server(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setenv("ADB_SERVER_SOCKET", f"tcp:127.0.0.1:{port}")


@pytest.mark.parametrize("answer", ANSWERS)
def test_answers_of_a_server(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data, words = ANSWERS[answer]

    def serve(peer: socket.socket) -> None:
        exactly(peer, int(exactly(peer, 4), 16))
        peer.sendall(data)

    with listening(serve) as port:
        to_server(monkeypatch, port)
        assert re.search(words, failed(server_phones))
        assert re.search(words, failed(ServerTransport("HT1").connect))


def test_a_server_that_trickles(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(server(b"host:", then=lambda peer: (peer.sendall(b"ffff"), drip(peer)))) as port:
        to_server(monkeypatch, port)
        assert "the adb server does not answer" in failed(lambda: server_phones(0.2))
        assert "does not answer" in failed(ServerTransport("HT1", answer_s=0.2).connect)


def test_names_in_a_server_s_list_are_shown_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    listing = "\x1b]0;x\x07 device usb:1\nHT2\t\x1b[2J\nHT3\u202e device\n".encode()
    with listening(server(b"host:", then=lambda peer: peer.sendall(b"%04x" % len(listing) + listing))) as port:
        to_server(monkeypatch, port)
        assert server_phones() == {"\\x1b]0;x\\x07": "device", "HT2": "\\x1b[2J", "HT3\\u202e": "device"}


def held_by_a_server(monkeypatch: pytest.MonkeyPatch, port: int) -> AdbTransport:
    """A transport that has connected, as the tests here are about what comes later."""
    to_server(monkeypatch, port)
    transport = ServerTransport("HT1", answer_s=0.2)
    transport._connected = True
    return transport


def pour(peer: socket.socket, data: bytes) -> None:
    while True:
        peer.sendall(data)


@pytest.mark.parametrize(
    ("then", "words"),
    [
        (lambda peer: pour(peer, BLOCK), "more than 16 MB"),
        (drip, "does not answer"),
        (lambda peer: peer.recv(1 << 20) and time.sleep(2), "does not answer"),
    ],
    ids=["endless", "byte by byte", "nothing"],
)
def test_a_served_phone_s_output(
    then: Callable[[socket.socket], None], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(server(b"host:transport:", b"exec:", then=then)) as port:
        transport = held_by_a_server(monkeypatch, port)
        assert words in failed(lambda: transport.run("true", timeout_s=5.0 if "MB" in words else 0.1))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (sync_pieces(1 << 16, BLOCK[: 1 << 16]), "more than 16 MB"),
        (sync_pieces(0xFFFFFFFF, b"x"), "unexpected answer b'DATA'"),
        (sync_pieces(0, b""), "HT1"),
        (struct.pack("<4sI", b"FAIL", 3) + b"\x1b[J", r"cannot read /x: \x1b[J"),
    ],
    ids=["endless", "huge piece", "empty pieces", "escape sequences"],
)
def test_a_served_phone_s_files(data: bytes, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(server(b"host:transport:", b"sync:", then=lambda peer: pour(peer, data))) as port:
        transport = held_by_a_server(monkeypatch, port)
        assert words in failed(lambda: transport.pull("/x"))


def test_time_and_bytes_of_an_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(import_module("amc_latency.device.adb.exchange"), "SLOWEST_PUSH_BYTES_S", 100_000)
    monkeypatch.setattr(import_module("amc_latency.device.adb.exchange"), "SLOWEST_ANSWER_BYTES_S", 100_000)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    exchange = Exchange(10.0, sends=500_000, most_bytes=300_000)
    assert exchange.left_s() == pytest.approx(15.0)  # 500,000 / 100,000 a second
    exchange.received(200_000)
    now[0] = 16.0
    assert exchange.left_s() == pytest.approx(1.0)  # 10 + 5 + 2 - 16
    assert exchange.left_s(0.25) == 0.25
    exchange.received(100_000)
    with pytest.raises(TooMuchError, match=r"more than 0\.3 MB"):
        exchange.received(1)
    now[0] = 18.1
    with pytest.raises(TimeoutError):
        exchange.left_s()


def test_honest_bytes_pass() -> None:
    with (
        listening(lambda peer: peer.sendall(b"0123456789")) as port,
        socket.create_connection(("127.0.0.1", port), 5) as peer,
    ):
        bounded = BoundedPeer(peer, Exchange(5.0, most_bytes=10))
        assert bounded.exactly(10) == b"0123456789"
        assert bounded.recv(1) == b""
