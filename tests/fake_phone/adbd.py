"""An ADB device daemon on a loopback socket: the phone's end of the protocol, with a folder for its file system.

In a test: `with FakeAdbd(folder) as daemon: ... daemon.address`. As a program: `python -m tests.fake_phone.adbd --root
FOLDER`. What the protocol is: "OVERVIEW.TXT", "protocol.txt" and "SYNC.TXT" of Android's adb.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import errno
import json
import os
import re
import shlex
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, Self

if __package__:
    from .faults import Cut, Fault, Faults
    from .services import Closed, Stream, SyncService, serve_shell
else:  # started by its path
    from faults import Cut, Fault, Faults
    from services import Closed, Stream, SyncService, serve_shell

Auth = Literal["off", "ask", "known", "tls"]

_COMMANDS = ("CNXN", "AUTH", "OPEN", "OKAY", "WRTE", "CLSE", "STLS")
_WIRE = {name: int.from_bytes(name.encode(), "little") for name in _COMMANDS}
_NAME = {wire: name for name, wire in _WIRE.items()}
_TOKEN, _SIGNATURE, _PUBLIC_KEY = 1, 2, 3
_NO_CHECKSUM = 0x01000001
"""the protocol version from which on payloads carry no checksum"""
_SHA1_PREFIX = bytes.fromhex("3021300906052b0e03021a05000414")


class FakeAdbd:
    """A phone that listens on `port` of the loopback interface (0: any), with `root` as its file system.

    `auth`: "off", "ask" (the user taps Allow at once), "known" (only `known_keys`, the contents of `adbkey.pub` files;
    nobody ever taps) or "tls" (asks for an encrypted connection, as wireless debugging does). With `rewrite`, the
    phone's absolute paths in commands point into `root`. Programs in `root`/bin come first. `on_push` is called with
    the path of every file that was pushed, before the pusher hears of it.
    """

    def __init__(
        self,
        root: Path | str,
        port: int = 0,
        *,
        auth: Auth = "off",
        known_keys: Iterable[str] = (),
        shell_v2: bool = True,
        maxdata: int = 1 << 20,
        shell: Sequence[str] = ("/bin/sh", "-c"),
        rewrite: bool = True,
        on_push: Callable[[str], None] | None = None,
        faults: Iterable[Fault] = (),
    ) -> None:
        self.root = os.path.realpath(root)
        if rewrite and not re.fullmatch(r"[\w./+-]+", self.root):
            raise ValueError(f"paths in commands cannot be rewritten to a folder that needs quoting: {self.root}")
        for folder in ("data/local/tmp", "bin"):
            os.makedirs(os.path.join(self.root, folder), exist_ok=True)
        self.auth = auth
        self.known_keys = [parse_public_key(key) for key in known_keys]
        self.shell_v2 = shell_v2
        self.maxdata = maxdata
        self.shell = tuple(shell)
        self.rewrite = rewrite
        self.on_push = on_push
        self.faults = Faults(faults)
        self.connections = 0
        """how many came about so far"""
        self._away_until = 0.0
        self._open: set[Connection] = set()
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Turn the phone off."""
        # A blocked accept() is not woken by close() alone.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self, seconds: float = 0.0) -> None:
        """Pull the cable, and keep it out for so long."""
        self._away_until = time.monotonic() + seconds
        for connection in list(self._open):
            connection.close()

    def host_path(self, path: str) -> str:
        """Where a path of the phone lies. Raises `PermissionError` for one that leads out of `root`."""
        inside = path == self.root or path.startswith(self.root + "/")
        full = os.path.realpath(path if inside else os.path.join(self.root, path.lstrip("/")))
        if full != self.root and not full.startswith(self.root + "/"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return full

    def host_command(self, command: str) -> str:
        """A command with the phone's absolute paths pointing into `root`."""
        if not self.rewrite:
            return command
        paths = ["/data/local/tmp", "/sys/", "/system/"]
        if os.path.exists(f"{self.root}/proc/cpuinfo"):
            paths.append("/proc/cpuinfo")
        # Not within a longer path or word; `/sys/` goes on as it likes, `/data/local/tmp` must end there.
        pattern = "|".join(re.escape(path) + ("" if path.endswith("/") else r"(?![\w.-])") for path in paths)
        return re.sub(rf"(?<![\w./}}~*-])(?:{pattern})", lambda match: self.root + match[0], command)

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            if fault := self.faults.take("connect"):
                self.faults.record(fault)
                self._away_until = time.monotonic() + fault.seconds
            if time.monotonic() < self._away_until:
                peer.close()
                continue
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        connection = Connection(peer, self)
        self._open.add(connection)
        try:
            connection.serve()
        except Cut as cut:
            self.cut(cut.seconds)
        finally:
            connection.close()
            self._open.discard(connection)


class Connection:
    """One computer's connection: its packets, and the streams in it."""

    def __init__(self, peer: socket.socket, daemon: FakeAdbd) -> None:
        self.daemon = daemon
        self.maxdata = 4096
        self._peer = peer
        self._version = 0x01000000
        self._sending = threading.Lock()
        self._streams: dict[int, Stream] = {}
        self._last_id = 0

    def send(self, name: str, arg0: int, arg1: int, data: bytes = b"") -> None:
        """Send a packet. Raises `Closed`."""
        checksum = 0 if self._version >= _NO_CHECKSUM else sum(data) & 0xFFFFFFFF
        header = struct.pack("<6I", _WIRE[name], arg0, arg1, len(data), checksum, _WIRE[name] ^ 0xFFFFFFFF)
        try:
            with self._sending:
                self._peer.sendall(header + data)
        except OSError as error:
            raise Closed from error

    def close(self) -> None:
        """End it, and all its streams."""
        with contextlib.suppress(OSError):
            self._peer.shutdown(socket.SHUT_RDWR)
        self._peer.close()
        for stream in list(self._streams.values()):
            stream.close(tell=False)

    def forget(self, stream: Stream) -> None:
        """A stream that is closed."""
        self._streams.pop(stream.local, None)

    def serve(self) -> None:
        """Answer packets until the peer goes. Raises `Cut`."""
        token = os.urandom(20)
        authorized = self.daemon.auth == "off"
        with contextlib.suppress(Closed, OSError):
            while True:
                name, arg0, arg1, data = self._packet()
                if authorized and name != "CNXN":
                    self._on_stream(name, arg0, arg1, data)
                elif name == "CNXN" and self.daemon.auth == "tls":
                    self.send("STLS", 0x01000000, 0)
                elif name == "CNXN":
                    self._version, self.maxdata = min(arg0, _NO_CHECKSUM), min(arg1, self.daemon.maxdata)
                    self._welcome() if authorized else self.send("AUTH", _TOKEN, 0, token)
                elif name == "AUTH" and arg0 == _PUBLIC_KEY and self.daemon.auth == "ask":
                    self.daemon.known_keys.append(parse_public_key(data.rstrip(b"\0").decode()))
                    authorized = True
                    self._welcome()
                elif name == "AUTH" and arg0 == _SIGNATURE:
                    authorized = any(signature_fits(key, token, data) for key in self.daemon.known_keys)
                    token = token if authorized else os.urandom(20)
                    self._welcome() if authorized else self.send("AUTH", _TOKEN, 0, token)

    def _packet(self) -> tuple[str, int, int, bytes]:
        wire, arg0, arg1, size, checksum, magic = struct.unpack("<6I", self._exactly(24))
        if wire ^ 0xFFFFFFFF != magic or wire not in _NAME or size > (1 << 20):
            raise Closed  # a real daemon drops such a peer too
        data = self._exactly(size)
        if self._version < _NO_CHECKSUM and wire != _WIRE["CNXN"] and checksum != sum(data) & 0xFFFFFFFF:
            raise Closed
        if wire != _WIRE["CNXN"] and size > max(self.maxdata, 4096):
            raise Closed
        return _NAME[wire], arg0, arg1, data

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = self._peer.recv(min(size - len(data), 1 << 16))
            if not part:
                raise Closed
            self.daemon.faults.received(len(part))
            data += part
        return bytes(data)

    def _welcome(self) -> None:
        features = "cmd,stat_v2" + (",shell_v2" if self.daemon.shell_v2 else "")
        banner = f"device::ro.product.name=fake;ro.product.model=FakePhone;ro.product.device=fake;features={features}"
        self.send("CNXN", _NO_CHECKSUM, self.daemon.maxdata, banner.encode())

    def _on_stream(self, name: str, arg0: int, arg1: int, data: bytes) -> None:
        if name == "OPEN":
            self._open(arg0, data.rstrip(b"\0").decode(errors="surrogateescape"))
        elif stream := self._streams.get(arg1):
            if name == "OKAY":
                stream.acknowledged()
            elif name == "WRTE":
                stream.arrived(data)
            elif name == "CLSE":
                stream.close()

    def _open(self, remote: int, service: str) -> None:
        kind, _, argument = service.partition(":")
        kind, *options = kind.split(",")
        v2 = "v2" in options
        if kind not in ("shell", "exec", "sync") or (v2 and not self.daemon.shell_v2):
            self.send("CLSE", 0, remote)
            return
        self._last_id += 1
        stream = Stream(self, self._last_id, remote)
        self._streams[stream.local] = stream
        self.send("OKAY", stream.local, stream.remote)
        threading.Thread(target=self._serve_stream, args=(stream, kind, argument, v2), daemon=True).start()

    def _serve_stream(self, stream: Stream, kind: str, argument: str, v2: bool) -> None:
        try:
            if kind == "sync":
                SyncService(stream, self.daemon).serve()
            else:
                serve_shell(stream, argument, v2, self.daemon)
        except Closed:
            pass
        except Cut as cut:
            self.daemon.cut(cut.seconds)
        with contextlib.suppress(Closed):
            stream.close()


def parse_public_key(text: str) -> tuple[int, int]:
    """Modulus and exponent of an `adbkey.pub`: words, a constant, modulus, another constant, exponent; in base 64."""
    raw = base64.b64decode(text.split()[0])
    (words,) = struct.unpack_from("<I", raw)
    (exponent,) = struct.unpack_from("<I", raw, 8 + words * 8)
    return int.from_bytes(raw[8 : 8 + words * 4], "little"), exponent


def signature_fits(key: tuple[int, int], token: bytes, signature: bytes) -> bool:
    """Whether `key` signed `token`: PKCS #1 v1.5, with the token in the place of a SHA-1 digest."""
    modulus, exponent = key
    size = (modulus.bit_length() + 7) // 8
    digest = _SHA1_PREFIX + token
    expected = b"\0\1" + b"\xff" * (size - 3 - len(digest)) + b"\0" + digest
    return len(signature) == size and pow(int.from_bytes(signature, "big"), exponent, modulus) == int.from_bytes(
        expected, "big"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Be a phone until a signal comes."""
    parser = argparse.ArgumentParser(description="A phone on a loopback socket.")
    add = parser.add_argument
    add("--root", required=True, help="folder that is the phone's file system")
    add("--port", type=int, default=0)
    add("--auth", choices=["off", "ask", "known", "tls"], default="off")
    add("--keys", action="append", default=[], help="adbkey.pub of a computer that is known")
    add("--no-v2", dest="shell_v2", action="store_false", help="only the shell protocol without exit codes")
    add("--maxdata", type=int, default=1 << 20)
    add("--shell", default="/bin/sh -c", help="what a command is given to")
    add("--no-rewrite", dest="rewrite", action="store_false", help="leave paths in commands alone")
    add("--on-push", help="program that is run with the path of each pushed file")
    add("--faults", help="JSON file: a list of faults, each with the fields of `Fault`")
    options = parser.parse_args(arguments)
    hook = shlex.split(options.on_push or "")
    daemon = FakeAdbd(
        options.root,
        options.port,
        auth=options.auth,
        known_keys=[Path(key).read_text() for key in options.keys],
        shell_v2=options.shell_v2,
        maxdata=options.maxdata,
        shell=shlex.split(options.shell),
        rewrite=options.rewrite,
        on_push=(lambda path: subprocess.run([*hook, path], check=True) and None) if hook else None,
        faults=[Fault(**fault) for fault in json.loads(Path(options.faults).read_text())] if options.faults else [],
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with daemon:
        print(f"listening on {daemon.address}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
