"""Weights from a file: what fits is loaded, what doesn't is named."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from amc_latency.errors import UserError
from amc_latency.models.files.weights import check_fit, put_weights, read_weights, weights_digest


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def saved(path: Path, content: Any) -> Path:
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_what_is_written_is_read(suffix: str, tmp_path: Path) -> None:
    tensors = network().state_dict()
    found = read_weights(saved(tmp_path / f"net{suffix}", tensors))
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("holder", ["state_dict", "model", "net"])
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", ""])
def test_a_training_scripts_wrapping_is_taken_off(holder: str, prefix: str, tmp_path: Path) -> None:
    wanted, other = network(0), network(1)
    tensors = {prefix + name: tensor for name, tensor in wanted.state_dict().items()}
    path = saved(tmp_path / "net.pth", {"epoch": 3, holder: tensors, "lr": 0.1})
    put_weights(path, other, read_weights(path))
    assert weights_digest(other) == weights_digest(wanted)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_networks_own_part_called_module_is_no_wrapping(prefix: str, tmp_path: Path) -> None:
    wanted, other = nn.ModuleDict({"module": network(0)}), nn.ModuleDict({"module": network(1)})
    tensors = {prefix + name: tensor for name, tensor in wanted.state_dict().items()}
    assert all(name.startswith("module.") for name in tensors)
    put_weights("net.pth", other, read_weights(saved(tmp_path / "net.pth", tensors)))
    assert weights_digest(other) == weights_digest(wanted)


def test_heads_of_training_and_counters_make_no_difference() -> None:
    wanted, other = network(0), network(1)
    tensors: dict[str, Tensor] = {**wanted.state_dict(), "aux1.fc.weight": torch.ones(1), "AuxLogits.a": torch.ones(1)}
    del tensors["1.num_batches_tracked"]
    put_weights("net", other, tensors)
    assert weights_digest(other) == weights_digest(wanted)


def test_the_first_three_mismatches_are_named() -> None:
    tensors = network().state_dict()
    tensors["0.weight"] = torch.zeros(4, 1, 3, 3)
    del tensors["1.weight"]
    tensors["3.bias"] = torch.zeros(7)
    tensors["head"] = torch.zeros(1)
    with pytest.raises(UserError) as error:
        check_fit("some.pth", network(), tensors)
    text = str(error.value)
    assert text.startswith("some.pth: ")
    for part in (
        "0.weight: the network has (4, 3, 3, 3), the file (4, 1, 3, 3)",
        "1.weight: the network has (4,), the file no such tensor",
        "3.bias: the network has (2,), the file (7,)",
        "and 1 more",
    ):
        assert part in text
    assert "head" not in text


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this code must not run",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3}, "holds a dict with epoch, not tensors"),
        ([1, 2], "holds a list, not tensors"),
        ({}, "holds a dict, not tensors"),
        (Runs(), "more than tensors"),
    ],
)
def test_what_holds_no_weights_is_refused(
    content: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=rf"net\.pt.*{message}"):
        read_weights(saved(tmp_path / "net.pt", content))
    assert "must not run" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["net.pt", "net.safetensors"])
def test_a_broken_file_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"{name}: no such file"):
        read_weights(tmp_path / name)
    whole = saved(tmp_path / name, network().state_dict()).read_bytes()
    for content in (b"", b"text", pickle.dumps("text"), whole[: len(whole) // 2]):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            read_weights(tmp_path / name)


def test_the_digest_tells_any_change_of_weights() -> None:
    model = network()
    digests = {weights_digest(model)}
    assert weights_digest(network()) in digests
    with torch.no_grad():
        model[3].bias[1] += 1e-6
        digests.add(weights_digest(model))
        model[1].running_var[0] = 2
        digests.add(weights_digest(model))
    digests.add(weights_digest(network().half()))
    assert len(digests) == 4
