"""Where things are computed: which accelerators there are, and what is done where memory runs out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from amc_latency.accelerator import (
    ACCELERATORS,
    accelerator_of,
    autocast_dtype,
    float64_device,
    halving,
    on,
    say_where,
)
from amc_latency.cli.main import app
from amc_latency.console import Console
from amc_latency.errors import JobError, OptionError
from amc_latency.search.config import SearchConfig
from amc_latency.training.train import TrainCommandConfig, train

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    found = replace(ACCELERATORS["cuda"], found=lambda: ["NVIDIA A", "NVIDIA B"], dtype=lambda: torch.bfloat16)
    monkeypatch.setitem(ACCELERATORS, "cuda", found)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cuda", "mps"):
        monkeypatch.setitem(ACCELERATORS, name, replace(ACCELERATORS[name], found=lambda: []))


def test_a_gpu_is_taken_where_there_is_one(two_gpus: None) -> None:
    assert accelerator_of(None) == accelerator_of("auto") == accelerator_of("cuda") == torch.device("cuda:0")
    assert accelerator_of("cuda:1") == torch.device("cuda:1")
    assert accelerator_of("cpu") == CPU


def test_the_cpu_is_taken_where_there_is_none(no_gpu: None) -> None:
    assert accelerator_of(None) == accelerator_of("auto") == CPU


def test_one_that_is_not_there_is_refused_with_what_there_is(two_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ACCELERATORS, "mps", replace(ACCELERATORS["mps"], found=lambda: []))
    there = r"there is cuda:0 \(NVIDIA A\), cuda:1 \(NVIDIA B\), cpu \(this computer's CPU\)"
    for name in ("cuda:2", "mps"):
        with pytest.raises(OptionError, match=f"`accelerator` {name} is not there: {there}"):
            accelerator_of(name)


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "auto:1", "cuda:-1", "CUDA", "", "cuda:1000", "cpu "])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match="`accelerator` is auto, cpu, cuda, cuda:1 or mps, not"):
        accelerator_of(name)
    with pytest.raises(OptionError, match="`accelerator` is auto"):
        SearchConfig(speedup=2, accelerator=name)


@pytest.mark.parametrize("command", ["search", "train", "finetune"])
def test_every_command_that_computes_refuses_one_that_is_not_there(
    command: str, no_gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = ["--speedup", "2"] if command == "search" else ["--out", "x.safetensors"]
    with pytest.raises(OptionError, match="cuda is not there: there is cpu"):
        CliRunner().invoke(app, [command, "--accelerator", "cuda", *out], catch_exceptions=False)
    assert not list(tmp_path.iterdir())


def test_it_is_refused_before_any_image_is_read(no_gpu: None) -> None:
    with pytest.raises(OptionError, match="cuda is not there"):
        train(TrainCommandConfig(Path("x"), source="nowhere", accelerator="cuda"))


def test_gpus_compute_in_half_and_others_in_float32(two_gpus: None) -> None:
    for wanted in (None, "auto", "bfloat16", "float16"):
        assert autocast_dtype(CPU, wanted) is None
    assert autocast_dtype(CUDA, None) == autocast_dtype(CUDA, "auto") == torch.bfloat16
    assert autocast_dtype(CUDA, "float16") == torch.float16
    assert autocast_dtype(CUDA, "off") is None
    assert autocast_dtype(MPS, None) is None


def test_a_gpu_that_computes_is_named(two_gpus: None, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("cpu", "cuda", "cuda:1"):
        say_where(accelerator_of(name), Console())
    assert capsys.readouterr().err == "computing on cuda:0, NVIDIA A\ncomputing on cuda:1, NVIDIA B\n"


def test_float64_is_computed_where_there_is_some() -> None:
    assert float64_device(MPS) == CPU
    assert float64_device(CUDA) == CUDA


def test_a_batch_is_halved_as_long_as_memory_runs_out() -> None:
    tried, said = [], []

    def run(size: int) -> str:
        tried.append(size)
        if size > 30:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return "done"

    assert halving(run, 100, CPU, said.append) == ("done", 25)
    assert tried == [100, 50, 25]
    assert said == [f"not enough memory on cpu for a batch of {n}: it is halved to {n // 2}" for n in (100, 50)]
    with pytest.raises(JobError, match="not enough memory on cpu even for a batch of 50"):
        halving(run, 100, CPU, said.append, least=40)


def test_another_error_is_not_taken_for_that() -> None:
    def run(size: int) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        halving(run, 100, CPU, print)


def test_a_module_elsewhere_is_a_copy() -> None:
    module = nn.Linear(2, 2)
    assert on(module, CPU) is module
    other = on(module, torch.device("meta"))
    assert other.weight.device.type == "meta"
    assert module.weight.device.type == "cpu"
