"""Files of weights that were made to do harm: none runs code, and none takes more memory than it has bytes."""

from __future__ import annotations

import json
import os
import pickle
import re
import struct
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from amc_latency.errors import UserError
from amc_latency.models.files.checkpoint import load_checkpoint, save_checkpoint
from amc_latency.models.files.weights import read_weights
from amc_latency.models.load import NetworkOptions, cut_to, load_network
from amc_latency.models.registry import build_model
from amc_latency.models.size import check_memory
from amc_latency.models.spec import ModelSpec

ROOT = Path(__file__).parents[3]
CODE = """
from pathlib import Path
from torch import nn

Path("ran").touch()


def build():
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(8, 4))
"""
GOOD = asdict(ModelSpec("mobilenet_v1", 0.25, (1, 32, 32), 3))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(CODE)
    return tmp_path


def checkpoint(spec: dict[str, Any] | str) -> Path:
    path = Path("net.safetensors")
    text = spec if isinstance(spec, str) else json.dumps(spec)
    save_file({"a": torch.zeros(1)}, path, {"amc_latency_spec": text})
    return path


def own_spec(name: str) -> dict[str, Any]:
    return {"name": name, "width": 1.0, "input": [1, 28, 28], "classes": 10, "channels": None}


@pytest.mark.parametrize("name", ["model.py:build", "./model.py:build", f"{os.__file__}:abort", "timm:model.py:build"])
def test_a_checkpoint_names_no_code(folder: Path, name: str) -> None:
    path = checkpoint(own_spec(name))
    for model, weights in ((str(path), None), ("mobilenet_v1", str(path))):
        with pytest.raises(UserError):
            load_network(NetworkOptions(model, weights=weights))
    with pytest.raises(UserError, match=re.escape(f"say `model={name}` and `weights=net.safetensors`, if you trust")):
        load_checkpoint(path)
    assert not (folder / "ran").exists()


def test_a_checkpoint_of_an_own_file_is_built_by_the_file_that_is_named(folder: Path) -> None:
    whole = load_network(NetworkOptions("model.py:build", input="1x12x12", weights="own"))
    small = cut_to(whole, (4, 6))
    save_checkpoint(Path("cut.safetensors"), small.model, small.spec)
    (folder / "model.py").rename(folder / "moved.py")
    again = load_network(NetworkOptions("moved.py:build", weights="cut.safetensors"))
    assert (again.spec.name, again.spec.channels, again.trained) == ("moved.py:build", (4, 6), True)
    image = torch.randn(2, 1, 12, 12)
    with torch.no_grad():
        assert torch.equal(again.model(image), small.model(image))


def test_code_is_loaded_in_one_place_alone() -> None:
    """And by what a user named: no other line of the product imports a file, evaluates a text or unpickles."""
    loads = re.compile(
        r"(?<![.\w])(eval|exec|compile|__import__)\(|importlib\.(import_module|util\.(spec_from_file|module_from))"
        r"|runpy|exec_module|pickle\.loads?\(|weights_only=False|yaml\.(unsafe_|full_)?load\(|shell=True"
    )
    found = {
        path.relative_to(ROOT).as_posix()
        for part in ("amc_latency", "lut", "device", "android_bench")
        for path in (ROOT / part).rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if loads.search(line)
    }
    # The second starts the product's own workers, whose paths the parent process gives; the third finds a module of
    # scipy's by a name that stands there.
    assert found == {"amc_latency/models/own_file.py", "device/workers/confined.py", "lut/prediction/least_squares.py"}


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "spec",
    [
        "[" * 100_000,
        json.dumps(GOOD | {"classes": 1e999}),
        json.dumps(GOOD) + " x",
        GOOD | {"classes": 0},
        GOOD | {"classes": 10**9},
        GOOD | {"classes": 10**400},
        GOOD | {"classes": "10"},
        GOOD | {"classes": 10.0},
        GOOD | {"name": None},
        GOOD | {"name": ["mobilenet_v1"]},
        GOOD | {"width": "1"},
        GOOD | {"input": [1, 32]},
        GOOD | {"input": [1, 32, -32]},
        GOOD | {"channels": [10**9] * 14},
        GOOD | {"channels": [1.5] * 14},
        GOOD | {"channels": "8"},
        {name: value for name, value in GOOD.items() if name != "input"},
    ],
    ids=lambda spec: str(spec)[:60],
)
def test_a_description_of_another_type_or_size(folder: Path, spec: dict[str, Any] | str) -> None:
    with pytest.raises(UserError, match=r"net\.safetensors: its network description is broken"):
        load_checkpoint(checkpoint(spec))


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "spec",
    [
        GOOD | {"width": 16.0, "classes": 1_000_000},
        GOOD | {"name": "vgg16", "width": 1.0, "input": [3, 224, 224], "classes": 1_000_000},
        GOOD | {"channels": [2**24] * 14},
        GOOD | {"name": "mobilenet_v2", "channels": [2**24] * 24},
        GOOD | {"name": "lenet5", "width": 16.0, "input": [1, 4_000, 4_000]},
        GOOD | {"input": [2**24, 2**24, 2**24]},
        GOOD | {"width": -1.0},
    ],
    ids=lambda spec: str(spec)[:60],
)
def test_a_network_is_measured_before_it_is_made(folder: Path, spec: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"net\.safetensors holds weights of"):
        load_checkpoint(checkpoint(spec))


def test_a_network_that_memory_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amc_latency.models.size.available_bytes", lambda: 100_000)
    with pytest.raises(UserError, match=r"mobilenet_v1 takes 0\.0 GB of memory, and 0\.0 GB are free"):
        build_model(ModelSpec("mobilenet_v1", 0.25, (1, 32, 32), 3))
    check_memory(100_000, "it")


def weights(path: Path) -> Path:
    torch.save({"a": torch.arange(6.0), "b": torch.zeros(2, 3)}, path)
    return path


def repacked(path: Path, change: Any) -> Path:
    """The archive with each entry, a name and its bytes, as `change` returns it with how it is packed."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            content, how = change(name, content)
            archive.writestr(name, content, how)
    return path


def test_an_archive_as_pytorch_writes_it_reads_back(tmp_path: Path) -> None:
    found = read_weights(weights(tmp_path / "net.pt"))
    assert torch.equal(found["a"], torch.arange(6.0))
    again = repacked(tmp_path / "net.pt", lambda name, content: (content, zipfile.ZIP_STORED))
    assert torch.equal(read_weights(again)["b"], torch.zeros(2, 3))


@pytest.mark.parametrize("member", ["data/0", "data.pkl", "version"])
def test_an_entry_that_grows_is_refused(tmp_path: Path, member: str) -> None:
    path = repacked(
        weights(tmp_path / "net.pt"),
        lambda name, content: (
            content if not name.endswith(member) else content + b"\0" * 1_000_000,
            zipfile.ZIP_DEFLATED if name.endswith(member) else zipfile.ZIP_STORED,
        ),
    )
    with pytest.raises(UserError, match=rf"net\.pt: .*its entry \S+{member} is compressed"):
        read_weights(path)


def test_a_pickle_that_asks_for_memory_is_refused(tmp_path: Path) -> None:
    filled = b"\x80\x02cbuiltins\nbytearray\n" + b"\x8a\x05" + (2 * 10**9).to_bytes(5, "little") + b"\x85R."
    path = repacked(
        weights(tmp_path / "net.pt"),
        lambda name, content: (filled if name.endswith("data.pkl") else content, zipfile.ZIP_STORED),
    )
    with pytest.raises(UserError, match="it holds a bytearray"):
        read_weights(path)


def test_a_tensor_is_no_larger_than_its_entry(tmp_path: Path) -> None:
    path = repacked(
        weights(tmp_path / "net.pt"),
        lambda name, content: (content[:4] if name.endswith("data/0") else content, zipfile.ZIP_STORED),
    )
    try:
        found = read_weights(path)
    except UserError:
        return
    # What follows in the file may be read, what follows in memory never.
    assert found["a"].untyped_storage().nbytes() <= path.stat().st_size


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data + b"x",
        lambda data: b"PK\x03\x04" + data,
        lambda data: data[:-30],
        lambda data: b"PK\x03\x04",
        lambda data: data[:-22] + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 9, 9, 2**32 - 2, 5, 0),
    ],
    ids=["a byte behind", "four before", "cut off", "begins only", "a directory of 4 GB"],
)
def test_an_archive_that_two_readers_could_take_for_two(tmp_path: Path, change: Any) -> None:
    path = weights(tmp_path / "net.pt")
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match=r"net\.pt"):
        read_weights(path)


def test_entries_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    path = weights(tmp_path / "net.pt")
    with zipfile.ZipFile(path, "a") as archive:
        first = archive.infolist()[0]
        for number in range(20):
            other = zipfile.ZipInfo(f"archive/data/{number + 10}")
            other.CRC = first.CRC
            other.header_offset, other.file_size, other.compress_size = first.header_offset, 500, 500
            archive.filelist.append(other)
            archive.NameToInfo[other.filename] = other
        archive._didModify = True
    with pytest.raises(UserError, match="entries overlap"):
        read_weights(path)


@pytest.mark.timeout(10)
def test_weights_are_a_regular_file(tmp_path: Path) -> None:
    for name in ("net.pt", "net.safetensors"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(UserError, match="not a file"):
            read_weights(tmp_path / name)


def test_a_pickle_that_runs_code_is_not_run(tmp_path: Path) -> None:
    class Touch:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    torch.save(Touch(), tmp_path / "net.pt")
    (tmp_path / "old.pt").write_bytes(pickle.dumps(Touch(), 2))
    for name in ("net.pt", "old.pt"):
        with pytest.raises(UserError):
            read_weights(tmp_path / name)
    assert not (tmp_path / "ran").exists()
