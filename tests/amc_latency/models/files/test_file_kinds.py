"""What is given as --model, --weights or --data by mistake is named, with what to say in its place."""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from amc_latency.lut.building.layer_model import layer_model
from amc_latency.lut.shapes.shape import LayerShape
from safetensors.torch import save_file
from torch import nn

from amc_latency.data import load_data
from amc_latency.errors import UserError
from amc_latency.models.files.weights import read_weights
from amc_latency.models.load import NetworkOptions, load_network


class Net(nn.Sequential):
    """A whole one of these is pickled by its name."""


def net() -> nn.Module:
    return Net(nn.Conv2d(3, 4, 3), nn.Flatten()).eval()


def zipped(**members: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in members.items():
            archive.writestr(name.replace("__", "/"), text)
    return buffer.getvalue()


def saved(save: Any, *args: Any) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):
        save(*args, buffer)
    return buffer.getvalue()


def scripted() -> bytes:
    with warnings.catch_warnings(action="ignore"):
        return saved(torch.jit.save, torch.jit.script(net()))


def exported() -> bytes:
    return saved(torch.export.save, torch.export.export(net(), (torch.zeros(1, 3, 3, 3),)))


FOREIGN: dict[str, tuple[Any, str]] = {
    "script.pt": (scripted, "TorchScript, as torch.jit.save writes it.*torch.save"),
    "export.pt2": (exported, "what torch.export.save writes.*torch.save"),
    "net.tflite": (lambda: layer_model(LayerShape("add", 8, 8, h=4, w=4)), "a .tflite, .*amc-latency bench"),
    "renamed.pth": (lambda: layer_model(LayerShape("add", 8, 8, h=4, w=4)), "a .tflite, "),
    "net.onnx": (lambda: b"\x08\x07\x12\x07pytorch", "an ONNX file"),
    "net.h5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(64), "an HDF5 file, such as Keras's"),
    "net.keras": (lambda: zipped(**{"config.json": "{}", "model.weights.h5": ""}), "a Keras model"),
    "net.npz": (lambda: saved(lambda array, file: np.savez(file, a=array), np.ones(3)), "a NumPy archive"),
    "net.npy": (lambda: saved(lambda array, file: np.save(file, array), np.ones(3)), "a NumPy array"),
    "net.gguf": (lambda: b"GGUF" + bytes(64), "a GGUF file"),
    "lfs.pth": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS"),
    "page.pth": (lambda: b"<!DOCTYPE html><html>", "a web page, not the file"),
    "packed.pth.gz": (lambda: b"\x1f\x8b\x08" + bytes(64), "a gzip archive"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_files_that_are_no_weights_are_named(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    make, message = FOREIGN[name]
    path = tmp_path / name
    path.write_bytes(make())
    recwarn.clear()
    with pytest.raises(UserError, match=rf"{re.escape(name)} is {message}") as refusal:
        read_weights(path)
    assert "\n" not in str(refusal.value)
    with pytest.raises(UserError, match=rf"{re.escape(name)} is {message}"):
        load_network(NetworkOptions(str(path)))
    # PyTorch's own warnings would name our source and advise what is not safe.
    assert not recwarn.list
    assert not capsys.readouterr().err


def test_a_whole_pickled_model_is_named_as_such(tmp_path: Path) -> None:
    for number, content in enumerate((net(), {"model": net()}, {"epoch": 1, "args": Path("here")})):
        path = tmp_path / f"{number}.pt"
        torch.save(content, path)
        with pytest.raises(UserError, match=r"\.pt holds more than tensors: \S+ is pickled in it") as refusal:
            read_weights(path)
        assert ("Net" if number < 2 else "Path") in str(refusal.value)
        assert "torch.save(model.state_dict(), ...)" in str(refusal.value)


@pytest.mark.parametrize("suffix", [".th", ".pth", ".pt", ".ckpt", ".bin", ".pkl", ""])
@pytest.mark.parametrize("old", [False, True])
def test_weights_given_as_a_model_are_told_where_to_go(suffix: str, old: bool, tmp_path: Path) -> None:
    path = tmp_path / f"net{suffix}"
    torch.save(net().state_dict(), path, _use_new_zipfile_serialization=not old)
    with pytest.raises(UserError, match=r"holds weights, not the network .*`model=NETWORK` and `weights=\S*net"):
        load_network(NetworkOptions(str(path)))
    # And there they are taken.
    assert read_weights(path).keys() == net().state_dict().keys()


def test_plain_safetensors_given_as_a_model(tmp_path: Path) -> None:
    save_file(net().state_dict(), tmp_path / "net.safetensors")
    with pytest.raises(UserError, match=r"no checkpoint of amc-latency .*say `model=NETWORK` and `weights"):
        load_network(NetworkOptions(str(tmp_path / "net.safetensors")))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.onnx", "an ONNX file is no network that can be cut"),
        ("net.tflite", "a .tflite, a finished file"),
        ("net.keras", "a Keras model is no network"),
        ("pkg.net:build", r"a function is named by its file: pkg/net\.py:build"),
        ("net:build", r"a function is named by its file: net\.py:build"),
        ("gone.pth", r"gone\.pth: no such file; weights go with their network"),
        ("mobilenet_v9", "did you mean 'mobilenet_v1'|did you mean 'mobilenet_v2'"),
    ],
)
def test_names_that_are_no_network(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_network(NetworkOptions(name))


def test_folders_are_no_networks(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder, not a network: a network is built by PyTorch"):
        load_network(NetworkOptions(str(tmp_path)))
    (tmp_path / "ours.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"is a folder, not a network: name a checkpoint in it, such as .*ours\.safete"):
        load_network(NetworkOptions(str(tmp_path)))


def test_a_folder_or_file_of_images_is_told_how_to_be_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"is a folder: say `data=folder:{tmp_path}`"):
        load_data(str(tmp_path))
    (tmp_path / "images.zip").write_bytes(b"")
    with pytest.raises(UserError, match="is a file: images come from a folder"):
        load_data(str(tmp_path / "images.zip"))
