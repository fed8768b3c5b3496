"""An adb server of the tests' own, on a port and with keys of its own: never the one that a developer runs."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Adb = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def adb_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home without keys."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def adb_environment(adb_home: Path) -> dict[str, str]:
    """What makes adb, and this project, look for keys and a server of the tests."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
    return {"HOME": str(adb_home), "ANDROID_ADB_SERVER_PORT": port}


@pytest.fixture
def own_adb(adb_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's own process looks there, and nowhere else."""
    for name in ("ADB_SERVER_SOCKET", "ANDROID_USER_HOME", "ANDROID_SERIAL", "ANDROID_ADB_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in adb_environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def adb(adb_environment: dict[str, str]) -> Iterator[Adb]:
    """The real adb client, with its server running."""
    if not shutil.which("adb"):
        pytest.skip("needs adb: apt-get install adb")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("ADB_", "ANDROID_"))}

    def call(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["adb", *arguments],
            env=environment | adb_environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )

    call("start-server").check_returncode()
    yield call
    call("kill-server")
