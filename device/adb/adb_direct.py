"""A phone by our own connection, over TCP or USB, with the `adb-shell` library; no adb server is needed."""

from __future__ import annotations

import io
import re
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from adb_shell import constants
from adb_shell.adb_device import AdbDevice
from adb_shell.adb_message import AdbMessage
from adb_shell.exceptions import (
    AdbCommandFailureException,
    AdbTimeoutError,
    DeviceAuthError,
    InvalidCommandError,
    PushFailedError,
)
from adb_shell.transport.base_transport import BaseTransport
from amc_latency.android_bench.safe.limits import PACKET_BYTES
from amc_latency.android_bench.safe.text import shown_line
from amc_latency.device.adb.adb_keys import signer
from amc_latency.device.adb.adb_transport import ANSWER_S, AdbTransport, Refused, unauthorized
from amc_latency.device.adb.exchange import BoundedLink, Exchange, TooMuchError
from amc_latency.device.adb.transport import TransportError

_LARGEST_COMMAND = 100_000
"""Linux takes 128 KiB in one argument of a program."""

_USB_HINTS = {
    "LIBUSB_ERROR_BUSY": "another program holds it, likely an adb server: use `transport='server'`, or "
    "`adb kill-server`",
    "LIBUSB_ERROR_ACCESS": "this computer's user may not use it: see https://developer.android.com/studio/run/device",
}


class EncryptionError(TransportError):
    """The phone wants an encrypted connection, which only an adb server can make."""


class DirectTransport(AdbTransport):
    """`serial` is `host:port`, or the serial number of a phone on USB that no adb server holds."""

    def __init__(self, serial: str, answer_s: float = ANSWER_S) -> None:
        super().__init__(serial, answer_s)
        self._device: _Device | None = None

    def _connect(self) -> None:
        offered: list[object] = []
        with self._as_transport_errors():
            key = signer()
            device = self._device = _Device(BoundedLink(_link(self.serial)))
            # To be reached, to show what it is, and to be told Allow.
            device.begin(Exchange(3 * self.answer_s))
            try:
                device.connect([key], self.answer_s, self.answer_s, self.answer_s, auth_callback=offered.append)
            except DeviceAuthError as error:
                raise unauthorized(self.serial) from error
            except InvalidCommandError as error:
                if "STLS" in str(error):
                    raise EncryptionError(
                        f"{self.serial} asks for encryption, as wireless debugging does: pair it by `adb pair`, then "
                        f"`adb connect {self.serial}`, and use `transport='server'`"
                    ) from error
                raise TransportError(f"{self.serial} does not speak adb's language") from error
            except TooMuchError:
                raise
            except Exception as error:
                if offered:
                    raise unauthorized(self.serial) from error
                raise
            device.check_packet_size()

    def _disconnect(self) -> None:
        if self._device is not None:
            with suppress(Exception):
                self._device.close()
            self._device = None

    def _longest_command(self) -> int:
        return min(_LARGEST_COMMAND, self._device.packet_size if self._device else 0)

    def _execute(self, command: str, timeout_s: float) -> bytes:
        with self._as_transport_errors():
            # `exec:`, not `shell:`, which old phones give a terminal that changes line ends.
            return self._in(Exchange(timeout_s)).exec_out(command, timeout_s, timeout_s, timeout_s, decode=False)

    def _send(self, path: str, content: bytes, mode: int) -> None:
        with self._as_transport_errors():
            self._in(Exchange(self.answer_s, sends=len(content))).push(
                io.BytesIO(content),
                path,
                stat.S_IFREG | mode,
                transport_timeout_s=self.answer_s,
                read_timeout_s=self.answer_s,
            )

    def _receive(self, path: str) -> bytes:
        content = io.BytesIO()
        with self._as_transport_errors():
            device = self._in(Exchange(self.answer_s))
            device.pull(path, content, transport_timeout_s=self.answer_s, read_timeout_s=self.answer_s)
        return content.getvalue()

    def _in(self, exchange: Exchange) -> _Device:
        """The device that is connected, for what follows."""
        assert self._device is not None
        self._device.begin(exchange)
        return self._device

    @contextmanager
    def _as_transport_errors(self) -> Iterator[None]:
        """The library raises a dozen kinds of error that have no parent in common."""
        try:
            yield
        except TransportError:
            raise
        except TooMuchError as error:
            raise TooMuchError(f"{self.serial}: {error}") from error
        except PushFailedError as error:
            raise Refused(bytes(error.args[0]).decode(errors="replace")) from error
        except AdbCommandFailureException as error:
            raise Refused(str(error).removeprefix("Command failed: ")) from error
        except (AdbTimeoutError, TimeoutError) as error:
            raise TransportError(
                f"{self.serial} does not answer: is it a phone's adb (`adb tcpip 5555`), and is the phone awake?"
            ) from error
        except ConnectionRefusedError as error:
            raise TransportError(f"nothing listens at {self.serial}: is the phone on, and `adb tcpip` set?") from error
        except Exception as error:
            why = shown_line(str(error)) or type(error).__name__
            why = next((hint for name, hint in _USB_HINTS.items() if name in why), why)
            raise TransportError(f"the connection to {self.serial} failed: {why}") from error


class _Device(AdbDevice):
    """The library's device, with what it gets wrong put right."""

    def __init__(self, link: BoundedLink) -> None:
        super().__init__(link)
        self._link = link
        self._maxdata: int

    @property
    def packet_size(self) -> int:
        """Bytes that the phone takes in one packet."""
        return self._maxdata

    def begin(self, exchange: Exchange) -> None:
        """What follows is bounded by this exchange. Packets of streams that are over are kept no longer."""
        self._link.exchange = exchange
        self._io_manager._packet_store.clear_all()

    def check_packet_size(self) -> None:
        """Take no more of the phone's word for it than we offer: the library makes a buffer of that size."""
        if self._maxdata < constants.MAX_LEGACY_ADB_DATA:
            raise ConnectionAbortedError(f"it takes packets of {self._maxdata} bytes only")
        self._maxdata = min(self._maxdata, constants.MAX_ADB_DATA)

    def _filesync_flush(self, adb_info: Any, filesync_info: Any) -> None:
        """Send what is buffered, and keep what the phone says meanwhile.

        The library throws away all but the acknowledgement, so that a full disk, which the phone reports in the
        middle of a push, would be an endless wait.
        """
        data = bytes(filesync_info.send_buffer[: filesync_info.send_idx])
        filesync_info.send_idx = 0
        self._io_manager.send(AdbMessage(constants.WRTE, adb_info.local_id, adb_info.remote_id, data), adb_info)
        command = constants.WRTE
        while command != constants.OKAY:
            command, said = self._read_until([constants.OKAY, constants.WRTE, constants.CLSE], adb_info)
            if command == constants.CLSE:
                raise ConnectionAbortedError("the phone ended the transfer")
            if command == constants.WRTE:
                filesync_info.recv_buffer += said
                if len(filesync_info.recv_buffer) > PACKET_BYTES:
                    raise TooMuchError("it talks on and acknowledges nothing")

    def _clse(self, adb_info: Any) -> None:
        """End a stream. The library waits for the answer, and what goes wrong then hides what went wrong before."""
        self._io_manager.send(AdbMessage(constants.CLSE, adb_info.local_id, adb_info.remote_id), adb_info)

    def _filesync_read_buffered(self, size: int, adb_info: Any, filesync_info: Any) -> bytes:
        """So many bytes of a file's stream. The library copies all that is buffered for each small piece."""
        if size > PACKET_BYTES:
            raise TooMuchError(f"it announces a piece of a file of {size / 1e6:,.0f} MB")
        while len(filesync_info.recv_buffer) < size:
            _, data = self._read_until([constants.WRTE], adb_info)
            filesync_info.recv_buffer += data
        piece = bytes(memoryview(filesync_info.recv_buffer)[:size])
        del filesync_info.recv_buffer[:size]
        return piece


class TcpLink(BaseTransport):
    """A socket for the library. Its own waits 40 ms for company for small packets, takes the end of the connection
    for silence, and forgets what did not fit into one write."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._socket: socket.socket | None = None

    def connect(self, transport_timeout_s: float | None) -> None:
        """Make the connection."""
        self._socket = socket.create_connection(self._address, transport_timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """End it."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def bulk_read(self, numbytes: int, transport_timeout_s: float | None) -> bytes:
        """Some bytes, at most so many."""
        data = self._open(transport_timeout_s).recv(numbytes)
        if not data:
            raise ConnectionResetError("the phone ended it")
        return data

    def bulk_write(self, data: bytes, transport_timeout_s: float | None) -> int:
        """Send all bytes."""
        self._open(transport_timeout_s).sendall(data)
        return len(data)

    def _open(self, timeout_s: float | None) -> socket.socket:
        if self._socket is None:
            raise ConnectionResetError("it is closed")
        self._socket.settimeout(timeout_s)
        return self._socket


def address_of(serial: str) -> tuple[str, int] | None:
    """Host and port, if `serial` is an address."""
    match = re.fullmatch(r"(?:\[([^]\s]+)\]|([^:/@\s]+)):(\d{1,5})", serial)
    return (match[1] or match[2], int(match[3])) if match and int(match[3]) < 1 << 16 else None


def usb_phones() -> dict[str, Any]:
    """Phones on USB by serial number, as far as this computer may look; nothing where libusb is missing."""
    try:
        from adb_shell.transport.usb_transport import UsbTransport
    except Exception:  # libusb has its own errors, and cannot be imported to name them
        return {}
    found = {}
    try:
        for phone in UsbTransport.find_all_adb_devices():
            try:
                found[shown_line(phone.serial_number)] = phone
            except Exception:
                # One whose name this user may not even read.
                found[f"usb:{'-'.join(map(str, phone.port_path))}"] = None
    except Exception:
        return found
    return found


def _link(serial: str) -> BaseTransport:
    """What carries bytes to the phone. Raises `TransportError`."""
    if address := address_of(serial):
        return TcpLink(*address)
    phone = usb_phones().get(serial)
    if phone is None:
        raise TransportError(
            f"{serial} is not on USB, or this computer cannot look there: pip install 'adb-shell[usb]', or run "
            "`adb start-server` and use `transport='server'`"
        )
    return phone
