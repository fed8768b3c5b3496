"""The few bytes of an arm64 ELF file that decide who loads it, and those that keep glibc from loading Android's.

Layout and constants: the ELF-64 specification and its arm64 supplement.
"""

from __future__ import annotations

import struct

ANDROID_LINKER = "/system/bin/linker64"

_AARCH64 = 183
_LOADER, _DYNAMIC = 3, 2  # PT_INTERP, PT_DYNAMIC
_END = 0  # DT_NULL
_UNKNOWN = 0x6FFFFD00  # in a range that loaders skip
_CONSTRUCTORS = {25: "INIT_ARRAY", 27: "INIT_ARRAYSZ", 32: "PREINIT_ARRAY", 33: "PREINIT_ARRAYSZ"}
_DESTRUCTORS = {26: "FINI_ARRAY", 28: "FINI_ARRAYSZ"}
_VERSIONS = {0x6FFFFFF0: "VERSYM", 0x6FFFFFFE: "VERNEED", 0x6FFFFFFF: "VERNEEDNUM"}


def is_elf(data: bytes) -> bool:
    """Whether it is an ELF file of any kind."""
    return data[:4] == b"\x7fELF"


def loader(data: bytes) -> str | None:
    """The loader that an executable names, None for anything but a dynamically linked ELF-64 executable."""
    for kind, offset, size in _segments(data):
        if kind == _LOADER:
            return data[offset : offset + size].rstrip(b"\0").decode()
    return None


def is_arm64(data: bytes) -> bool:
    """Whether it is an ELF file for arm64."""
    return is_elf(data) and struct.unpack_from("<H", data, 18)[0] == _AARCH64


def for_glibc(data: bytes) -> bytes:
    """An Android executable so that glibc's loader takes it.

    Its imports lose their versions (`LIBC`, where glibc has `GLIBC_2.17`), and its constructors are hidden from the
    loader: `__libc_init` in `bionic.c` runs them.
    """
    patched = bytearray(data)
    for kind, offset, size in _segments(data):
        if kind != _DYNAMIC:
            continue
        for entry in range(offset, offset + size, 16):
            (tag,) = struct.unpack_from("<Q", data, entry)
            if tag == _END:
                break
            if tag in _CONSTRUCTORS or tag in _DESTRUCTORS or tag in _VERSIONS:
                struct.pack_into("<Q", patched, entry, _UNKNOWN + (tag & 0xFF))
    return bytes(patched)


def _segments(data: bytes) -> list[tuple[int, int, int]]:
    """Kind, offset and size of each segment of an ELF-64 file, little-endian."""
    if not is_elf(data) or data[4:6] != b"\x02\x01":
        return []
    (start,) = struct.unpack_from("<Q", data, 32)
    step, count = struct.unpack_from("<HH", data, 54)
    segments = []
    for index in range(count):
        kind, _, offset, _, _, size = struct.unpack_from("<IIQQQQ", data, start + index * step)
        segments.append((kind, offset, size))
    return segments
