"""One session at a time on a phone: two would spoil each other's timings."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shlex

from amc_latency.device.adb.transport import Transport
from amc_latency.device.base import DeviceError

_FRESH_S = 60
"""A session that times looks after its script far more often than that."""


class PhoneLock:
    """Held from creation to `release`, or until this process ends. Raises `DeviceError` if another one holds it.

    A file on this computer tells sessions that know the phone by the same name apart from killed ones; `claim` does the
    same, on the phone itself, for sessions of other users, computers and names.
    """

    def __init__(self, serial: str) -> None:
        from platformdirs import user_cache_path

        folder = user_cache_path("amc-latency") / "phones"
        # Whoever has this name has also the file, so of two owners of the same name one is gone.
        who = f"{platform.node()} {os.getuid()} {folder} {serial}"
        self._owner = hashlib.sha256(who.encode()).hexdigest()[:16]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{self._owner}.lock"
            self._descriptor: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise DeviceError(
                f"cannot write to the cache folder {folder} ({error.strerror}): set XDG_CACHE_HOME to another"
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.release()
            raise _taken(serial) from error

    def claim(self, transport: Transport, root: str) -> None:
        """Take the phone itself, whose files are under `root`. Raises `DeviceError` if another session times there."""
        said = transport.run(
            f"mkdir -p {shlex.quote(root)} && cd {shlex.quote(root)} || exit 1; owner=; age=999; busy=0\n"
            "[ -e owner ] && read -r owner < owner && age=$(( $(date +%s) - $(stat -c %Y owner) ))\n"
            "for f in run-*/pid-*; do [ -e $f ] || continue\n"
            "grep -q run-${f##*-}.sh /proc/$(cat $f)/cmdline && busy=1; done 2>/dev/null\n"
            f'case "$owner $busy" in "{self._owner} "*|*" 0") ;; *) '
            f"[ $age -lt {_FRESH_S} ] && {{ echo taken; exit; }} ;; esac; echo {self._owner} > owner"
        )
        if said.output.strip() == "taken":
            raise _taken(transport.serial)

    def release(self) -> None:
        """Let others have the phone; harmless when done twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _taken(serial: str) -> DeviceError:
    return DeviceError(f"another amc-latency is timing on {serial}: wait for it to end")
