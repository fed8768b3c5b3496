"""Imports point one way: amc_latency -> lut -> device -> android_bench, and each loads only what it needs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ORDER = ["amc_latency", "lut", "device", "android_bench"]
SOURCES = sorted(path for package in ORDER for path in (ROOT / package).rglob("*.py"))
HEAVY = {"torch", "torchvision", "tensorflow", "scipy", "matplotlib", "gymnasium", "typer", "rich"}
LOADED = {
    "android_bench": {"msgspec"},
    "device": {"msgspec", "numpy", "ai_edge_litert", "flatbuffers", "adb_shell", "cryptography"},
    "lut": {"msgspec", "numpy", "ai_edge_litert", "flatbuffers"},
}
"""What importing every module of a package may load, of `HEAVY` and of these."""
PROGRAMS = {"cuda_worker.py", "host_worker.py", "shapes_worker.py", "confined.py", "tflite_torch.py", "tflite_ops.py"}
"""What runs in a process of its own, or there alone."""


def home_of(name: str) -> str:
    """The folder at the top that a module's full name lies in; the first part of its name, if in none."""
    first, _, rest = name.partition(".")
    second = rest.partition(".")[0]
    return second if first == "amc_latency" and second in ORDER else first


def imported_packages(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "amc_latency":
            names.update(f"amc_latency.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {home_of(name) for name in names}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_points_back(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    upstream = set(ORDER[: ORDER.index(package)])
    assert not imported_packages(path) & upstream


def test_from_shape_to_tflite_needs_no_torch() -> None:
    assert all("torch" not in imported_packages(path) for path in (ROOT / "lut").rglob("*.py"))


@pytest.mark.parametrize("package", LOADED)
def test_a_lower_package_loads_no_more_than_it_needs(package: str) -> None:
    files = [path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py") if path.name not in PROGRAMS]
    modules = ["amc_latency." + ".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files]
    looked_for = sorted(HEAVY.union(*LOADED.values()))
    program = (
        f"import importlib, sys\nfor name in {modules}: importlib.import_module(name)\n"
        f"print(*(name for name in {looked_for} if name in sys.modules))\n"
        "print(*(name for name in sys.modules if name.startswith('amc_latency.')))"
    )
    command = [sys.executable, "-P", "-c", program]
    loaded, own = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert set(loaded.split()) <= LOADED[package]
    assert {home_of(name) for name in own.split()} <= set(ORDER[ORDER.index(package) :])
