"""What this computer's sentinel took when it was first timed: the speed that all its later timings are given at."""

from __future__ import annotations

import contextlib
import json
import math
import os
from pathlib import Path


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

    def keep(self, key: str, sentinel_us: float, replace: bool = False) -> float:
        """The reference under `key` from now on: the one that is there already, unless `replace`."""
        self._known = self._read() | ({} if not replace else {key: sentinel_us})
        if key in self._known and not replace:
            return self._known[key]
        self._known[key] = sentinel_us
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(self._known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            partial.replace(self.path)
        except OSError as error:
            self.problem = f"cannot keep this computer's reference speed in {self.path}: {error.strerror or error}"
        finally:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
        return sentinel_us

    def _read(self) -> dict[str, float]:
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            known = {str(key): float(us) for key, us in found.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            self.problem = f"cannot read this computer's reference speed from {self.path} ({error}): a new one is taken"
            return {}
        return {key: us for key, us in known.items() if 0 < us < math.inf}
