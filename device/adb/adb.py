"""Which phones there are, and the way to one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from amc_latency.device.adb.adb_direct import DirectTransport, address_of, usb_phones
from amc_latency.device.adb.adb_server import NoServerError, ServerTransport, not_ready, server_phones
from amc_latency.device.adb.adb_transport import ANSWER_S, AdbTransport
from amc_latency.device.adb.transport import Transport, TransportError

__all__ = ["Attached", "attached", "open_transport"]


@dataclass(frozen=True)
class Attached:
    """A phone that this computer sees."""

    serial: str
    state: str
    """`device` when it is ready, else `unauthorized`, `offline`, `no permissions` or another of adb's words"""
    via: Literal["server", "usb"]
    """through a running adb server, or on USB with none between"""


def attached() -> list[Attached]:
    """All phones that a running adb server sees, and those on USB that it does not. Starts no server.

    Raises `TransportError` when a server runs and does not answer.
    """
    try:
        served = server_phones()
    except NoServerError:
        served = {}
    usb = usb_phones()
    return [Attached(serial, state, "server") for serial, state in served.items()] + [
        Attached(serial, "device" if phone else "no permissions", "usb")
        for serial, phone in usb.items()
        if serial not in served
    ]


def open_transport(
    serial: str, transport: Literal["auto", "direct", "server"] = "auto", answer_s: float = ANSWER_S
) -> Transport:
    """A connection to the phone called `serial`, its serial number or `host:port`.

    By `auto`, an address is connected to directly, or through an adb server where only that can; other phones are
    reached through a server that sees them, or else by USB. `answer_s` is how long the phone may take to answer.
    Raises `TransportError`: what is wrong and what to do.
    """
    if transport == "direct":
        return _connected(DirectTransport(serial, answer_s))
    if transport == "server":
        return _connected(ServerTransport(serial, answer_s))
    if address_of(serial):
        try:
            return _connected(DirectTransport(serial, answer_s))
        except TransportError as error:
            # A server that does not list it would keep it in its list as offline.
            if serial not in _served():
                raise
            try:
                return _connected(ServerTransport(serial, answer_s))
            except TransportError:
                raise error from None
    phones = {phone.serial: phone for phone in attached()}
    if serial not in phones:
        there = f"attached are: {', '.join(phones)}" if phones else "none is attached; is USB debugging on?"
        raise TransportError(f"there is no phone {serial}: {there}")
    if phones[serial].via == "server":
        return _connected(ServerTransport(serial, answer_s))
    if phones[serial].state != "device":
        raise not_ready(serial, phones[serial].state)
    return _connected(DirectTransport(serial, answer_s))


def _served() -> dict[str, str]:
    try:
        return server_phones()
    except TransportError:
        return {}


def _connected(transport: AdbTransport) -> Transport:
    transport.connect()
    return transport
