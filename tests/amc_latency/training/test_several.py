"""Training in several processes, as `accelerate launch` starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from amc_latency.accelerator import ACCELERATORS, accelerator_of, is_first, launched
from amc_latency.console import Console
from amc_latency.errors import OptionError, UserError
from amc_latency.models.files.weights import read_tensors
from amc_latency.search.config import SearchConfig
from amc_latency.search.run import search
from amc_latency.training.several import Launched, Processes, processes

SCRIPT = """
import sys
from pathlib import Path

import torch
from torch import nn

from amc_latency.accelerator import accelerator_of
from amc_latency.data import InMemory
from amc_latency.models.files.weights import write_tensors
from amc_latency.pixels import Normalisation
from amc_latency.training.finetune import finetune_config
from amc_latency.training.loop import fit
from amc_latency.training.several import processes

out = Path(sys.argv[1])
torch.set_num_threads(1)
torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
device = accelerator_of("cpu")
reports = []
# 23 images: batches of 7 and 8, of which the processes have 3 and 4.
pixels = torch.randint(0, 256, (23, 1, 8, 8), dtype=torch.uint8)
split = InMemory(pixels, torch.arange(23) % 3, Normalisation((0.5,), (0.5,)))
config = finetune_config(3, (8, 8), 1, batch_size=8, learning_rate=0.05, ema_decay=0.9, epoch_steps=1)
fit(model.to(device), split, config, out / "state", reports.append)
number = processes(device).number
figures = torch.tensor([[report.loss, report.accuracy] for report in reports])
write_tensors(out / f"end{number}.safetensors", {**model.state_dict(), "figures": figures}, {})
"""


def test_one_process_is_the_first() -> None:
    assert launched() is None
    assert is_first()
    assert type(processes(torch.device("cpu"))) is Processes


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    monkeypatch.setitem(ACCELERATORS, "cuda", replace(ACCELERATORS["cuda"], found=lambda: ["A", "B"]))
    for name, value in {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert launched() == (1, 3)
    assert not is_first()
    assert accelerator_of(None) == accelerator_of("cuda") == torch.device("cuda:1")
    with pytest.raises(OptionError, match=r"`accelerator` cuda:0 is for one process"):
        accelerator_of("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(OptionError, match=r"cuda:2 is not there: there is cuda:0 \(A\), cuda:1 \(B\)"):
        accelerator_of("cuda")


def test_a_search_is_not_run_several_times_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="a search runs in one process"):
        search(SearchConfig(speedup=2, accelerator="cpu"), tmp_path / "run", Console(quiet=True))
    assert not list(tmp_path.iterdir())


def test_without_the_package_it_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(UserError, match=r"pip install 'amc-latency\[accelerate\]'"):
        Launched(torch.device("cpu"))


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="needs the extra `accelerate`")
    script, ends = tmp_path / "script.py", []
    script.write_text(SCRIPT)
    for count in (1, 2):
        out = tmp_path / str(count)
        out.mkdir()
        # What `accelerate launch` runs for GPUs; of CPUs it starts several by MPI alone.
        several = [] if count == 1 else ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        command = [sys.executable, *several, str(script), str(out)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "ACCELERATE_USE_CPU": "true"}
        )
        assert done.returncode == 0, done.stderr
        ends += [read_tensors(out / f"end{number}.safetensors")[0] for number in range(count)]
    one, first, second = ends
    torch.testing.assert_close(first, one, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(second, first, rtol=0, atol=0)
