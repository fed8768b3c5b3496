"""Imports point one way: amc_latency -> lut -> device -> android_bench, and each loads only what it needs.

Within each of the four, and within the largest part of the first, none of its folders and modules depends on one that
depends on it.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
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
PROGRAMS = {
    "cuda_worker.py",
    "host_worker.py",
    "shapes_worker.py",
    "outputs_worker.py",
    "confined.py",
    "tflite_torch.py",
    "tflite_ops.py",
}
"""What runs in a process of its own, or there alone."""


def home_of(name: str) -> str:
    """The folder at the top that a module's full name lies in; the first part of its name, if in none."""
    first, _, rest = name.partition(".")
    second = rest.partition(".")[0]
    return second if first == "amc_latency" and second in ORDER else first


def imported(path: Path) -> set[str]:
    """Full names of what a file imports, wherever in it: for type checkers and within functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def imported_packages(path: Path) -> set[str]:
    return {home_of(name) for name in imported(path)}


def arrows(folder: Path, package: str) -> dict[str, set[str]]:
    """What each folder and module directly under `folder` imports of the others; `package` is its import name."""
    inside = {path.stem: [path] for path in folder.glob("*.py") if path.stem not in ("__init__", "__main__")}
    inside |= {path.name: found for path in folder.iterdir() if path.is_dir() and (found := list(path.rglob("*.py")))}
    found = {}
    for name, files in inside.items():
        names = {full for file in files for full in imported(file) if full.startswith(f"{package}.")}
        others = {full.removeprefix(f"{package}.").partition(".")[0] for full in names}
        found[name] = others & inside.keys() - {name}
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_points_back(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    upstream = set(ORDER[: ORDER.index(package)])
    assert not imported_packages(path) & upstream


@pytest.mark.parametrize("package", [*ORDER, "amc_latency/search"])
def test_there_are_no_circles(package: str) -> None:
    name = package.replace("/", ".")
    graph = arrows(ROOT / package, name if package.startswith("amc_latency") else f"amc_latency.{name}")
    assert sum(map(len, graph.values())) > 5
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"each imports the one after it: {' -> '.join(reversed(error.args[1]))}")


def test_a_circle_is_seen(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "deep.py").write_text("def f():\n    from pack.b import x\n")
    (tmp_path / "b.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pack.a.deep import f\n"
    )
    (tmp_path / "c.py").write_text("import pack.a.deep\nfrom pack import b\n")
    graph = arrows(tmp_path, "pack")
    assert graph == {"a": {"b"}, "b": {"a"}, "c": {"a", "b"}}
    with pytest.raises(CycleError):
        TopologicalSorter(graph).prepare()


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
