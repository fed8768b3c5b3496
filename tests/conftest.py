"""For all tests: each worker begins with long ones, so that none is left alone with them at the end."""

from __future__ import annotations

import signal
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`--dist=worksteal` begins with as many even shares of the list as there are workers, and moves quick tests later.

    A file's long tests stay together, as they may share what is made once.
    """
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    long: defaultdict[Path, list[pytest.Item]] = defaultdict(list)
    quick = []
    for item in items:
        (quick if item.get_closest_marker("slow") is None else long[item.path]).append(item)
    shares: list[list[pytest.Item]] = [[] for _ in range(workers)]
    for of_file in sorted(long.values(), key=len, reverse=True):
        min(shares, key=len).extend(of_file)
    for share in shares:
        few = max(0, len(items) // workers - len(share))
        share += quick[:few]
        del quick[:few]
    items[:] = [item for share in [*shares, quick] for item in share]


@pytest.fixture(scope="session", autouse=True)
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where tables and this computer's reference speed lie: the tests' own place, not the user's."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def precision_as_before() -> Iterator[None]:
    """A GPU worker that a test runs in this process sets how torch multiplies: torch.export refuses a mix."""
    loaded = sys.modules.get("torch")
    before = None if loaded is None else loaded.backends.cudnn.conv.fp32_precision
    yield
    if loaded is not None:
        loaded.backends.cudnn.conv.fp32_precision = before


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """A command that a test runs in this process would keep Ctrl-C from the tests after it."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
