"""For all tests: the long ones first, so that neither of two workers is left alone with them at the end."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


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
