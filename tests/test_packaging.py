"""What the wheel holds, and that its import names collide with nobody's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

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


OWN_SEARCH = """
import sys
import torch
from torch import nn
import amc_latency as amc

class Task:
    def calibration(self):
        return torch.randn(4, 16, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    def score(self, model, budget=None):
        return -float(model(next(iter(self.calibration()))).detach().square().mean())
    def digest(self):
        return "1"

torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4608, 4))
with amc.device("pixel1", estimate=True) as phone:
    result = amc.search(
        amc.network(model, torch.randn(1, 3, 16, 16)), phone, task=Task(), speedup=1.5, baselines="uniform", quiet=True
    )
amc.export(result.network, "small.tflite")
assert result.met
for name in ("amc_latency", "amc_latency.lut", "amc_latency.device", "amc_latency.android_bench"):
    print(sys.modules[name].__file__)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_wheel_works_outside_the_checkout(tmp_path: Path) -> None:
    """Built from what is in git alone; heavy packages are this environment's, so that no network is needed."""

    def run(*command: str | Path, cwd: Path) -> str:
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    source, env, empty = tmp_path / "source", tmp_path / "env", tmp_path / "empty"
    kept = ("PYTHONPATH", "PYTHONSAFEPATH", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in kept}
    environment |= {"OMP_NUM_THREADS": "1", "XDG_DATA_HOME": str(tmp_path / "data")}
    empty.mkdir()
    for name in run("git", "ls-files", "-z", cwd=ROOT).split("\0"):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, source, cwd=empty)
    shutil.rmtree(source)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(env, with_pip=False)
    python = env / "bin" / "python"
    run(*pip, "--python", python, "install", "--no-deps", "--no-compile", wheel, cwd=empty)
    own = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=empty).strip())
    # A path in it adds a folder and runs none of that folder's own .pth files: an editable install stays unseen.
    heavy = [each for each in sys.path if each.endswith("site-packages")]
    (own / "heavy.pth").write_text("\n".join(heavy))
    places = run(python, "-c", OWN_SEARCH, cwd=empty).split()[-4:]
    assert all(Path(place).is_relative_to(own) for place in places), places
    assert (empty / "small.tflite").stat().st_size > 0
    assert "0.1.0" in run(python, "-m", "amc_latency", "--version", cwd=empty)
    # Some of the bundled images: judging all 10,000 takes seconds.
    shutil.copyfile(ROOT / "tests" / "integration" / "few_images.py", empty / "few.py")
    quick = ("--episodes", "2", "--images", "50", "--calibration-images", "32", "--finetune-epochs", "0")
    names = ("--device", "pixel1", "--estimate", "--speedup", "1.5", "--baselines", "uniform", "--out", "run")
    names = (*names, "--data", "few.py:fewer_images", "--step", "32")
    run(env / "bin" / "amc-latency", "search", *names, *quick, cwd=empty)
    assert (empty / "run" / "ours.tflite").exists()
    run(*pip, "--python", python, "check", cwd=empty)
