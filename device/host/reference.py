"""What this computer's sentinel took when it was first timed: the speed that all its later timings are given at."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from amc_latency.android_bench.safe.files import read_bytes, replacing
from amc_latency.android_bench.safe.limits import CONFIG_BYTES
from amc_latency.android_bench.safe.records import RecordError, from_json


def reference_path() -> Path:
    """Where the references of this user's computers lie."""
    from platformdirs import user_data_path

    return user_data_path("amc-latency") / "reference_speed.json"


class ReferenceSpeeds:
    """The sentinel's microseconds by key, kept in a file: the first ones that were timed stay.

    A file that cannot be read or written costs nothing but the comparison with other days: `problem` then says why.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problem: str | None = None
        self._known = self._read()

    def get(self, key: str) -> float | None:
        """None where the sentinel was never timed under that key."""
        return self._known.get(key)

    def keep(self, key: str, sentinel_us: float) -> float:
        """The reference under `key` from now on: the one that is there already, if another process was first."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Cores that time side by side end their first timing at the same time.
            with _locked(self.path.with_name(f".{self.path.name}.lock")):
                self._known |= self._read()
                if key not in self._known:
                    self._known[key] = sentinel_us
                    self._write()
        except OSError as error:
            self._known.setdefault(key, sentinel_us)
            self.problem = f"cannot keep this computer's reference speed in {self.path}: {error.strerror or error}"
        return self._known[key]

    def _write(self) -> None:
        with replacing(self.path) as temporary:
            temporary.write_text(json.dumps(self._known, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    def _read(self) -> dict[str, float]:
        try:
            known = from_json(read_bytes(self.path, CONFIG_BYTES), dict[str, float])
        except FileNotFoundError:
            return {}
        except (OSError, RecordError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            self.problem = f"cannot read this computer's reference speed from {self.path} ({why}): a new one is taken"
            return {}
        return {key: us for key, us in known.items() if us > 0}


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process and one thread at a time."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
