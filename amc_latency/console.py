"""What a person sees while work goes on: a bar with time left on a terminal, plain lines when piped."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from amc_latency.android_bench.safe.text import shown

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.progress import Progress, TaskID
    from rich.table import Column

_PLAIN_EVERY_S = 10.0
WIDTH = 140
"""Characters of a table that is piped into a file."""


def put(*parts: object, sep: str = " ", file: IO[str] | None = None) -> None:
    """`print` for what may hold text from files and phones: on standard output unless set, control characters escaped.

    All that a command prints goes through here, through `rich_console` or is JSON.
    """
    print(shown(sep.join(map(str, parts))), file=sys.stdout if file is None else file, flush=file is not None)


def rich_console(**settings: Any) -> RichConsole:
    """A console for tables, whose cells are shown as `put` shows text: brackets are brackets and no markup."""
    from rich.console import Console as RichConsole
    from rich.text import Text

    class Shown(RichConsole):
        def render_str(self, text: str, **how: Any) -> Text:  # type: ignore[override]
            return super().render_str(shown(text), **how)

    return Shown(markup=False, emoji=False, **settings)


def table_console() -> RichConsole:
    """Where tables are printed: a piped one keeps its width, as 80 columns would fold it."""
    terminal = rich_console()
    return terminal if terminal.is_terminal else rich_console(width=WIDTH)


def number_column(name: str) -> Column:
    """A table's column of numbers."""
    from rich.table import Column

    return Column(name, justify="right")


class Console:
    """Messages and progress on standard error, so that standard output holds results alone.

    Quiet it gives warnings alone; verbose it gives details too, and each step of what is under way.
    `words` makes of a text what its reader is to see.
    """

    def __init__(self, quiet: bool = False, verbose: bool = False, words: Callable[[str], str] = str) -> None:
        self._quiet = quiet
        self._verbose = verbose
        self.words = words
        self._live: Progress | None = None

    def detail(self, text: str) -> None:
        """A line for whoever wants to know where things come from."""
        if self._verbose:
            self.warn(text)

    def say(self, text: str) -> None:
        """One line for the user."""
        if not self._quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        """One line that the user should not miss."""
        text = self.words(text)
        if self._live is not None:
            self._live.console.print(text, highlight=False)
        else:
            put(text, file=sys.stderr)

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Meter]:
        """A meter for `total` steps; the last note given to it stands beside the bar."""
        if self._quiet:
            yield Meter(what, total)
        elif self._live is not None:
            # Within another's: a second bar beside it.
            yield BarMeter(what, total, self._live)
        elif self._verbose:
            yield PlainMeter(what, total, every_s=0.0)
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

        return progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[note]}", markup=False),
            console=rich_console(stderr=True),
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
        self._task: TaskID = live.add_task(shown(what), total=total, note="")

    def update(self, done: int, total: int | None = None, note: str = "") -> None:
        super().update(done, total, note)
        self._live.update(self._task, completed=done, total=self.total, note=shown(note))


class PlainMeter(Meter):
    """A line every ten seconds and one at the end."""

    def __init__(self, what: str, total: int, every_s: float = _PLAIN_EVERY_S) -> None:
        super().__init__(what, total)
        self._every_s = every_s
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
        if done < self.total and now - self._last < self._every_s:
            return
        self._last = now
        steps = done - self._first_done
        left = ""
        if steps and done < self.total:
            left = f", {(now - self._began) / steps * (self.total - done):.0f} s left"
        put(f"{self.what}: {done}/{self.total}{left}{f', {note}' if note else ''}", file=sys.stderr)
