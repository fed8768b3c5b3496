"""A command that a signal ends: what it has open is closed, one line is said, and the exit code is 128 + the signal.

The signal becomes an exception, wherever the program is just then. Python can't raise one out of a finaliser or a
callback: it prints "Exception ignored in" with a traceback, and goes on. There the signal is raised once more. While
modules are imported it waits for their end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
RESUMABLE = ("profile", "search", "train", "finetune")
_AGAIN_S = 0.01
_LONGEST_IMPORT_S = 30.0


class Stopped(SystemExit):
    """A signal asked the program to end."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


class _Stop:
    """The handler of the signals."""

    def __init__(self) -> None:
        self.number: int | None = None
        """of the first signal that came"""
        self._latest_s = 0.0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.number is None:
            self.number = number
            command = next((word for word in sys.argv[1:] if not word.startswith("-")), None)
            resumable = command in RESUMABLE
            text = "stopped" + ("; the same command goes on from here" if resumable else "")
            # Not by `print`: it may have been interrupted itself, and then takes no second text.
            with contextlib.suppress(OSError):
                os.write(2, f"{text}\n".encode())
            self._latest_s = time.monotonic() + _LONGEST_IMPORT_S
        if _importing(frame) and time.monotonic() < self._latest_s:
            # PyTorch's C++ aborts the process where an exception meets it while it is loaded.
            _again(lambda _, later: self(number, later))
            return
        raise Stopped(number)


class _Hook:
    """What Python calls with an exception that it can't raise."""

    def __init__(self, former: Any) -> None:
        self._former = former

    def __call__(self, unraisable: Any) -> None:
        stopped = unraisable.exc_value
        if not isinstance(stopped, Stopped):
            self._former(unraisable)
            return
        number = stopped.number
        _again(lambda *_: _raise(number))


def stop_by_signals() -> _Stop:
    """From now on the signals end the program as described; done twice it is done once."""
    stop = signal.getsignal(SIGNALS[0])
    if isinstance(stop, _Stop):
        return stop
    stop = _Stop()
    for number in SIGNALS:
        signal.signal(number, stop)
    if not isinstance(sys.unraisablehook, _Hook):
        sys.unraisablehook = _Hook(sys.unraisablehook)
    return stop


def _again(handler: Callable[[int, FrameType | None], object]) -> None:
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _raise(number: int) -> None:
    raise Stopped(number)
