"""Faults for a fake phone: queued by a test, each strikes once, and the queue remembers which did."""

from __future__ import annotations

import errno
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal


class Cut(Exception):
    """The connection is to be cut, and nobody let in for so many seconds."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__(f"cut, away for {seconds:g} s")
        self.seconds = seconds


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong, in the `nth` request of its sort from the moment it was queued."""

    kind: Literal["cut", "hang", "delay", "garble", "truncate", "full", "refuse"]
    """
    - cut: the connection ends, and new ones are turned away for `seconds`
    - hang: no answer ever comes, while the connection stays
    - delay: everything waits for `seconds`
    - garble: eight bytes are changed
    - truncate: all further bytes are lost, and nobody says so
    - full: the push fails with "No space left on device"
    - refuse: new connections are turned away for `seconds` (on "connect" only)
    """
    on: Literal["connect", "run", "push", "pull", "receive"] = "run"
    """which requests count; "receive" is every byte the phone gets, of any request, and knows only cuts"""
    nth: int = 1
    after: int = 0
    """bytes of the output, of the pushed or pulled file, that pass first. With 0 a cut or a hang comes before anything
    is done; with more than there are, once all is done and only the answer is missing"""
    seconds: float = 0.0
    matching: str = ""
    """a part of the command, or of the path, for a request to count"""


class Strike:
    """The fault of one request, or none: its bytes go `through` it."""

    def __init__(self, fault: Fault | None, wait: Callable[[float], None], record: Callable[[Fault], None]) -> None:
        self._fault = fault
        self._wait = wait
        self._record = record
        self._left = fault.after if fault else 0
        self._struck = False

    def through(self, data: bytes) -> Iterator[bytes]:
        """What is left of `data`. Raises `Cut`, or `OSError` for a full disk, after the bytes that come before it."""
        fault = self._fault
        if fault is None or (self._struck and fault.kind != "truncate"):
            yield data
            return
        if self._struck:
            return
        head, tail = data[: self._left], data[self._left :]
        self._left -= len(head)
        if head:
            yield head
        if self._left or (fault.kind in ("garble", "truncate") and not tail):
            return
        self._struck = True
        self._record(fault)
        match fault.kind:
            case "cut":
                raise Cut(fault.seconds)
            case "full":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            case "hang":
                self._wait(math.inf)
            case "delay":
                self._wait(fault.seconds)
                yield tail
            case "garble":
                yield bytes(byte ^ 0x80 for byte in tail[:8]) + tail[8:]

    def begin(self) -> None:
        """Before anything is done: strikes if no bytes are to pass first."""
        for _ in self.through(b""):
            pass

    def end(self) -> None:
        """After all bytes: a fault that waited for more strikes now, where it can."""
        self._left = 0
        self.begin()


@dataclass
class _Pending:
    fault: Fault
    seen: int = 0
    """requests that counted; for a fault on "receive", bytes"""


class Faults:
    """The queue."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._lock = threading.Lock()
        self._pending: list[_Pending] = []
        self.fired: list[Fault] = []
        """those that struck, in order"""
        self.add(*faults)

    def add(self, *faults: Fault) -> None:
        """Queue faults; they count requests from now on."""
        with self._lock:
            self._pending += [_Pending(fault) for fault in faults]

    @property
    def pending(self) -> list[Fault]:
        """Those whose request has not come yet."""
        with self._lock:
            return [pending.fault for pending in self._pending]

    def clear(self) -> None:
        """Forget those that are pending."""
        with self._lock:
            self._pending.clear()

    def take(self, on: str, text: str = "") -> Fault | None:
        """The fault of the request that comes now, which leaves the queue. Of two that are due, one waits its turn."""
        with self._lock:
            counting = [p for p in self._pending if p.fault.on == on and p.fault.matching in text]
            for pending in counting:
                pending.seen += 1
            return self._remove(next((p for p in counting if p.seen >= p.fault.nth), None))

    def strike(self, on: str, text: str, wait: Callable[[float], None]) -> Strike:
        """The same, ready to strike; `wait` sleeps so many seconds, or less if the peer goes."""
        return Strike(self.take(on, text), wait, self.record)

    def received(self, count: int) -> None:
        """The phone got so many bytes. Raises `Cut` when one is due; those on "receive" wait for one another."""
        with self._lock:
            pending = next((p for p in self._pending if p.fault.on == "receive"), None)
            if pending is None:
                return
            pending.seen += count
            if pending.seen < pending.fault.after:
                return
            self._remove(pending)
            self.fired.append(pending.fault)
        raise Cut(pending.fault.seconds)

    def record(self, fault: Fault) -> None:
        """Note that a fault struck."""
        with self._lock:
            self.fired.append(fault)

    def _remove(self, pending: _Pending | None) -> Fault | None:
        if pending is None:
            return None
        self._pending.remove(pending)
        return pending.fault
