"""Random weights are never taken in silence: they are refused, asked for, or said."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from amc_latency.cli.main import main
from amc_latency.errors import UserError
from amc_latency.models.load import NetworkOptions
from amc_latency.models.own_network import build
from amc_latency.models.spec import ModelSpec
from amc_latency.training.finetune import finetune_checkpoint

OWN = """
import torch
from torch import nn

def build():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    )

def loaded():
    model = build()
    with torch.no_grad():
        model[0].weight.fill_(0.5)
    return model
"""
SMALL = ("--input", "1x8x8")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    Path("net.py").write_text(OWN)
    torch.save(build(ModelSpec("net.py:build", input=(1, 8, 8)), "net.py:build").state_dict(), "w.pt")
    return tmp_path


@pytest.fixture
def run(own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["amc-latency", *arguments])
        code = 0
        try:
            main()
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        return code, capsys.readouterr().err

    return call


def test_export_asks_which_weights_of_an_own_network(run) -> None:
    code, said = run("export", "--model", "net.py:build", *SMALL, "--out", "x.tflite")
    assert code == 2
    assert "pass --weights FILE, --weights own if the function loads its own, or --weights random" in said
    assert not Path("x.tflite").exists()


def test_export_says_of_random_weights_that_they_are(run) -> None:
    for model in (("net.py:build", "--weights", "random"), ("lenet5",)):
        size = () if model[0] == "lenet5" else SMALL
        code, said = run("export", "--model", *model, *size, "--out", "x.tflite")
        assert code == 0, said
        assert f"{model[0]} has random weights: the file is good for its milliseconds alone" in said


@pytest.mark.parametrize(("model", "weights"), [("net.py:build", "w.pt"), ("net.py:loaded", "own"), ("bundled", None)])
def test_trained_weights_are_written_without_a_word(run, model: str, weights: str | None) -> None:
    size = () if weights is None else (*SMALL, "--weights", weights)
    code, said = run("export", "--model", model, *size, "--out", "x.tflite")
    assert code == 0, said
    assert "random" not in said


def test_own_weights_of_a_function_that_loads_none_are_refused(run) -> None:
    own = ("--model", "net.py:build", "--weights", "own", *SMALL)
    for command in (
        ("export", "--out", "x.tflite"),
        ("search", "--speedup", "2"),
        ("finetune", "--out", "x.safetensors"),
    ):
        code, said = run(*command, *own)
        assert code == 2
        assert "net.py:build loads no weights itself, they are others at each call" in said
    # One layer that is the same each time was loaded; what is new beside it may be what is to be trained.
    with pytest.raises(UserError, match=r"no data source|no such file"):
        finetune_checkpoint(
            NetworkOptions("net.py:loaded", input="1x8x8", weights="own"), Path("x"), 1, "nowhere.py:f", 0
        )


@pytest.mark.parametrize("command", ["inspect", "predict"])
def test_where_only_shapes_count_random_weights_are_said(run, command: str) -> None:
    code, said = run(command, "--model", "net.py:build", *SMALL)
    assert code == 0
    assert "net.py:build has random weights: no figure here depends on them" in said
    assert "random" not in run(command, "--model", "net.py:build", *SMALL, "--weights", "w.pt")[1]


@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        ((), "the file takes pixels of 0..1 normalised by 0.286/0.353 (fashion_mnist)"),
        (("--pixels", "half"), "the file takes pixels of 0..255, and normalises them itself by 0.5/0.5 (half)"),
    ],
)
def test_export_says_how_pixels_are_normalised(run, pixels: tuple[str, ...], says: str) -> None:
    code, said = run("export", *pixels, "--out", "x.tflite")
    assert code == 0, said
    assert says in said
