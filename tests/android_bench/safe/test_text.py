from __future__ import annotations

import unicodedata

from amc_latency.android_bench.safe.text import shown, shown_line
from hypothesis import given
from hypothesis import strategies as st


def test_a_terminal_gets_no_commands() -> None:
    assert shown("a\x1b[2Jb\x9bc") == "a\\x1b[2Jb\\x9bc"
    assert shown("abc\u202etxt.exe") == "abc\\u202etxt.exe"
    assert shown("ok\nnext é 漢") == "ok\nnext é 漢"
    assert shown("a\u061cb\u200bc\ufeffd\U000e0041e") == "a\\u061cb\\u200bc\\ufeffd\\U000e0041e"
    assert shown_line("two\nlines") == "two\\nlines"
    assert len(shown_line("x" * 1000, 50)) == 50


@given(st.text())
def test_nothing_but_line_ends_is_a_control_character(text: str) -> None:
    assert not [c for c in shown(text) if c != "\n" and unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
