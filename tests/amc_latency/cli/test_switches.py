"""What every command takes: help, version, completion, quiet and verbose, and options made of dataclasses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import amc_latency
from amc_latency.arguments.settings import check_settings, positive, same, setting
from amc_latency.cli.main import app, main, spelled
from amc_latency.cli.signature import Given, command
from amc_latency.console import Console
from amc_latency.errors import JobError, OptionError
from amc_latency.search.config import SearchConfig

ROOT = Path(__file__).parents[3]
COMMANDS = ("devices", "profile", "predict", "inspect", "search", "train", "finetune", "export", "accuracy", "bench")
LUT = ("import", "show", "check", "diff", "merge", "export")


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["amc-latency", *map(str, arguments)])
    code: object = 0
    try:
        main()
    except SystemExit as stopped:
        code = stopped.code or 0
    captured = capsys.readouterr()
    assert isinstance(code, int)
    return code, captured.out, captured.err


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return lambda *arguments: run(monkeypatch, capsys, *arguments)


def test_the_help_of_every_command_loads_nothing_heavy() -> None:
    asked = [[], *([name] for name in COMMANDS), *(["lut", name] for name in LUT)]
    script = (
        "import contextlib, io, json, sys\nfrom amc_latency.cli.main import main\nfound = []\n"
        f"for words in {asked!r}:\n"
        "    for flag in ('-h', '--help'):\n"
        "        sys.argv = ['amc-latency', *words, flag]\n"
        "        with contextlib.redirect_stdout(io.StringIO()) as said:\n"
        "            try:\n                main()\n"
        "            except SystemExit as stopped:\n                assert not stopped.code, words\n"
        "        found.append(said.getvalue())\n"
        "heavy = [m for m in ('torch', 'numpy', 'scipy', 'ai_edge_litert') if m in sys.modules]\n"
        "print(json.dumps([found, heavy]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    pages, heavy = json.loads(done.stdout)
    assert heavy == []
    for short, long in zip(pages[::2], pages[1::2], strict=True):
        assert short == long
        assert "Usage:" in short
        assert "--quiet" in short
        assert "--verbose" in short


@pytest.mark.parametrize("start", [["-m", "amc_latency"], ["-c", "from amc_latency.__main__ import main; main()"]])
def test_a_module_and_a_script_are_one_program(start: list[str], tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-P", *start, "--version"], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert (done.returncode, done.stdout) == (0, f"amc-latency {amc_latency.__version__}\n")


def test_a_shell_completes_commands_and_options() -> None:
    def completed(words: str) -> list[str]:
        environment = {
            "_AMC_LATENCY_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        }
        result = CliRunner().invoke(app, [], prog_name="amc-latency", env=environment)
        return result.output.split()

    assert completed("amc-latency se") == ["search"]
    assert completed("amc-latency search --target-b") == ["--target-bytes"]


def test_the_options_of_a_search_are_its_settings_in_groups(ask) -> None:
    code, page, _ = ask("search", "--help")
    assert code == 0
    panels = [line.split("─")[1].strip() for line in page.splitlines() if line.startswith("╭─")]
    assert panels == ["Options", "Target", "Network", "Data", "Search", "Reward", "Training", "Device", "Output"]
    options = spelled()
    assert options.keys() >= {field.name for field in fields(SearchConfig)} - {"round"}
    assert options["warm_start"] == ("--warm-start", "--cold-start")
    assert options["library"] == ("--litert-library",)
    for field in fields(SearchConfig):
        assert field.name == "round" or options[field.name][0] in page


@pytest.mark.parametrize(
    "words", [("--quiet", "predict"), ("predict", "--quiet"), ("-q", "predict"), ("predict", "-q")]
)
def test_quiet_leaves_the_result_and_warnings(ask, words: tuple[str, ...]) -> None:
    model = ("--model", "lenet5", "--json")
    code, out, err = ask(*words, *model)
    assert code == 0
    assert json.loads(out)["macs"] > 0
    [warning] = err.splitlines()
    assert warning.startswith("no latency table for this device yet")
    _, same_out, more = ask("predict", *model)
    assert json.loads(same_out) == json.loads(out)
    assert "random weights" in more
    assert warning in more


@pytest.mark.parametrize("words", [("--verbose", "predict"), ("predict", "-v")])
def test_verbose_says_which_table_answered(ask, words: tuple[str, ...]) -> None:
    table = ROOT / "lut" / "tables" / "host-epyc-zen4.tsv"
    rest = ("--lut", table, "--model", "mobilenet_v1", "--json")
    code, out, err = ask(*words, *rest)
    assert code == 0
    assert f"table {table}, " in err
    plain_code, plain_out, plain_err = ask("predict", *rest)
    assert (plain_code, json.loads(plain_out)) == (0, json.loads(out))
    assert "table" not in plain_err


def test_verbose_shows_where_a_failed_job_failed(ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise JobError("no `lut` to be had")

    monkeypatch.setattr("amc_latency.commands.predict", failing)
    code, out, err = ask("predict")
    assert (code, out, err) == (1, "", "error: no --lut to be had\n")
    code, out, err = ask("predict", "--verbose")
    assert (code, out) == (1, "")
    assert "in failing" in err
    assert err.endswith("error: no --lut to be had\n")


def test_quiet_and_verbose_are_one_or_the_other(ask) -> None:
    for words in (("--quiet", "predict", "--verbose"), ("predict", "-q", "-v")):
        code, out, err = ask(*words)
        assert (code, out) == (2, "")
        assert err == "error: --quiet and --verbose are opposites: give one of them\n"


def doubled(text: str, name: str) -> float:
    return 2 * float(text)


@dataclass(frozen=True)
class Inner:
    size: int = setting(3, "how large", "Network")


@dataclass(frozen=True)
class Settings:
    size: int = same(Inner, "size")
    weight: float | None = setting(None, "how heavy", "Target", rule=positive(""), read=doubled)
    names: tuple[str, ...] = setting((), "who", option="--name")
    is_round: bool | None = setting(None, "whether round", option="--round/--square")
    hidden: int = 7

    def __post_init__(self) -> None:
        check_settings(self)


def test_a_dataclass_makes_a_commands_options_and_gets_those_that_were_given() -> None:
    small, seen = typer.Typer(), []

    @command(small, settings=Settings)
    def show(console: Console, given: set[str], settings: Given, file: str) -> None:
        """Show them."""
        seen.append((file, settings, given - {"file"}, Settings(**settings)))

    @command(small)
    def other() -> None:
        """Do nothing."""

    def called(*words: str) -> None:
        result = CliRunner().invoke(small, ["show", *words], catch_exceptions=False)
        assert result.exit_code == 0, result.output

    called("a")
    called("b", "--weight", "1.5", "--name", "x", "--name", "y", "--square", "--size", "3")
    assert seen[0] == ("a", {}, set(), Settings())
    values = {"size": 3, "weight": 3.0, "names": ("x", "y"), "is_round": False}
    assert seen[1] == ("b", values, set(values), Settings(3, 3.0, ("x", "y"), False))
    with pytest.raises(OptionError, match="`weight` is a positive number, not -2"):
        called("c", "--weight", "-1")
    refused = CliRunner().invoke(small, ["show", "d", "--hidden", "1"])
    assert refused.exit_code == 2
