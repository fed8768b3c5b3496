"""What a person sees while work goes on: a bar with time left on a terminal, plain lines when piped."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_PLAIN_EVERY_S = 10.0


class Console:
    """Messages and progress on standard error, so that standard output holds results alone."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._live: Progress | None = None

    def say(self, text: str) -> None:
        """One line for the user."""
        if self._quiet:
            return
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Meter]:
        """A meter for `total` steps; the last note given to it stands beside the bar."""
        if self._quiet:
            yield Meter(what, total)
        elif self._live is not None:
            # Within another's: a second bar beside it.
            yield BarMeter(what, total, self._live)
        elif sys.stderr.isatty():
            with self._bar() as live:
                self._live = live
                try:
                    yield BarMeter(what, total, live)
                finally:
                    self._live = None
        else:
            yield PlainMeter(what, total)

    def _bar(self) -> Progress:
        from rich import progress
        from rich.console import Console as RichConsole

        return progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[note]}"),
            console=RichConsole(stderr=True),
        )


class Meter:
    """Counts steps and shows nothing: what a quiet console gives."""

    def __init__(self, what: str, total: int) -> None:
        self.what = what
        self.total = total
        self.done = 0

    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        """Say that `done` of `total` steps are over; the total may change on the way."""
        self.done = done
        self.total = self.total if total is None else total


class BarMeter(Meter):
    """A bar on a terminal."""

    def __init__(self, what: str, total: int, live: Progress) -> None:
        super().__init__(what, total)
        self._live = live
        self._task: TaskID = live.add_task(what, total=total, note="")

    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        super().update(done, total, note)
        self._live.update(self._task, completed=done, total=self.total, note=note)


class PlainMeter(Meter):
    """A line every ten seconds and one at the end."""

    def __init__(self, what: str, total: int) -> None:
        super().__init__(what, total)
        self._began = self._last = time.monotonic()
        self._first_done: int | None = None
        self._ended = False

    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        super().update(done, total, note)
        if done < self.total:
            self._ended = False
        elif self._ended:
            return
        else:
            self._ended = True
        now = time.monotonic()
        if self._first_done is None:
            self._first_done = done
        if done < self.total and now - self._last < _PLAIN_EVERY_S:
            return
        self._last = now
        steps = done - self._first_done
        left = ""
        if steps and done < self.total:
            left = f", {(now - self._began) / steps * (self.total - done):.0f} s left"
        print(f"{self.what}: {done}/{self.total}{left}{f', {note}' if note else ''}", file=sys.stderr, flush=True)
