"""Damaged texts for the tests of parsers."""

from __future__ import annotations

from hypothesis import strategies as st


@st.composite
def damaged(draw: st.DrawFn, text: str) -> str:
    """`text` with one character changed, removed or put in, often a digit, or cut off somewhere."""
    at = draw(st.integers(0, len(text) - 1))
    put = draw(st.sampled_from("0123456789") | st.sampled_from(" \t\n.,=-%e") | st.characters())
    return draw(
        st.sampled_from(
            [text[:at] + put + text[at + 1 :], text[:at] + text[at + 1 :], text[:at] + put + text[at:], text[:at]]
        )
    )
