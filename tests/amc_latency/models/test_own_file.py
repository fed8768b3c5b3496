"""FILE.py:FUNCTION: imported, called, and blamed where it raises."""

from __future__ import annotations

from pathlib import Path

import pytest

from amc_latency.errors import UserError
from amc_latency.models.own_file import load_function


def test_a_function_is_loaded_with_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "beside_it.py").write_text("SIZE = 7\n")
    (tmp_path / "torch.py").write_text(
        "from dataclasses import dataclass\n"
        "from beside_it import SIZE\n\n"
        "@dataclass\nclass Thing:\n    size: 'int'\n\n"
        "def build(size=SIZE):\n    return Thing(size)\n"
    )
    build = load_function(f"{tmp_path / 'torch.py'}:build")
    assert build().size == 7
    assert build(size=2).size == 2


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    for answer in (1, 22):
        file.write_text(f"def build():\n    return {answer}\n")
        # Two writes may share a tick of the file system's clock.
        import os

        os.utime(file, ns=(answer, answer))
        assert load_function(f"{file}:build")() == answer


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.py:build", r"missing\.py: no such file"),
        ("net.py", r"net\.py: say which function"),
        ("net.py:biuld", r"net\.py has no function biuld; did you mean build\?"),
        ("net.py:SIZE", r"net\.py has no function SIZE"),
        (":build", "FILE.py:FUNCTION"),
    ],
)
def test_what_is_not_there_is_said(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text("SIZE = 3\n\ndef build():\n    pass\n")
    with pytest.raises(UserError, match=message):
        load_function(name)


def test_a_link_to_what_is_no_python_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_text("def build():\n    pass\n")
    (tmp_path / "net.py").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(UserError, match=r"weights\.bin: its name does not end in \.py"):
        load_function(f"{tmp_path / 'net.py'}:build")


@pytest.mark.parametrize(
    ("code", "message", "line"),
    [
        ("def build():\n    return {}['a']\n", r"net\.py:build: build\(\) raised KeyError: 'a'", "line 2, in build"),
        ("import json\njson.loads('x')\n", r"net\.py: the file raised JSONDecodeError", "line 2, in <module>"),
        ("def build(:\n", r"net\.py: the file raised SyntaxError", "line 1"),
    ],
)
def test_the_users_traceback_is_printed_and_not_ours(
    code: str, message: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "net.py").write_text(code)
    with pytest.raises(UserError, match=message):
        load_function(f"{tmp_path / 'net.py'}:build")()
    printed = capsys.readouterr().err
    assert line in printed
    assert "own_file.py" not in printed
    assert "importlib" not in printed
