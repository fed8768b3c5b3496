from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.growth import Cost, importable, least


def test_another_checkouts_code_is_run_without_any_of_this_one(tmp_path: Path) -> None:
    for part in ("amc_latency", "lut", "device", "android_bench"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "__init__.py").write_text("where = __file__\n")
    program = (
        "import amc_latency\nfrom amc_latency import android_bench, device, lut\n"
        "print(*(part.where for part in (amc_latency, lut, device, android_bench)))"
    )
    with importable(tmp_path) as code:
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=code.importable,
            env=code.environment,
            capture_output=True,
            text=True,
            check=True,
        )
    found = [str(Path(place).parent.name) for place in done.stdout.split()]
    assert found == ["amc_latency", "lut", "device", "android_bench"]
    assert all(place.startswith(str(code.importable)) for place in done.stdout.split())


def test_the_least_of_each_figure_counts_and_a_failure_stays() -> None:
    assert least([Cost(2.0, 1.5, 90.0, 0), Cost(1.0, 1.75, 80.0, 1)]) == Cost(1.0, 1.5, 80.0, 1)
