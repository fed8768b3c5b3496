"""A zip archive of weights, looked at before PyTorch reads it: it may hold no more than the file itself stores."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO

from amc_latency.android_bench.safe.limits import COUNT, MB, PICKLE_BYTES
from amc_latency.models.files.pickles import why_not_run

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_MOST_DIRECTORY = 100 * MB
_PICKLED = "data.pkl"


def is_archive(path: Path) -> bool:
    """Whether the file begins as a zip archive does. May raise OSError."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def why_not_stored(path: Path) -> str | None:
    """What keeps the archive from being read as it is: an entry that grows when it is unpacked; None for a sound one.

    PyTorch writes each entry as it is, so its size is that of its bytes in the file. May raise OSError.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        reason = _why_no_directory(file, size)
        if reason is not None:
            return reason
        try:
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
                for entry in entries:
                    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                        return (
                            f"its entry {entry.filename} is compressed: pack it as torch.save does, without compression"
                        )
                if sum(entry.file_size for entry in entries) > size:
                    return "its entries overlap"
                for entry in entries:
                    if entry.filename.rpartition("/")[2] == _PICKLED:
                        if entry.file_size > PICKLE_BYTES:
                            return f"its {_PICKLED} is larger than {PICKLE_BYTES / MB:.0f} MB: save tensors alone"
                        if (reason := why_not_run(io.BytesIO(archive.read(entry)))) is not None:
                            return reason
        except (zipfile.BadZipFile, NotImplementedError, ValueError, RuntimeError, EOFError) as error:
            return f"it is a broken zip archive ({error})"
    return None


def _why_no_directory(file: BinaryIO, size: int) -> str | None:
    """Python's reader and PyTorch's must find the same directory: without a comment, and right before the end."""
    broken = "it is a broken zip archive, or has something behind it: copy it anew"
    if size < _END.size:
        return broken
    file.seek(size - _END.size)
    sign, *_, entries, directory, offset, comment = _END.unpack(file.read(_END.size))
    end = size - _END.size
    if sign != b"PK\x05\x06" or comment:
        return broken
    if end >= _LOCATOR.size + _END_64.size:
        file.seek(end - _LOCATOR.size)
        sign, _, at, _ = _LOCATOR.unpack(file.read(_LOCATOR.size))
        if sign == b"PK\x06\x07":
            end -= _LOCATOR.size + _END_64.size
            if at != end:
                return broken
            file.seek(at)
            short = ((entries, 0xFFFF), (directory, 0xFFFFFFFF), (offset, 0xFFFFFFFF))
            sign, *_, entries, directory, offset = _END_64.unpack(file.read(_END_64.size))
            agree = zip((entries, directory, offset), short, strict=True)
            if sign != b"PK\x06\x06" or any(either not in (long, most) for long, (either, most) in agree):
                return broken
    if offset + directory != end:
        return broken
    if entries > COUNT or directory > _MOST_DIRECTORY:
        return f"it has {entries:,} entries, more than any network has tensors"
    return None
