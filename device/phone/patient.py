"""A connection that comes back by itself: what a pulled cable or a hung command means to those who time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from amc_latency.device.adb.transport import CommandResult, CommandTimeout, Transport, TransportError
from amc_latency.device.base import DeviceError, Interrupted

T = TypeVar("T")
RECONNECT_S = 120.0
"""A phone that is away for longer is gone."""


class PhoneGoneError(DeviceError):
    """A phone that stayed away for too long."""


class PatientTransport(Transport):
    """Repeats what a lost connection broke, on a new one. So every command must be such that twice is once.

    A command that is too slow is given once more too. Raises `PhoneGoneError` when the phone stays away for
    `reconnect_s`; from then on each call tries only once. `say` hears of a phone that is waited for.
    """

    def __init__(self, transport: Transport, reconnect_s: float = RECONNECT_S) -> None:
        self.serial = transport.serial
        self.say: Callable[[str], object] = lambda text: None
        self._transport = transport
        self._reconnect_s = reconnect_s
        self._gone = False
        self._interrupted = self._interruptible = False

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Within, and only there, `interrupt` is heard: cleaning up goes through in any case."""
        self._interrupted, self._interruptible = False, True
        try:
            yield
        finally:
            self._interruptible = False

    def interrupt(self) -> None:
        """From another thread: from now on raise `Interrupted` instead of asking the phone, where that is allowed."""
        self._interrupted = True

    def connect(self) -> None:
        """Make the connection anew."""
        self._patiently(self._transport.connect)

    def run(self, command: str, timeout_s: float = 30.0) -> CommandResult:
        """As any transport's."""
        return self._patiently(lambda: self._transport.run(command, timeout_s))

    def push(self, files: Mapping[str, bytes], mode: int = 0o644) -> None:
        """As any transport's."""
        self._patiently(lambda: self._transport.push(files, mode))

    def pull(self, path: str) -> bytes:
        """As any transport's."""
        return self._patiently(lambda: self._transport.pull(path))

    def close(self) -> None:
        """Let go of the connection."""
        self._transport.close()

    def _patiently(self, action: Callable[[], T]) -> T:
        slow, began = False, time.monotonic()
        while True:
            self._heed()
            try:
                return action()
            except CommandTimeout:
                if slow:
                    raise
                slow = True
            except TransportError as error:
                self._reconnect(error, began)

    def _reconnect(self, error: TransportError, began: float) -> None:
        """Make the connection anew, however often that takes. Raises `PhoneGoneError`, too long after `began`."""
        pause_s, said = 0.05, False
        while True:
            self._heed()
            away_s = time.monotonic() - began
            try:
                self._transport.connect()
                self._gone = False
                # A phone that comes back each time and never answers is gone as well.
                if away_s <= self._reconnect_s:
                    return
            except (TransportError, CommandTimeout) as again:
                error = again if isinstance(again, TransportError) else error
            if self._gone or away_s > self._reconnect_s:
                self._gone = True
                raise PhoneGoneError(
                    f"the phone {self.serial} is gone ({error}). What was timed is kept; connect it and run again to "
                    "go on"
                ) from error
            if away_s > 3 and not said:
                self.say(f"the phone {self.serial} is away ({error}): waiting {self._reconnect_s:.0f} s for it")
                said = True
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, 2.0)

    def _heed(self) -> None:
        if self._interruptible and self._interrupted:
            raise Interrupted(f"timing on {self.serial} was interrupted")
