"""A file as it is at one moment, for libraries that open it more than once or map it into memory.

PyTorch reads an archive's directory and maps the file by its name, one after the other: of a checkpoint that a training
script replaces in between, the tensors are bytes of the one at places of the other. Of a mapped file that is written
anew in place, a page that is gone ends the process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from amc_latency.android_bench.safe.files import regular_file
from amc_latency.models.size import check_memory

_AT_ONCE = 1 << 24


@contextmanager
def snapshot(path: Path, most_bytes: int) -> Iterator[Path]:
    """The name, within the block, of a copy in memory, which nobody else can write to; what maps it may outlive it.

    Raises `OSError` as `regular_file` does and for a file that changed meanwhile, `UserError` where memory is short.
    """
    with regular_file(path, most_bytes) as file:
        before = os.fstat(file.fileno())
        # Once here, and once as tensors.
        check_memory(2 * before.st_size, str(path))
        copy = os.memfd_create("snapshot", os.MFD_CLOEXEC)
        try:
            left = before.st_size
            while left and (part := file.read(min(left, _AT_ONCE))):
                left -= len(part)
                written = memoryview(part)
                while written:
                    written = written[os.write(copy, written) :]
            after = os.fstat(file.fileno())
            if left or (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
                raise OSError(None, "was written to while it was read: try again once it is whole", str(path))
            yield Path(f"/proc/self/fd/{copy}")
        finally:
            os.close(copy)
