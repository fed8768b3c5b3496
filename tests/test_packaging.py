"""What the wheel holds, and that its import names collide with nobody's."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

from tests.test_arrows import ORDER

ROOT = Path(__file__).resolve().parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
OWN_DEVICE = "def pick() -> int:\n    return 7\n"
OWN_NETWORK = """
from device import pick
from lut import TABLE
from utils import twice

from torch import nn


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, twice(pick()), 3), nn.Flatten(), nn.Linear(14 * 6 * 6, TABLE["classes"]))
"""


def test_every_package_is_in_the_wheel() -> None:
    folders = [init.parent.relative_to(ROOT) for top in ORDER for init in (ROOT / top).rglob("__init__.py")]
    names = {".".join(folder.parts) for folder in folders}
    assert set(SETUPTOOLS["packages"]) == {
        name if name.startswith("amc_latency") else f"amc_latency.{name}" for name in names
    }


def test_every_shipped_file_is_in_the_wheel() -> None:
    """What lies beside the modules in git and is not Python must match a pattern, or be documentation."""
    listed = subprocess.run(["git", "ls-files", *ORDER], cwd=ROOT, capture_output=True, text=True, check=True)
    patterns = {
        name.removeprefix("amc_latency.") if name != "amc_latency" else name: globs
        for name, globs in SETUPTOOLS["package-data"].items()
    }
    for line in listed.stdout.splitlines():
        path = Path(line)
        if path.suffix == ".py" or path.name == ".gitignore":
            continue
        inner = path.relative_to(path.parts[0])
        assert any(inner.match(glob) for glob in patterns[path.parts[0]]), line


def test_a_users_own_device_lut_and_utils_are_found(tmp_path: Path) -> None:
    for name, text in {
        "device": OWN_DEVICE,
        "lut": 'TABLE = {"classes": 5}\n',
        "utils": "def twice(value: int) -> int:\n    return 2 * value\n",
        "net": OWN_NETWORK,
    }.items():
        (tmp_path / f"{name}.py").write_text(text)
    program = (
        "import torch, device, lut, utils, amc_latency as amc\n"
        "from amc_latency.lut.shapes.shape import LayerShape\n"
        "net = amc.network('net.py:network', torch.zeros(1, 3, 8, 8))\n"
        "print(device.pick(), lut.TABLE['classes'], utils.twice(2), LayerShape.__name__, type(net).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.startswith("7 5 4 LayerShape Network"), done.stderr


def test_a_users_own_modules_are_not_ours_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "device.py").write_text(OWN_DEVICE)
    (tmp_path / "lut.py").write_text('TABLE = {"classes": 5}\n')
    (tmp_path / "utils.py").write_text("def twice(value: int) -> int:\n    return 2 * value\n")
    (tmp_path / "net.py").write_text(OWN_NETWORK)
    command = [sys.executable, "-P", "-m", "amc_latency", "inspect", "--model", "net.py:network", "--input", "3x8x8"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "14" in done.stdout
