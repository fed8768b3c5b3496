"""Whose outputs `finetune` follows, and what is left where the loss stops being a number."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch

from amc_latency.commands import finetune
from amc_latency.console import Console
from amc_latency.data import ImageData, load_data
from amc_latency.errors import JobError, OptionError, UserError
from amc_latency.models.files.checkpoint import load_checkpoint, save_checkpoint
from amc_latency.models.files.weights import weights_digest
from amc_latency.models.load import NetworkOptions
from amc_latency.models.registry import build_model
from amc_latency.models.spec import ModelSpec
from amc_latency.search.results.folder import uncut_of
from amc_latency.training import loop
from amc_latency.training.distillation import distance
from amc_latency.training.finetune import Settled
from amc_latency.training.recipe import Recipe, TrainConfig
from amc_latency.training.train import TrainCommandConfig, train

SPEC = ModelSpec("lenet5", input=(1, 28, 28), classes=10)
FOLLOWS = Recipe(distillation=1.0, learning_rate=0.02, batch_size=8)


class Heard(Console):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def warn(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> ImageData:
    whole = load_data("bundled")
    small = whole.with_splits(whole.train.take(40), whole.held_back.take(30), whole.test.take(30))
    monkeypatch.setattr("amc_latency.training.finetune.data_for", lambda *_, **__: small)
    monkeypatch.setattr("amc_latency.training.train.load_data", lambda *_: small)
    return small


def checkpoint(path: Path, seed: int, spec: ModelSpec = SPEC) -> Path:
    torch.manual_seed(seed)
    save_checkpoint(path, build_model(spec), spec)
    return path


def tuned(model: Path, out: Path, teacher: Path | None = None, **how: Any) -> tuple[torch.nn.Module, list[str]]:
    heard, recipe = Heard(), replace(FOLLOWS, **how)
    named = None if teacher is None else str(teacher)
    finetune(NetworkOptions(str(model)), recipe, named, out, 2, "bundled", 0, None, heard, min_accuracy=0)
    return load_checkpoint(out)[0], heard.lines


def far(network: torch.nn.Module, teacher: Path, data: ImageData) -> float:
    inputs = data.train.inputs((28, 28))
    with torch.no_grad():
        return float(distance(network(inputs), load_checkpoint(teacher)[0](inputs)))


def test_a_teacher_is_followed_and_the_network_itself_unless_there_is_one(
    tmp_path: Path, few: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    # By the last epoch's weights: networks that know nothing may be kept as they were.
    monkeypatch.setattr("amc_latency.training.finetune.settle", lambda *_: Settled(0.0, 0.0, 1.0, 0.0))
    own, other = (checkpoint(tmp_path / f"{seed}.safetensors", seed) for seed in (1, 2))
    alone, _ = tuned(own, tmp_path / "alone.safetensors")
    taught, lines = tuned(own, tmp_path / "taught.safetensors", other)
    assert any(line.startswith(f"the teacher is {other}, ") for line in lines), lines
    # Following what it says already, it stays nearer to that than one that follows another.
    assert far(alone, own, few) < far(taught, own, few)
    assert not list(tmp_path.glob("*.resume"))


def test_a_teacher_that_tells_something_else_is_refused(tmp_path: Path) -> None:
    own = checkpoint(tmp_path / "own.safetensors", 1)
    other = checkpoint(tmp_path / "other.safetensors", 1, replace(SPEC, classes=7))
    with pytest.raises(OptionError, match=r"`teacher` .*has input 1x28x28 and 7 classes, the network .* 10 classes"):
        tuned(own, tmp_path / "x.safetensors", other)
    with pytest.raises(UserError, match=r"nothing\.safetensors"):
        tuned(own, tmp_path / "x.safetensors", tmp_path / "nothing.safetensors")


def test_a_run_folder_says_which_network_was_cut(tmp_path: Path) -> None:
    uncut = checkpoint(tmp_path / "uncut.safetensors", 2)
    cut = checkpoint(tmp_path / "model.safetensors", 1)
    digest = weights_digest(load_checkpoint(uncut)[0])
    config: dict[str, Any] = {"model": str(uncut), "speedup": 2.0, "weights_sha256": digest}

    def write(**changed: Any) -> None:
        (tmp_path / "config.toml").write_text(tomli_w.dumps({**config, **changed}))

    assert uncut_of(NetworkOptions(str(cut))) is None
    write()
    assert uncut_of(NetworkOptions(str(cut))) == (NetworkOptions(str(uncut)), digest)
    assert uncut_of(NetworkOptions("mobilenet_v2")) is None
    _, lines = tuned(cut, tmp_path / "tuned.safetensors")
    assert any(f"the teacher is {uncut}" in line for line in lines)
    # Whatever a folder says, it is the user who names code that is run.
    write(model="evil.py:build")
    assert uncut_of(NetworkOptions(str(cut))) is None
    write(model="net.py:build", weights="w.pt")
    found = uncut_of(NetworkOptions("net.py:build", weights=str(cut)))
    assert found is not None
    assert found[0] == NetworkOptions("net.py:build", weights="w.pt")
    for text in ("", "[", "model = 3\n", 'model = "bundled"\nweights_sha256 = 1\n'):
        (tmp_path / "config.toml").write_text(text)
        assert uncut_of(NetworkOptions(str(cut))) is None


def test_an_uncut_network_that_has_changed_is_no_teacher(tmp_path: Path) -> None:
    uncut, cut = (checkpoint(tmp_path / name, 1) for name in ("uncut.safetensors", "model.safetensors"))
    (tmp_path / "config.toml").write_text(tomli_w.dumps({"model": str(uncut), "weights_sha256": "0" * 64}))
    _, lines = tuned(cut, tmp_path / "tuned.safetensors")
    assert any("is no teacher here (its weights have changed since): the network itself is" in line for line in lines)


def test_fine_tuning_that_diverges_keeps_the_network_before_it(tmp_path: Path) -> None:
    own = checkpoint(tmp_path / "own.safetensors", 1)
    network, lines = tuned(own, tmp_path / "out.safetensors", learning_rate=1e30, distillation=0.0)
    assert any("lower `learning_rate`, 1e+30 now. The network of the last whole epoch" in line for line in lines), lines
    assert weights_digest(network) == weights_digest(load_checkpoint(own)[0])


def test_training_that_diverges_leaves_the_epoch_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "net.safetensors"
    training = TrainConfig(epochs=3, image_size=(28, 28), low_resolution_epochs=0)
    config, checked, last = TrainCommandConfig(out, "lenet5", training=training), loop._check, 2

    def check(loss: float, epoch: int, plan: Any) -> None:
        checked(math.nan if epoch == last else loss, epoch, plan)

    monkeypatch.setattr(loop, "_check", check)
    with pytest.raises(
        JobError, match=rf"epoch 3: .*lower `learning_rate`.*The network of the epoch before it is {out}"
    ):
        train(config)
    assert load_checkpoint(out)[2]["epochs"] == "2"
    last = 0
    out.unlink()
    with pytest.raises(JobError, match="diverged in epoch 1"):
        train(config)
    assert not list(tmp_path.iterdir())
