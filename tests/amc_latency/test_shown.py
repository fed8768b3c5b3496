"""Text from files reaches a terminal with its control characters written out, and as no markup of Rich's."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest
from amc_latency.device.base import DeviceIdentity, Protocol, Summary, Timing
from amc_latency.lut.table.table import LatencyTable
from rich.table import Table

from amc_latency.cli.main import main
from amc_latency.console import Console, put, rich_console
from amc_latency.errors import JobError, error_text, exit_code

EVIL = "\x1b]0;owned\x07\x9b2J\u202e[/x][red]:smile:"
WRITTEN = r"\x1b]0;owned\x07\x9b2J\u202e[/x][red]:smile:"
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]")
PACKAGE = Path(__file__).parents[2] / "amc_latency"


def test_lines_and_cells_show_what_they_hold(capsys: pytest.CaptureFixture[str]) -> None:
    put(EVIL, 3, sep="|")
    Console().say(EVIL)
    with Console().progress(EVIL, 1) as meter:
        meter.update(1, note=EVIL)
    page = io.StringIO()
    table = Table(EVIL, title=EVIL)
    table.add_row(EVIL)
    rich_console(file=page, width=140).print(table)
    out, said = capsys.readouterr()
    assert out == f"{WRITTEN}|3\n"
    assert said == f"{WRITTEN}\n{WRITTEN}: 1/1, {WRITTEN}\n"
    assert page.getvalue().count(WRITTEN) == 3
    assert not CONTROL.search(page.getvalue())


def test_a_bar_on_a_terminal_shows_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("sys.stderr", Terminal())
    console = Console()
    with console.progress(EVIL, 1) as meter:
        console.say(EVIL)
        meter.update(1, note=EVIL)
    shown = sys.stderr.getvalue()  # type: ignore[attr-defined]
    # A terminal may colour the parts, so they are looked for one by one.
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert plain.count(WRITTEN) >= 3
    assert not re.search("[\x07\x9b\u202e]|\x1b\\]", shown)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["amc-latency", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_a_tables_own_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.tsv"
    with LatencyTable.create(path, DeviceIdentity(EVIL, EVIL, EVIL), Protocol()) as table:
        us = Summary(1.0, 1.0, 1.0, 0.0)
        for c in (8, 16, 24):
            table.append(Timing(f"conv 8x8x8>{c} k1 s1 p0 none float32", 0, 5, us, us))
        table.append(Timing("conv 8x8x8>32 k1 s1 p0 none float32", 0, error=EVIL))
    for command in ("show", "check"):
        assert run(monkeypatch, "lut", command, str(path)) == 0
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert run(monkeypatch, "lut", "export", str(path), "--csv", "-") == 0
    out, said = capsys.readouterr()
    assert WRITTEN in out
    assert not CONTROL.search(out + said)
    path.write_bytes(path.read_bytes() + EVIL.encode() + b"\n")
    assert run(monkeypatch, "lut", "show", str(path)) == 2
    out, said = capsys.readouterr()
    assert said.startswith("error: ")
    assert WRITTEN in said
    assert not CONTROL.search(out + said)


def test_everything_is_printed_in_one_place() -> None:
    # Rich's console may be named as a type alone.
    prints = re.compile(r"(?<![.\w])print\(|sys\.std(out|err)\.write|^from rich\.console import|typer\.echo")
    found = {
        path.relative_to(PACKAGE).as_posix(): line.strip()
        for path in PACKAGE.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if prints.search(line) and path.name != "console.py"
    }
    assert found == {"cli/options.py": "print(json.dumps(value))"}


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 65"),
    ],
)
def test_memory_that_runs_out_is_a_sentence(error: Exception) -> None:
    assert exit_code(error) == 1
    assert error_text(error).startswith("there was not enough memory for this: close other programs")
    assert error_text(JobError("the GPU is out of memory")) == "the GPU is out of memory"
    assert exit_code(RuntimeError("a fault")) is None
