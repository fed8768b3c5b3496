"""What the library says names arguments: an option of the command line is another's word for one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from amc_latency.cli.main import spelled
from amc_latency.cli.wording import ALSO
from amc_latency.errors import OptionError, UserError
from amc_latency.search.config import SearchConfig, config_of

ROOT = Path(__file__).resolve().parents[2]
OTHERS = {
    "amc_latency/measuring/estimating.py": ["--device"],  # a whole command to type, also in report.html
    "amc_latency/cli": [],
    "android_bench": [],  # flags of the programs on the phone, of pip and of compilers
    "device/gpu/gpu_state.py": ["--format", "--id", "--query-compute-apps", "--query-gpu"],  # nvidia-smi's
    "device/host/host_state.py": ["--cpus", "--cpuset-cpus"],  # docker's
    "device/phone/install.py": ["--help"],  # benchmark_model's
    "lut/imports/import_log.py": ["--enable_op_profiling"],  # benchmark_model's
}
"""Files whose texts have flags that are no options of ours."""


def literals(path: Path) -> list[str]:
    """All texts of a module but its docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    # A docstring, of a module or of a field, is an expression on its own.
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    constants = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in alone]
    return [node.value for node in constants if isinstance(node.value, str)]


def settings_of(path: Path) -> list[str]:
    """How options are spelled where fields say so: nobody reads that as a message."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    keywords = [node for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "option"]
    return [node.value.value for node in keywords if isinstance(node.value, ast.Constant)]


def test_no_message_of_the_library_names_an_option() -> None:
    found: dict[str, list[str]] = {}
    for folder in ("amc_latency", "lut", "device", "android_bench"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            spelled_there = settings_of(path)
            texts = [text for text in literals(path) if text not in spelled_there]
            flags = sorted({flag for text in texts for flag in re.findall(r"--[a-z][\w-]*", text)})
            if flags:
                found[name] = flags
    unknown = {
        name: flags
        for name, flags in found.items()
        if not any(name.startswith(place) and (flags == these or not these) for place, these in OTHERS.items())
        and flags != ["--litert-library"]  # how PhoneOptions spells a field
    }
    assert unknown == {}


def test_every_argument_that_a_message_names_has_an_option_or_is_left_as_it_is() -> None:
    named = set()
    for folder in ("amc_latency", "lut", "device"):
        for path in (ROOT / folder).rglob("*.py"):
            for text in literals(path):
                named |= set(re.findall(r"`(\w+)(?:=[^`]*)?`", text))
    options = spelled()
    without = {name for name in named if ALSO.get(name, name) not in options}
    # `cores` and `batch` are keys of a device's profile, `expand` one of block tables, `sha256sum` a program.
    others = {"cores", "batch", "expand", "auto", "sha256sum"}
    # Data sets of a program's own, which no option could name.
    sets = {"ImageTask", "train", "held_back", "test"}
    assert without <= others | sets, without


def test_an_option_error_carries_the_argument() -> None:
    error = OptionError("seed", "is 0 or more, not -1")
    assert (error.fields, str(error)) == (("seed",), "`seed` is 0 or more, not -1")
    assert isinstance(error, UserError)
    both = OptionError(("rounds", "pareto"), "`rounds` and `pareto`: one of them")
    assert (both.fields, str(both)) == (("rounds", "pareto"), "`rounds` and `pareto`: one of them")


@pytest.mark.parametrize(
    ("settings", "fields", "text"),
    [
        ({"target_ms": -1}, ("target_ms",), "`target_ms` is a positive number of milliseconds, not -1"),
        ({"target_ms": 1, "speedup": 2}, ("target_ms", "speedup"), "`target_ms` or `speedup`"),
        ({"speedup": 0.5}, ("speedup",), "`speedup` is at least 1, not 0.5"),
        ({"speedup": 2, "agent": "dqn"}, ("agent",), "no agent is called 'dqn'"),
        ({"speedup": 2, "seed": -1}, ("seed",), "`seed` is from 0 to 1,000,000,000, not -1"),
        ({"speedup": 2, "episodes": -3}, ("episodes",), "`episodes` cannot be negative, not -3"),
        ({"speedup": 2, "corrections": 2, "correction_episodes": 0}, ("correction_episodes", "corrections"), "1 or"),
        ({"speedup": 2, "margin_pct": 50.0}, ("margin_pct",), "`margin_pct` is in 0..50, not 50"),
        ({"speedup": 2, "min_keep": 2.0}, ("min_keep",), "`min_keep` is a share above 0"),
        ({"speedup": 2, "rounds": 0}, ("rounds",), "`rounds` is 1 or more, not 0"),
        ({"target_params": -3.0}, ("target_params",), "`target_params` is a positive number of params, not -3"),
        ({"speedup": 2, "unlabelled": "a", "data": "b"}, ("unlabelled",), "takes the place of `data`"),
    ],
)
def test_a_program_reads_its_own_arguments_names(settings: dict, fields: tuple[str, ...], text: str) -> None:
    with pytest.raises(OptionError) as refused:
        SearchConfig(**settings)
    assert refused.value.fields == fields
    assert text in str(refused.value)
    assert "--" not in str(refused.value)


def test_a_target_in_percent_is_a_speedup_for_programs_too() -> None:
    assert config_of({"target_ms": "40%"}).speedup == 2.5
