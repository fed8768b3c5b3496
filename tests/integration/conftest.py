"""A home for commands that tests run, a search that takes a second, and the adb server of the device tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from amc_latency.device import profiles as profiles_module
from amc_latency.device.profiles import profiles

from amc_latency.cli.main import main
from amc_latency.search.config import SearchConfig
from amc_latency.search.judge import judge as judge_module
from amc_latency.search.judge.judge import Judge
from benchmarks.small_search import make_small_search
from tests.device.conftest import adb, adb_environment, adb_home
from tests.integration.command_line import PLACES, Cli, Outcome
from tests.integration.fork_server import ForkServer
from tests.integration.searches import NINE_OF_TEN

__all__ = ["adb", "adb_environment", "adb_home"]


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """A process that has imported what commands import."""
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def cli(tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer) -> Cli:
    """The command line, with a home that is empty at first but for a profile of a phone that is timed briefly.

    A busy computer is a phone whose speed drifts; that such timings are repeated is what the tests of devices look at.
    """
    home = tmp_path_factory.mktemp("user")
    for name in PLACES:
        (home / name).mkdir()
    own = home / "XDG_CONFIG_HOME" / "amc-latency" / "profiles" / "pixel1.toml"
    own.parent.mkdir(parents=True)
    shipped = Path(profiles_module.__file__).with_name("known") / own.name
    own.write_text(
        f"{shipped.read_text()}\n[timing]\nwarmup_ms = 0.0\nmin_time_ms = 1.0\n[trust]\ndrift_pct = 10000.0\n"
    )
    return Cli(home, fork_server)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> SearchConfig:
    """A search that takes a second: only what such a search is told to do may be looked at."""
    return make_small_search(tmp_path_factory.mktemp("small"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of the time of a short search, and nothing that such a test looks at."""
    monkeypatch.setattr(Judge, "tested", lambda *_: NINE_OF_TEN)
    monkeypatch.setattr(Judge, "file_tested", lambda *_: None)
    monkeypatch.setattr(judge_module, "FINALISTS", 2)


@pytest.fixture
def at_home(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The test's own process is at home there too."""
    for name in ("ADB_SERVER_SOCKET", "ANDROID_USER_HOME", "ANDROID_SERIAL", "ANDROID_ADB_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in cli.environment.items():
        monkeypatch.setenv(name, value)
    profiles.cache_clear()
    yield
    profiles.cache_clear()


@pytest.fixture
def run_here(
    at_home: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """The command line in this process, where a traceback would end the test."""

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["amc-latency", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run
