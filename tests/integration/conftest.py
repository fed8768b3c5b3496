"""A home for commands that tests run, and the adb server of the device tests."""

from __future__ import annotations

import pytest

from tests.device.conftest import adb, adb_environment, adb_home
from tests.integration.command_line import Cli

__all__ = ["adb", "adb_environment", "adb_home"]


@pytest.fixture(scope="session")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """The command line, with a home that is empty at first."""
    home = tmp_path_factory.mktemp("user")
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        (home / name).mkdir()
    return Cli(home)


@pytest.fixture
def at_home(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's own process is at home there too."""
    for name in ("ADB_SERVER_SOCKET", "ANDROID_USER_HOME", "ANDROID_SERIAL", "ANDROID_ADB_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in cli.environment.items():
        monkeypatch.setenv(name, value)
