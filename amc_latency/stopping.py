"""A command that a signal ends: what it has open is closed, one line is said, and the exit code is 128 + the signal.

The signal becomes an exception, wherever the program is just then. Python can't raise one out of a finaliser or a
callback: it prints "Exception ignored in" with a traceback, and goes on. There the signal is raised once more.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
RESUMABLE = ("profile", "search", "train", "finetune")
_AGAIN_S = 0.01


class Stopped(SystemExit):
    """A signal asked the program to end."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


class _Stop:
    """The handler of the signals."""

    def __init__(self) -> None:
        self._said = False

    def __call__(self, number: int, _: FrameType | None) -> None:
        if not self._said:
            self._said = True
            resumable = sys.argv[1:2] and sys.argv[1] in RESUMABLE
            text = "stopped" + ("; the same command goes on from here" if resumable else "")
            # Not by `print`: it may have been interrupted itself, and then takes no second text.
            with contextlib.suppress(OSError):
                os.write(2, f"{text}\n".encode())
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
        signal.signal(signal.SIGALRM, lambda *_: _raise(number))
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)


def stop_by_signals() -> None:
    """From now on the signals end the program as described; harmless when done twice."""
    stop = _Stop()
    for number in SIGNALS:
        signal.signal(number, stop)
    if not isinstance(sys.unraisablehook, _Hook):
        sys.unraisablehook = _Hook(sys.unraisablehook)


def _raise(number: int) -> None:
    raise Stopped(number)
