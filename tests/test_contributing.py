"""CONTRIBUTING.md: what it says to add works as it stands there, and what it names is there."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from amc_latency.device.base import Workload
from amc_latency.device.profiles import profiles
from amc_latency.device.registry import get_device, known_devices
from amc_latency.lut.shapes.architecture import Architecture, Layer
from amc_latency.lut.shapes.shape import LayerShape

from amc_latency.models.registry import build_model
from amc_latency.models.spec import ModelSpec
from amc_latency.search.costs.clamp import Clamp
from amc_latency.search.costs.costs import Counts, LatencyCosts
from amc_latency.search.episodes.problem import AgentOptions, Choice, Problem
from amc_latency.search.judge.rewards import make_reward
from amc_latency.search.judge.score import Score
from amc_latency.search.steps.methods import choose, search_episodes

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
FOLDERS = ("amc_latency", "lut", "device", "android_bench")


def blocks(heading: str) -> dict[str, str]:
    """The code under a heading, by the file that its first line names."""
    [section] = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    return dict(re.findall(r"^```\w+\n# ([^\n]+)\n(.*?)^```", section, re.DOTALL | re.MULTILINE))


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Do what stands under a heading: its modules can be imported, its records are in their dictionaries."""

    def add(heading: str) -> dict[str, str]:
        found = blocks(heading)
        assert sum(len(code.splitlines()) + 1 for code in found.values()) < 30
        for place, code in found.items():
            file, _, dictionary = place.partition(": ")
            if dictionary:
                monkeypatch.setitem(*record(file, dictionary, code))
            elif file.endswith(".py"):
                name = module_name(file)
                (tmp_path / "new.py").write_text(code)
                spec = importlib.util.spec_from_file_location(name, tmp_path / "new.py")
                assert spec is not None
                assert spec.loader is not None
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
                monkeypatch.setitem(sys.modules, name, module)
            assert not (ROOT / file).exists() or dictionary
        return found

    return add


def module_name(file: str) -> str:
    name = file.removesuffix(".py").replace("/", ".")
    return name if name.startswith("amc_latency.") else f"amc_latency.{name}"


def record(file: str, dictionary: str, line: str) -> tuple[dict[str, Any], str, Any]:
    """The dictionary that a line is for, the name there, and the record."""
    home = importlib.import_module(module_name(file))
    [written] = ast.parse(f"{{{line}}}").body
    assert isinstance(written, ast.Expr)
    assert isinstance(written.value, ast.Dict)
    [key], [value] = written.value.keys, written.value.values
    assert key is not None

    def made(node: ast.expr) -> Any:
        if not isinstance(node, ast.Call):
            return ast.literal_eval(node)
        assert isinstance(node.func, ast.Name)
        keywords = {each.arg: made(each.value) for each in node.keywords if each.arg}
        return getattr(home, node.func.id)(*map(made, node.args), **keywords)

    return getattr(home, dictionary), ast.literal_eval(key), made(value)


class Judge:
    """Every policy is as good as every other."""

    def __init__(self) -> None:
        self.asked: set[Counts] = set()

    def __call__(self, counts: Counts, best: float = 0.0) -> Score:
        return Score(0.5, 1.0, 100)


def problem(target_ms: float) -> Problem:
    layers = (
        Layer(LayerShape("conv", 3, 16, 8, 8, kernel=3, padding=1), None, 0),
        Layer(LayerShape("conv", 16, 40, 8, 8, kernel=3, padding=1), 0, 1),
        Layer(LayerShape("linear", 40, 10), 1, None),
    )
    # A hundredth of a millisecond an output channel.
    costs = LatencyCosts(Architecture(layers, (16, 40)), ((4, 8, 16), (8, 20, 40)), lambda shape: shape.c_out / 100)
    return Problem(Clamp(costs, target_ms), Judge(), make_reward("error", costs), 0, 0.1)  # type: ignore[arg-type]


def test_an_agent_is_added_as_it_says(added) -> None:  # type: ignore[no-untyped-def]
    added("Add an agent")
    records = search_episodes(problem(0.6), AgentOptions("narrowing", warm_start=False, episodes=3))
    # 16 + 40 + 10 hundredths are over the target: the second group pays for what the first one keeps.
    assert [record.counts for record in records] == [(16, 20), (8, 40), (4, 40)]


def test_a_baseline_is_added_as_it_says(added) -> None:  # type: ignore[no-untyped-def]
    added("Add a baseline")
    assert choose(problem(0.6), "halved", 5) == Choice((8, 20), 0)
    assert choose(problem(0.3), "halved", 5) == Choice((8, 8), 0)


def test_a_device_kind_is_added_as_it_says(added, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    profile = added("Add a device kind")["device/known/bench_board.toml"]
    folder = tmp_path / "amc-latency" / "profiles"
    folder.mkdir(parents=True)
    (folder / "bench_board.toml").write_text(profile)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    profiles.cache_clear()
    try:
        assert known_devices()["bench_board"] == "the board on the bench"
        with get_device("bench_board@3") as board:
            timings = list(board.time([Workload("ten", lambda: bytes(10))], board.protocol))
        assert board.identity.model == "board 3"
        assert [timing.latency_us(board.protocol) for timing in timings] == [10.0] * board.protocol.rounds
    finally:
        profiles.cache_clear()


def test_a_model_source_is_added_as_it_says(added) -> None:  # type: ignore[no-untyped-def]
    added("Add a model source")
    model = build_model(ModelSpec("tower:2", input=(1, 8, 8), classes=5))
    # Weights and biases of two convolutions and the classifier.
    assert sum(each.numel() for each in model.parameters()) == 9 * 16 + 16 + 9 * 16 * 16 + 16 + 16 * 5 + 5


def test_the_folders_of_the_house_are_there() -> None:
    [tree] = re.findall(r"^## The house\n\n(.*?)\n\n", TEXT, re.DOTALL | re.MULTILINE)
    named, above = [], [""]
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip()) - 4) // 2
        folders = re.match(r"\s*((?:\w+/\s+)+)", line)
        assert folders is not None, line
        for folder in folders[1].split():
            above[depth:] = [folder]
            named.append("".join(above))
    assert set(FOLDERS) <= {name.rstrip("/") for name in named}
    assert all((ROOT / name).is_dir() for name in named), [name for name in named if not (ROOT / name).is_dir()]
