"""Exchanges with phones and adb servers that mean harm: through the connections, and through the commands."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from benchmarks.attacks.commands import command
from benchmarks.attacks.harness import Attack, Case
from benchmarks.attacks.peers import ANSWERS, GREETINGS, SERVICES, Peer, phone, server

_ANSWER_S = 1.0
_RUN_S = 2.0
_SERIAL = "127.0.0.1:5555"
_ACTIONS = ("run", "push", "pull")
_DIRECT = [
    *((name, "", "run") for name in GREETINGS),
    *((None, name, action) for name in SERVICES for action in _ACTIONS),
]
_SERVER = [(honest, name, action) for honest in (0, 1, 2, 3) for name in ANSWERS for action in _ACTIONS]
_SAYS = [
    *(("phone", name) for name in ("a banner of 64 MB", "garbage", "questions without end", "a banner that drips")),
    *(("stream", name) for name in ("output without end", "control characters", "output that drips", "closes it")),
    *(("server", name) for name in ("OKAYzzzz", "FAIL with control characters", "a listing with control characters")),
    *(("server", name) for name in ("OKAYffff and a drip", "a drip", "hangs up")),
]


def attacks() -> list[Attack]:
    """A phone directly, an adb server, and what a user sees of either."""
    return [
        Attack("hostile phone, direct", _direct, len(_DIRECT), 12, case_s=60.0),
        Attack("hostile adb server", _by_server, len(_SERVER), 16, case_s=60.0),
        Attack("hostile peers, by command", _by_command, len(_SAYS), 2, case_s=200.0),
    ]


def _spread(number: int, count: int) -> int:
    """Which of `count` combinations comes at this place, so that few of them are not all of one sort."""
    return number * 37 % count if count % 37 else number % count


def _act(transport: object, action: str) -> None:
    """Connect and do it; what a transport raises for a bad peer is a right answer."""
    from amc_latency.device.adb.transport import Transport
    from amc_latency.device.base import DeviceError

    assert isinstance(transport, Transport)
    try:
        transport.connect()
        match action:
            case "run":
                transport.run("echo x", _RUN_S)
            case "push":
                transport.push({"/data/local/tmp/x": bytes(300_000)})
            case "pull":
                transport.pull("/data/local/tmp/x")
    except DeviceError:
        pass
    finally:
        transport.close()


def _direct(folder: Path) -> Callable[[Case], None]:
    from amc_latency.device.adb.adb_direct import DirectTransport

    def try_case(case: Case) -> None:
        greeting, service, action = _DIRECT[_spread(case.number, len(_DIRECT))]
        case.note = f"{action}, and the phone: {greeting or service}"
        with Peer(phone(greeting, service)) as peer:
            _act(DirectTransport(f"127.0.0.1:{peer.port}", answer_s=_ANSWER_S), action)

    return try_case


def _by_server(folder: Path) -> Callable[[Case], None]:
    from amc_latency.device.adb.adb_server import ServerTransport

    def try_case(case: Case) -> None:
        honest, name, action = _SERVER[_spread(case.number, len(_SERVER))]
        case.note = f"{action}, and the server after {honest} answers: {name}"
        with Peer(server(honest, name, _SERIAL)) as peer:
            os.environ["ADB_SERVER_SOCKET"] = f"tcp:127.0.0.1:{peer.port}"
            _act(ServerTransport(_SERIAL, answer_s=_ANSWER_S), action)

    return try_case


def _by_command(folder: Path) -> Callable[[Case], None]:
    def try_case(case: Case) -> None:
        kind, name = _SAYS[case.number % len(_SAYS)]
        case.note = f"devices, and the {kind}: {name}"
        os.environ["ADB_SERVER_SOCKET"] = "tcp:127.0.0.1:1"
        if kind == "server":
            with Peer(server(0, name, _SERIAL)) as peer:
                os.environ["ADB_SERVER_SOCKET"] = f"tcp:127.0.0.1:{peer.port}"
                command("devices")
                command("devices", "--json")
            return
        with Peer(phone(name, "") if kind == "phone" else phone(None, name)) as peer:
            command("devices", f"127.0.0.1:{peer.port}")

    return try_case
