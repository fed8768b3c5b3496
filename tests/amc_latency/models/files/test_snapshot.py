"""Weights that change while they are read, or afterwards: those of one moment, or a sentence."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from amc_latency.errors import UserError
from amc_latency.models.files import snapshot, weights
from amc_latency.models.files.checkpoint import is_of_own_file
from amc_latency.models.files.weights import read_tensors, read_weights

OURS = {"w": torch.arange(100_000.0)}
OTHERS = {"v": torch.ones(7, 7), "w": torch.full((100_000,), -1.0)}


def saved(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=path.suffix == ".pt")
    return path


ANY_KIND = pytest.mark.parametrize("name", ["net.safetensors", "net.pt", "old.pth"])


@ANY_KIND
def test_what_was_read_stays_when_the_file_is_written_anew_in_place(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path / name, OURS)
    found = read_weights(path)
    with path.open("r+b") as file:
        file.truncate(5)  # a mapped page that is gone would end the process
        file.write(bytes(1_000_000))
    assert torch.equal(found["w"], OURS["w"])


@ANY_KIND
def test_of_a_file_that_is_replaced_in_the_middle_nothing_is_mixed(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = saved(tmp_path / name, OURS), saved(tmp_path / f"other-{name}", OTHERS)
    for module, function in ((weights, "is_archive"), (torch, "load")):
        real: Callable[..., object] = getattr(module, function)

        def replacing(*arguments: object, real: Callable[..., object] = real, **options: object) -> object:
            if other.exists():
                os.replace(other, path)
            return real(*arguments, **options)

        monkeypatch.setattr(module, function, replacing)
    found = read_weights(path)
    assert found.keys() == OURS.keys()
    assert torch.equal(found["w"], OURS["w"])


def test_a_file_that_grows_while_it_is_copied_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "net.safetensors", OURS)

    def grow(n_bytes: int, what: str) -> None:
        with path.open("ab") as file:
            file.write(b"more")

    monkeypatch.setattr(snapshot, "check_memory", grow)
    with pytest.raises(UserError, match="was written to while it was read"):
        read_tensors(path)


@pytest.mark.timeout(20)
@ANY_KIND
def test_a_pipe_in_the_file_s_place_is_not_waited_for(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if it had come once the file was seen to be one.
    monkeypatch.setattr(weights, "_check_there", lambda path: None)
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match="no regular file"):
        read_weights(tmp_path / name)
    assert not is_of_own_file(tmp_path / name)
