"""What a program printed, out of a log that a terminal or a collector kept of it. Pure functions of text.

Taken off: a byte order mark, colours, other ends of lines, an empty line after each, and what a collector puts before
every line (logcat's date, process and tag, a syslog's host, a time, an indentation). What that is, the title of the
table of operators tells: the program prints nothing before it but its own file's name.
"""

from __future__ import annotations

import re

_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b\n]*\x07")
_LINE_END = re.compile(r"\r*\n|\r+")
_TITLE = re.compile(r"(.*?)(?:native : \S+ )?=+ Run Order =+\s*")
_LONGEST_TITLE = 2000
_PIECES = re.compile(r"[0-9]+|[A-Za-z]+|\s+|.")


def printed(text: str) -> str:
    """`text` as the program printed it, as far as it is that; lines of other programs in between are left out."""
    lines = _LINE_END.split(_COLOURS.sub("", text.removeprefix("\ufeff")))
    lines = _without_prefix(lines)
    return "\n".join(_without_doubled_ends(lines))


def _without_prefix(lines: list[str]) -> list[str]:
    # A line without end would be searched for longer than anybody waits.
    short = (line for line in lines if len(line) <= _LONGEST_TITLE)
    title = next((match for line in short if (match := _TITLE.fullmatch(line))), None)
    if title is None or not title[1]:
        return lines
    prefix = _like(title[1])
    # An empty line may have lost the space at its end.
    bare = _like(title[1].rstrip())
    kept = []
    for line in lines:
        match = prefix.match(line)
        if match:
            kept.append(line[match.end() :])
        elif not line.strip() or bare.fullmatch(line.rstrip()):
            kept.append("")
    return kept


def _like(prefix: str) -> re.Pattern[str]:
    """What other lines have in the place of a line's `prefix`: other numbers, another level, the same words."""
    body = prefix.rstrip()
    # What the program itself printed begins with spaces or a tab, so how many end the prefix is known.
    end = re.escape(prefix[len(body) :])
    pattern = ""
    for piece in _PIECES.findall(body):
        if piece.isdigit():
            # Wider or narrower than another line's, in a column of its own.
            pattern += r"\s*[0-9]+"
        elif piece.isspace():
            pattern += r"\s*"
        elif len(piece) == 1 and piece.isupper():
            pattern += "[A-Z]"
        else:
            pattern += re.escape(piece)
    return re.compile(pattern + end)


def _without_doubled_ends(lines: list[str]) -> list[str]:
    """Every other line, where all in between are empty."""
    for first in (0, 1):
        between = lines[1 - first :: 2]
        if len(lines) > 3 and not any(line.strip() for line in between):
            return lines[first::2]
    return lines
