"""The command line in this process, and what a user may expect of all that it says."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from typing import NamedTuple

from benchmarks.attacks.harness import Wrong

_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""What a terminal obeys, or shows as something else; line ends and tabs are what a program prints itself."""


class Said(NamedTuple):
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str


def command(*arguments: object) -> Said:
    """Run `amc-latency`. Raises what is a traceback to a user, and `Wrong` for words that are bad."""
    from amc_latency.cli.main import main

    out, err, argv = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["amc-latency", *map(str, arguments)]
    code = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else int(stopped.code is not None)
    finally:
        sys.argv = argv
    said = Said(code, out.getvalue(), err.getvalue())
    check_words(said)
    return said


def check_words(said: Said) -> None:
    """Raise `Wrong` for control characters, a traceback, and a failure that does not say why."""
    for text in (said.out, said.err):
        if found := _OBEYED.search(text):
            near = text[max(0, found.start() - 60) : found.start() + 20]
            raise Wrong(f"a control character is shown: {near!r}")
    if "Traceback" in said.err:
        raise Wrong(f"a traceback is shown: {said.err[-500:]!r}")
    words = said.err.strip().splitlines()
    if said.code not in (0, 1, 2):
        raise Wrong(f"exit code {said.code}")
    if said.code == 2 and (not words or words[-1].strip() in ("error:", "")):
        raise Wrong(f"exit code 2 and no reason: {said.err!r}")
    if said.code == 1 and not (words and words[-1].strip() != "error:") and not said.out:
        raise Wrong(f"exit code 1 and no reason: {said.err!r}")
