"""Text from outside as it may be shown: a terminal obeys control characters, so none reaches it."""

from __future__ import annotations

import re

# C0 and C1 controls, DEL, line and paragraph separators, lone surrogates; what shows nothing or turns the direction of
# writing: a soft hyphen, marks and joiners of no width, a byte order mark, tags.
_UNSAFE = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def shown(text: str) -> str:
    """The text with control characters written out (`\\x1b`); line ends and everything printable stay."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def shown_line(text: str, most: int = 200) -> str:
    """The text on one line, cut to `most` characters: for a name or a value within a message."""
    line = shown(text).replace("\n", "\\n")
    return line if len(line) <= most else line[: most - 3] + "..."
