"""Imports point one way: amc_latency -> lut -> device -> android_bench."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ORDER = ["amc_latency", "lut", "device", "android_bench"]
SOURCES = sorted(path for package in ORDER for path in (ROOT / package).rglob("*.py"))


def imported_packages(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_points_back(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    upstream = set(ORDER[: ORDER.index(package)])
    assert not imported_packages(path) & upstream


def test_from_shape_to_tflite_needs_no_torch() -> None:
    for name in ("shape", "writer", "architecture", "plan", "table", "predict", "build"):
        assert "torch" not in imported_packages(ROOT / "lut" / f"{name}.py")
