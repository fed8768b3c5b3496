"""Typos that are refused before anything heavy is imported: in a process of its own, without torch at the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TABLE = Path(__file__).parents[3] / "lut" / "tables" / "host-epyc-zen4.tsv"
SEARCH = ("search", "--speedup", "2")
REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "no target": (("search",), "--reward loss needs a budget"),
    "device": ((*SEARCH, "--device", "pixl8"), "there is no device 'pixl8'"),
    "device of a phone": ((*SEARCH, "--device", "pixl8@0123"), "there is no device 'pixl8'"),
    "replay": ((*SEARCH, "--device", "replay"), "name one with --lut"),
    "replay of nothing": ((*SEARCH, "--device", "replay", "--lut", "host.tsv"), "there is no latency table host.tsv"),
    "out is a file": ((*SEARCH, "--out", "file"), "exists and is not a run folder"),
    "out in a file": ((*SEARCH, "--out", "file/run"), "file/run cannot be made (Not a directory)"),
    "front in a file": ((*SEARCH, "--pareto", "2", "--out", "file"), "file/target-1 cannot be made"),
    "rounds in a file": ((*SEARCH, "--rounds", "2", "--out", "file"), "file/round-1 cannot be made"),
    "table": ((*SEARCH, "--lut", "hots.tsv"), "no latency table hots.tsv; did you mean hosts.tsv? Or make one"),
    "no table": ((*SEARCH, "--lut", "data.csv"), "no latency table data.csv: make one with `amc-latency profile`"),
    "a folder as table": ((*SEARCH, "--lut", "."), "cannot read the latency table ."),
    "other file as table": ((*SEARCH, "--lut", "file"), "is not a latency table"),
    "estimate": ((*SEARCH, "--estimate", "--device", "galaxy_s24"), "no cost model to estimate galaxy_s24 by"),
    "data": ((*SEARCH, "--data", "fashon"), "no data source is called"),
    "folder": ((*SEARCH, "--data", "folder:nowhere"), "nowhere: no such folder"),
    "unlabelled": ((*SEARCH, "--unlabelled", "nowhere"), "--unlabelled nowhere: no such folder"),
    "accuracy": ((*SEARCH, "--min-accuracy", "101"), "--min-accuracy is a percentage, not 101"),
    "profile device": (("profile", "--device", "pixl8"), "there is no device 'pixl8'"),
    "profile table": (("profile", "--lut", "file/x.tsv"), "--lut file/x.tsv cannot be made"),
    "profile of no table": (("profile", "--lut", "file"), "is not a latency table"),
    "predict": (("predict", "--lut", "hots.tsv"), "did you mean hosts.tsv?"),
    "predict device": (("predict", "--device", "pixl8"), "there is no device 'pixl8'"),
    "predict replay": (("predict", "--device", "replay"), "name one with --lut"),
    "inspect": (("inspect", "--lut", "hots.tsv"), "did you mean hosts.tsv?"),
    "show": (("lut", "show", "hots.tsv"), "did you mean hosts.tsv?"),
    "check": (("lut", "check", "hots.tsv"), "did you mean hosts.tsv?"),
    "export": (("export", "--out", "file/x.tflite"), "cannot be made"),
    "precision": (("export", "--out", "x.tflite", "--precision", "int7"), "no precision is called 'int7'"),
    "no calibration": (("export", "--out", "x.tflite", "--precision", "int8"), "--data is missing: int8 needs"),
    "export data": (("export", "--out", "x.tflite", "--data", "fashon"), "no data source is called"),
    "accuracy of no file": (("accuracy", "nowhere.tflite"), "cannot read nowhere.tflite"),
    "accuracy data": (("accuracy", "file", "--data", "folder:nowhere"), "no such folder"),
    "train": (("train", "--out", "file/x.safetensors"), "cannot be made"),
    "train data": (("train", "--out", "x.safetensors", "--data", "fashon"), "no data source is called"),
    "finetune": (("finetune", "--out", "file/x.safetensors"), "cannot be made"),
    "finetune data": (("finetune", "--out", "x.safetensors", "--data", "folder:nowhere"), "no such folder"),
}
SCRIPT = """
import contextlib, io, json, sys
from amc_latency.cli.main import main
outcomes = {}
for name, arguments in json.load(sys.stdin).items():
    sys.argv, code = ["amc-latency", *arguments], 0
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(said):
        try:
            main()
        except SystemExit as stopped:
            code = stopped.code
    outcomes[name] = [code, said.getvalue(), sorted({"torch", "torchvision", "scipy"} & set(sys.modules))]
print(json.dumps(outcomes))
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list]:
    folder = tmp_path_factory.mktemp("here")
    (folder / "file").write_text("something else\n")
    (folder / "hosts.tsv").write_bytes(TABLE.read_bytes())
    arguments = json.dumps({name: arguments for name, (arguments, _) in REFUSED.items()})
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "XDG_DATA_HOME": str(folder)}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(
        command, input=arguments, cwd=folder, env=here, capture_output=True, text=True, check=True, timeout=250
    )
    assert sorted(path.name for path in folder.iterdir()) == ["file", "hosts.tsv"]
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", REFUSED)
def test_a_typo_costs_no_import(outcomes: dict[str, list], name: str) -> None:
    code, said, heavy = outcomes[name]
    assert code == 2
    assert REFUSED[name][1] in said
    assert len(said.strip().splitlines()) == 1
    assert heavy == []
