"""A connection that comes back by itself: what a pulled cable or a hung command means to those who time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from device.base import DeviceError
from device.transport import CommandResult, CommandTimeout, Transport, TransportError

T = TypeVar("T")
_LOST = (TransportError, CommandTimeout)
RECONNECT_S = 120.0
"""A phone that is away for longer is gone."""


class PatientTransport(Transport):
    """Repeats what a lost connection broke, on a new one. So every command must be such that twice is once.

    Raises `DeviceError` when the phone stays away for `reconnect_s`; from then on each call tries only once.
    """

    def __init__(self, transport: Transport, reconnect_s: float = RECONNECT_S) -> None:
        self.serial = transport.serial
        self._transport = transport
        self._reconnect_s = reconnect_s
        self._gone = False

    def connect(self) -> None:
        """Make the connection anew."""
        self._patiently(self._transport.connect)

    def run(self, command: str, timeout_s: float = 30.0) -> CommandResult:
        """As any transport's; a command that hangs is stopped and given once more, within the same patience."""
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
        deadline = time.monotonic() + (0 if self._gone else self._reconnect_s)
        pause_s = 0.05
        while True:
            try:
                result = action()
                self._gone = False
                return result
            except _LOST as error:
                self._give_up_after(deadline, error)
            while True:
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, 2.0)
                try:
                    self._transport.connect()
                    break
                except _LOST as error:
                    self._give_up_after(deadline, error)

    def _give_up_after(self, deadline: float, error: DeviceError) -> None:
        if time.monotonic() > deadline:
            self._gone = True
            raise DeviceError(
                f"the phone {self.serial} is gone ({error}). What was timed is kept; connect it and run again to go on"
            ) from error
