"""Commands that answer with `key=value` lines and their count, so that nothing is lost unnoticed, and their readers."""

from __future__ import annotations

import re

from amc_latency.android_bench.runner import ParseError
from amc_latency.android_bench.safe.text import shown_line


def counted(snippet: str, source: str = ":") -> str:
    """A command that prints a line for each `say KEY VALUE` of `snippet`, which reads what `source` prints.

    The last line is their count. It leaves no variables behind in the script that it may be a part of.
    """
    body = f'n=0; say() {{ n=$((n+1)); echo "$1=$2"; }}\n{snippet.strip()}\necho "end=$n"'
    return f"( {{ {source}; }} | (\n{body}\n) ) 2>/dev/null"


class Lines:
    """The lines that a `counted` command printed, taken one by one in the order they must have.

    Every method raises `ParseError` for text that is cut off, or has another line than is asked for.
    """

    def __init__(self, text: str) -> None:
        *lines, last = text.removesuffix("\n").split("\n")
        if all(line.endswith("\r") for line in lines):
            # An old adbd's terminal.
            lines, last = [line[:-1] for line in lines], last.rstrip("\r")
        end = re.fullmatch(r"end=([0-9]{1,6})", last)
        if end is None:
            raise ParseError(f"the phone's answer is cut off after '{shown_line(last)}'")
        if int(end[1]) != len(lines):
            raise ParseError(f"the phone's answer has {len(lines)} lines before '{shown_line(last)}'")
        self._pairs: list[tuple[str, str]] = []
        for line in lines:
            key, found, value = line.partition("=")
            if not found:
                raise ParseError(f"the phone's answer has a line that it cannot have: '{shown_line(line)}'")
            self._pairs.append((key, value))
        self._pairs.reverse()

    @property
    def next_key(self) -> str | None:
        """The key of the line that comes next; None at the end."""
        return self._pairs[-1][0] if self._pairs else None

    def take(self, key: str) -> str:
        """The value of the next line, which has this key."""
        if self.next_key != key:
            self._fail(f"'{key}='")
        return self._pairs.pop()[1]

    def take_all(self, key: str) -> list[str]:
        """The values of the next lines, as many as have this key."""
        values = []
        while self.next_key == key:
            values.append(self.take(key))
        return values

    def expect_end(self) -> None:
        """No line may be left."""
        if self._pairs:
            self._fail("the end")

    def _fail(self, expected: str) -> None:
        line = "=".join(self._pairs[-1]) if self._pairs else "the end"
        raise ParseError(f"the phone's answer has '{shown_line(line)}' where {expected} should be")


def matched(pattern: str, line: str) -> re.Match[str]:
    """The match of a whole line. Raises `ParseError` quoting it."""
    match = re.fullmatch(pattern, line)
    if match is None:
        raise ParseError(f"the phone printed what no phone prints: '{shown_line(line)}'")
    return match
