"""One session at a time on a phone: two would spoil each other's timings."""

from __future__ import annotations

import fcntl
import hashlib
import os

from device.base import DeviceError


class PhoneLock:
    """Held from creation to `release`, or until this process ends. Raises `DeviceError` if another one holds it."""

    def __init__(self, serial: str) -> None:
        from platformdirs import user_cache_path

        folder = user_cache_path("amc-latency") / "phones"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{hashlib.sha256(serial.encode()).hexdigest()[:16]}.lock"
        self._descriptor: int | None = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.release()
            raise DeviceError(f"another amc-latency is timing on {serial}: wait for it to end") from error

    def release(self) -> None:
        """Let others have the phone; harmless when done twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
