"""Which phones there are, which way to them is taken, and what is said when there is none."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from adb_shell.auth.keygen import keygen
from amc_latency.device.adb import adb, adb_direct
from amc_latency.device.adb.adb import Attached, attached, open_transport
from amc_latency.device.adb.adb_direct import DirectTransport, TcpLink, address_of
from amc_latency.device.adb.adb_server import ServerTransport, server_phones
from amc_latency.device.adb.transport import TransportError, UnauthorizedError
from hypothesis import given
from hypothesis import strategies as st

from tests.fake_phone.adbd import FakeAdbd
from tests.fake_phone.faults import Fault

pytestmark = pytest.mark.usefixtures("own_adb")
Adb = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> int:
    """A port where no adb server listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
    return port


@pytest.fixture
def scripted_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """A server that gives its answers in turn, whatever it is asked, and the last one ever after."""
    listener = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setenv("ADB_SERVER_SOCKET", f"tcp:localhost:{listener.getsockname()[1]}")
    answers: list[bytes] = []

    def serve() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer:
                peer.recv(1000)
                peer.sendall(answers.pop(0) if len(answers) > 1 else answers[0])

    def say(*texts: bytes) -> None:
        answers[:] = [b"OKAY" + b"%04x" % len(text) + text for text in texts]

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield say
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_an_address_is_connected_to_directly(tmp_path: Path, no_server: int) -> None:
    with FakeAdbd(tmp_path) as daemon:
        transport = open_transport(daemon.address)
        assert isinstance(transport, DirectTransport)
        assert transport.serial == daemon.address
        assert transport.run("echo hello").output == "hello\n"
        transport.close()


def test_through_a_server_when_that_is_asked(tmp_path: Path, adb: Adb) -> None:
    with FakeAdbd(tmp_path) as daemon:
        transport = open_transport(daemon.address, "server")
        assert isinstance(transport, ServerTransport)
        assert Attached(daemon.address, "device", "server") in attached()
        transport.close()
        adb("disconnect", daemon.address)
    assert daemon.address not in [phone.serial for phone in attached()]


def test_no_server_is_started(no_server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert attached() == []
    with pytest.raises(TransportError, match=rf"^no adb server at 127\.0\.0\.1:{no_server}: start it by"):
        open_transport("abc", "server")
    with pytest.raises(TransportError, match="there is no phone abc: none is attached"):
        open_transport("abc")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", no_server))
    monkeypatch.setenv("ADB_SERVER_SOCKET", "tcp:nonsense")
    with pytest.raises(TransportError, match="is no address of an adb server"):
        open_transport("abc", "server")


def test_where_nothing_listens_is_said_in_one_line(no_server: int) -> None:
    with pytest.raises(TransportError, match=rf"^nothing listens at 127\.0\.0\.1:{no_server}: [^\n]*$"):
        open_transport(f"127.0.0.1:{no_server}")


def test_what_listens_may_be_something_else(tmp_path: Path, no_server: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.recv(24)
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(TransportError, match="does not speak adb's language"):
            open_transport(f"127.0.0.1:{listener.getsockname()[1]}")
        thread.join()


@pytest.mark.parametrize("transport", ["direct", "server"])
def test_a_stranger_is_told_to_tap_allow(tmp_path: Path, adb: Adb, transport: Any) -> None:
    keygen(str(tmp_path / "other"))
    with FakeAdbd(tmp_path, auth="known", known_keys=[(tmp_path / "other.pub").read_text()]) as daemon:
        with pytest.raises(UnauthorizedError, match=rf"^{daemon.address} does not know.*tap Allow.*"):
            open_transport(daemon.address, transport, answer_s=1.0)
        adb("disconnect", daemon.address)


def test_the_key_is_made_once_and_shared_with_adb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDROID_USER_HOME", str(tmp_path / "keys"))
    with FakeAdbd(tmp_path / "phone", auth="ask") as daemon:
        for _ in range(2):
            open_transport(daemon.address, "direct").close()
        assert len(daemon.known_keys) == 1
        os.unlink(tmp_path / "keys" / "adbkey.pub")
        daemon.auth = "known"
        open_transport(daemon.address, "direct").close()
        assert len(daemon.known_keys) == 1
    assert (tmp_path / "keys" / "adbkey").stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(tmp_path / "keys")) == ["adbkey", "adbkey.pub"]
    if not shutil.which("openssl"):
        pytest.skip("needs openssl: apt-get install openssl")
    # As older versions of adb wrote it.
    old = ["openssl", "rsa", "-traditional", "-in", str(tmp_path / "keys" / "adbkey")]
    text = subprocess.run(old, check=True, capture_output=True, text=True).stdout
    assert text.startswith("-----BEGIN RSA PRIVATE KEY-----")
    (tmp_path / "keys" / "adbkey").write_text(text)
    with FakeAdbd(tmp_path / "phone", auth="known", known_keys=[(tmp_path / "keys" / "adbkey.pub").read_text()]) as d:
        open_transport(d.address, "direct").close()


def test_encryption_needs_a_server(tmp_path: Path, no_server: int) -> None:
    with FakeAdbd(tmp_path, auth="tls") as daemon, pytest.raises(TransportError) as told:
        open_transport(daemon.address)
    assert "adb pair" in str(told.value)
    assert "`transport='server'`" in str(told.value)


def test_encryption_falls_back_to_a_server_that_has_the_phone(tmp_path: Path, adb: Adb) -> None:
    with FakeAdbd(tmp_path) as daemon:
        adb("connect", daemon.address)
        daemon.auth = "tls"  # for newcomers
        transport = open_transport(daemon.address)
        assert isinstance(transport, ServerTransport)
        assert transport.run("echo hello").output == "hello\n"
        transport.close()
        adb("disconnect", daemon.address)


def test_a_phone_that_comes_back_is_found_by_the_server_too(tmp_path: Path, adb: Adb) -> None:
    with FakeAdbd(tmp_path) as daemon:
        transport = open_transport(daemon.address, "server", answer_s=3.0)
        daemon.faults.add(Fault("cut", seconds=60))
        with pytest.raises(TransportError):
            transport.run("true")
        with pytest.raises(TransportError, match=daemon.address):
            transport.connect()
        daemon.cut()  # and back at once
        transport.connect()
        assert transport.run("echo back").output == "back\n"
        transport.close()
        adb("disconnect", daemon.address)


def test_a_server_that_has_not_let_go_of_a_phone_yet_is_asked_again(scripted_server: Callable[..., None]) -> None:
    phone = b"192.0.2.1:5555"
    transport = ServerTransport(phone.decode())
    listed, disconnected, refused = phone + b" offline\n", b"disconnected " + phone, b"already connected to " + phone
    scripted_server(
        listed, disconnected, refused, b"", refused, b"", b"connected to it", phone + b" device\n", b"shell_v2"
    )
    transport.connect()
    scripted_server(b"", b"failed to connect to '192.0.2.1:5555': No route to host", b"")
    with pytest.raises(TransportError, match=r"no connection to .*: failed to connect"):
        transport.connect()


def test_states_are_told_apart(scripted_server: Callable[..., None]) -> None:
    scripted_server(
        b"HT1             device usb:1-1 product:sailfish model:Pixel device:sailfish transport_id:1\n"
        b"HT2             unauthorized usb:1-2 transport_id:2\n"
        b"HT3             offline usb:1-3 transport_id:3\n"
        b"HT4             no permissions (user in plugdev group; are your udev rules wrong?); see [http://x] usb:1-4\n"
    )
    assert attached() == [
        Attached("HT1", "device", "server"),
        Attached("HT2", "unauthorized", "server"),
        Attached("HT3", "offline", "server"),
        Attached("HT4", "no permissions", "server"),
    ]
    with pytest.raises(UnauthorizedError, match="HT2 does not know this computer yet"):
        open_transport("HT2")
    with pytest.raises(TransportError, match="HT3 is offline: unplug it"):
        open_transport("HT3")
    with pytest.raises(TransportError, match="may not use HT4"):
        open_transport("HT4")
    with pytest.raises(TransportError, match="there is no phone HT5: attached are: HT1, HT2, HT3, HT4"):
        open_transport("HT5")


def on_usb(monkeypatch: pytest.MonkeyPatch, phones: dict[str, object]) -> None:
    """What libusb would find; a socket takes a cable's place."""
    for module in (adb, adb_direct):
        monkeypatch.setattr(module, "usb_phones", lambda: phones)


def test_a_phone_on_usb_needs_no_server(tmp_path: Path, no_server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeAdbd(tmp_path, auth="ask") as daemon:
        on_usb(monkeypatch, {"HT9": TcpLink(*daemon.address.split(":")), "usb:1-4": None})
        assert attached() == [Attached("HT9", "device", "usb"), Attached("usb:1-4", "no permissions", "usb")]
        transport = open_transport("HT9")
        assert isinstance(transport, DirectTransport)
        assert transport.run("echo hello").output == "hello\n"
        transport.close()
        with pytest.raises(TransportError, match="may not use usb:1-4"):
            open_transport("usb:1-4")
        with pytest.raises(TransportError, match="HT8 is not on USB"):
            open_transport("HT8", "direct")


def test_a_phone_that_a_server_holds_is_reached_through_it(
    scripted_server: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_usb(monkeypatch, {"HT1": object()})
    scripted_server(b"HT1 offline usb:1-1\n")
    assert attached() == [Attached("HT1", "offline", "server")]
    with pytest.raises(TransportError, match="HT1 is offline"):
        open_transport("HT1")


@pytest.mark.parametrize(
    ("error", "hint"), [("BUSY [-6]", "use `transport='server'`"), ("ACCESS [-3]", "may not use it")]
)
def test_errors_of_libusb_say_what_to_do(error: str, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Held(TcpLink):
        def connect(self, transport_timeout_s: float | None) -> None:
            raise Exception(f"LIBUSB_ERROR_{error}")

    on_usb(monkeypatch, {"HT1": Held("", 0)})
    with pytest.raises(TransportError, match=hint):
        open_transport("HT1", "direct")


def test_a_server_that_talks_nonsense_is_named(
    scripted_server: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_server(b"")
    assert server_phones() == {}
    with socket.create_server(("127.0.0.1", 0)) as mute:
        monkeypatch.setenv("ADB_SERVER_SOCKET", f"tcp:{mute.getsockname()[1]}")
        with pytest.raises(TransportError, match="the adb server does not answer"):
            server_phones(timeout_s=0.1)


@given(
    st.text(st.characters(exclude_characters=":[]/@", exclude_categories=["C", "Z"]), min_size=1),
    st.integers(0, 65_535),
)
def test_addresses_have_a_port(host: str, port: int) -> None:
    assert address_of(f"{host}:{port}") == (host, port)
    assert address_of(f"[{host}::1]:{port}") == (f"{host}::1", port)
    assert address_of(host) is None
    assert address_of(f"{host}:{port + 65_536}") is None
    assert address_of(f"pixel1@{host}:{port}") is address_of(f"http://{host}:{port}") is address_of(f":{port}") is None
    assert address_of(f"adb-{host}._adb-tls-connect._tcp") is None
