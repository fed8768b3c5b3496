"""Files that lie in the working directory are not taken for packages by `python -m amc_latency`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_no_package_comes_from_the_working_directory(tmp_path: Path) -> None:
    for name in ("msgspec", "rich", "typer", "numpy", "platformdirs"):
        (tmp_path / f"{name}.py").write_text("from pathlib import Path\nPath('ran').touch()\nraise SystemExit(7)\n")
    ended = subprocess.run(
        [sys.executable, "-m", "amc_latency", "devices", "--json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert not (tmp_path / "ran").exists()
