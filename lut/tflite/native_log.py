"""Keeps what LiteRT's C++ tells of itself off standard error: "INFO: Created TensorFlow Lite XNNPACK delegate ..."."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator

_CHATTER = (b"INFO:", b"VERBOSE:")


@contextlib.contextmanager
def without_chatter() -> Iterator[None]:
    """Whatever is written to standard error in here comes out at the end, without lines of mere information."""
    try:
        sys.stderr.flush()
        kept = os.dup(2)
    except (OSError, ValueError):
        # Nobody reads it.
        yield
        return
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            said = b"".join(line for line in file if not line.startswith(_CHATTER))
            with contextlib.suppress(OSError):
                os.write(2, said)
