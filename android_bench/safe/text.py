"""Text from outside as it may be shown: a terminal obeys control characters, so none reaches it."""

from __future__ import annotations

import re

# C0 and C1 controls, DEL, line and paragraph separators, marks that turn the direction of writing, lone surrogates.
_UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def shown(text: str) -> str:
    """The text with control characters written out (`\\x1b`); line ends and everything printable stay."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def shown_line(text: str, most: int = 200) -> str:
    """The text on one line, cut to `most` characters: for a name or a value within a message."""
    line = shown(text).replace("\n", "\\n")
    return line if len(line) <= most else line[: most - 3] + "..."
