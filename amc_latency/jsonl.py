"""One JSON object a line, appended as it comes: what a kill can tear is the last line, and that one is dropped."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

from amc_latency.errors import JobError, UserError


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All whole lines; a torn last one is cut off the file. Raises `UserError` naming a damaged line."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        os.truncate(path, len(whole))
    rows = []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number} is damaged: {line[:80]!r}. Start another folder")
        rows.append(row)
    return rows


def append_line(path: Path, row: dict[str, Any]) -> None:
    """Add one line with a single write. Raises `JobError` if it cannot be stored; the lines before still stand."""
    line = json.dumps(row).encode() + b"\n"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            if os.write(descriptor, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise JobError(
            f"cannot write {path}: {error.strerror}. What is there is kept: set it right and run again to go on"
        ) from error
