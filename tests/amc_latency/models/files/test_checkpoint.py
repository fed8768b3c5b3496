"""Checkpoints: what is saved comes back, and what is broken is named."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from amc_latency.errors import JobError, UserError
from amc_latency.graph.trace import trace
from amc_latency.models.files.checkpoint import bundled_checkpoint, load_checkpoint, save_checkpoint
from amc_latency.models.files.weights import read_tensors, write_tensors
from amc_latency.models.registry import build_model
from amc_latency.models.spec import ModelSpec
from amc_latency.prune.cut import cut

CUT = (8, 11, 16, 24, 8, 16, 24, 16, 9, 16, 8, 16, 24, 17)
SPEC = ModelSpec("mobilenet_v1", width=0.25, input=(1, 32, 32), classes=3, channels=CUT)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    save_checkpoint(path, build_model(SPEC), SPEC, {"accuracy": "12.5"})
    return path


def test_a_cut_network_comes_back_whole(tmp_path: Path) -> None:
    model = build_model(SPEC).to(memory_format=torch.channels_last)
    path = tmp_path / "new folder" / "net.safetensors"
    save_checkpoint(path, model, SPEC, {"accuracy": "12.5"})
    loaded, spec, extra = load_checkpoint(path)
    assert spec == SPEC
    assert extra == {"accuracy": "12.5"}
    assert not loaded.training
    assert trace(loaded, spec.input).architecture.group_channels == CUT
    expected = model.state_dict()
    assert list(loaded.state_dict()) == list(expected)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.state_dict().items())
    assert [file.name for file in path.parent.iterdir()] == ["net.safetensors"]


def test_a_cut_torchvision_network_comes_back_whole(tmp_path: Path) -> None:
    uncut = ModelSpec("resnet18", input=(3, 64, 64), classes=10)
    model = build_model(uncut)
    graph = trace(model, uncut.input)
    counts = tuple(group.channels // 4 + 1 for group in graph.groups)
    kept = [torch.arange(group.channels)[-count:] for group, count in zip(graph.groups, counts, strict=True)]
    small, spec = cut(model, graph, kept), replace(uncut, channels=counts)
    save_checkpoint(tmp_path / "net.safetensors", small, spec)
    loaded, loaded_spec, _ = load_checkpoint(tmp_path / "net.safetensors")
    assert loaded_spec == spec
    image = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(loaded(image), small(image))


def test_a_failed_write_leaves_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(JobError, match="No space left"):
        save_checkpoint(saved, build_model(SPEC), SPEC)
    assert saved.read_bytes() == before
    assert len(list(saved.parent.iterdir())) == 1


def test_a_spec_of_another_network_is_not_saved(tmp_path: Path) -> None:
    uncut = ModelSpec("mobilenet_v1", width=0.25, input=(1, 32, 32), classes=3)
    with pytest.raises(UserError, match=r"blocks\.0\.pointwise\.weight"):
        save_checkpoint(tmp_path / "net.safetensors", build_model(SPEC), uncut)


def test_the_first_tensor_that_differs_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    tensors = build_model(SPEC).state_dict()
    tensors["classifier.weight"] = torch.zeros(4, 17)
    save_file(tensors, path, {"amc_latency_spec": json.dumps(asdict(SPEC))})
    with pytest.raises(UserError) as error:
        load_checkpoint(path)
    for part in ("other.safetensors", "classifier.weight", "(3, 17)", "(4, 17)"):
        assert part in str(error.value)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
def test_a_truncated_file_is_named(saved: Path, share: float) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(UserError, match=r"net\.safetensors"):
        load_checkpoint(saved)


@pytest.mark.parametrize("spec", ["", "[]", "{}", '{"name": 1}', '{"channels": [1, "a"]}'])
def test_a_broken_description_is_named(tmp_path: Path, spec: str) -> None:
    path = tmp_path / "net.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"amc_latency_spec": spec})
    with pytest.raises(UserError, match=r"net\.safetensors: its network description"):
        load_checkpoint(path)


def test_other_files_are_no_checkpoints(tmp_path: Path) -> None:
    plain = tmp_path / "plain.safetensors"
    save_file({"a": torch.zeros(1)}, plain)
    text = tmp_path / "text.safetensors"
    text.write_text("not a checkpoint")
    for path in (plain, text, tmp_path / "missing.safetensors", tmp_path):
        with pytest.raises(UserError, match=path.name):
            load_checkpoint(path)


@pytest.mark.slow
def test_bundled_checkpoint_has_the_accuracy_it_claims() -> None:
    from amc_latency.data import load_data
    from amc_latency.training.loop import accuracy

    model, spec, extra = load_checkpoint(bundled_checkpoint())
    assert spec == ModelSpec("mobilenet_v1", width=0.5, input=(1, 64, 64), classes=10)
    test = load_data("bundled").test
    assert len(test) == 10_000
    assert accuracy(model, test, image_size=(64, 64)) == pytest.approx(float(extra["accuracy_test"]), abs=0.05)


def test_metadata_is_in_order_so_that_the_same_network_is_the_same_file(tmp_path: Path) -> None:
    path, names = tmp_path / "t.safetensors", ["source", "kept", "seed", "a ü", "z", "normalisation"]
    tensors = {"odd": torch.arange(3, dtype=torch.uint8), "even": torch.arange(4.0)}
    write_tensors(path, tensors, {name: f"of {name}" for name in names})
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    assert size % 8 == 0
    assert list(json.loads(content[8 : 8 + size])["__metadata__"]) == sorted(names)
    found, metadata = read_tensors(path)
    assert metadata == {name: f"of {name}" for name in names}
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert found.keys() == tensors.keys()


def test_a_source_that_is_no_text_is_stored_as_it_can_be(tmp_path: Path) -> None:
    write_tensors(tmp_path / "net.safetensors", {"w": torch.zeros(2)}, {"source": "folder:/photos\udcff", "a": "ü\n"})
    assert read_tensors(tmp_path / "net.safetensors")[1] == {"source": r"folder:/photos\udcff", "a": "ü\n"}
