"""Whole flows on folders of photos, with labels and without; the device is replayed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from amc_latency.console import Console
from amc_latency.data import load_data
from amc_latency.errors import UserError
from amc_latency.models.files.checkpoint import load_checkpoint
from amc_latency.models.load import NetworkOptions, load_network
from amc_latency.pixels import IMAGENET, Normalisation
from amc_latency.search.config import SearchConfig
from amc_latency.search.judge import judge as judge_module
from amc_latency.search.run import search
from amc_latency.training.finetune import finetune_checkpoint
from amc_latency.training.recipe import TrainConfig
from amc_latency.training.train import TrainCommandConfig, train

TABLE = Path(__file__).parents[2] / "lut" / "tables" / "host-epyc-zen4.tsv"


@pytest.mark.slow
def test_a_search_without_labels_goes_by_agreement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_module, "FINALISTS", 2)
    photos = tmp_path / "photos"
    for i, image in enumerate(load_data("bundled").test.take(120).images):
        folder = photos / f"{i % 3}" / "deeper"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(folder / f"{i}.png")
    config = SearchConfig(
        speedup=1.5,
        device="replay",
        lut=str(TABLE),
        unlabelled=str(photos),
        agent="random",
        warm_start=False,
        warmup=0,
        episodes=2,
        calibration_images=32,
        baselines="",
        finetune_epochs=0,
        timing_rounds=1,
    )
    report = search(config, tmp_path / "run", Console(quiet=True))
    assert report.unlabelled
    assert report.met
    assert report.data == f"unlabelled:{photos}"
    original, uniform, _ = report.rows
    # It agrees with itself on every image.
    assert original.accuracy == original.held_back == report.accuracy_original == 100
    assert 20 < uniform.accuracy <= 100
    assert "agreement with the original" in (tmp_path / "run" / "report.html").read_text()
    next(photos.rglob("*.png")).unlink()
    with pytest.raises(UserError, match="belongs to a search with data_sha256"):
        search(config, tmp_path / "run", Console(quiet=True))


def test_a_network_is_trained_and_fine_tuned_on_a_folder(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for label, colour in enumerate([(220, 40, 40), (40, 220, 40), (40, 40, 220)]):
        (tmp_path / "photos" / f"class{label}").mkdir(parents=True)
        for i in range(60):
            pixels = np.clip(random.normal(colour, 20, (20, 24, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / f"class{label}" / f"{i}.jpg")
    source, size = f"folder:{tmp_path / 'photos'}", (16, 16)
    settings = TrainConfig(
        epochs=5, batch_size=16, learning_rate=0.05, image_size=size, low_resolution_epochs=0, warmup_epochs=0
    )
    path = tmp_path / "net.safetensors"
    result = train(TrainCommandConfig(path, "resnet20", 0.25, source, training=settings))
    _, spec, _ = load_checkpoint(path)
    assert (spec.input, spec.classes) == ((3, 16, 16), 3)
    # Chance is 33 %.
    assert result.accuracy_test > 60
    tuned = finetune_checkpoint(NetworkOptions(str(path)), tmp_path / "tuned.safetensors", 1, source, seed=0)
    assert tuned.held_back_before == pytest.approx(result.accuracy_held_back)
    # Weights of a file say nothing of pixels; what was said of them stays with what is made of them.
    weights = tmp_path / "weights.pth"
    torch.save(load_checkpoint(path)[0].state_dict(), weights)
    named = NetworkOptions("resnet20", 0.25, "3x16x16", 3, str(weights), "0.1,0.2,0.3/0.4,0.5,0.6")
    finetune_checkpoint(named, tmp_path / "other.safetensors", 1, source, seed=0)
    assert load_network(NetworkOptions(str(tmp_path / "other.safetensors"))).pixels == Normalisation(
        (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    )
    assert load_network(NetworkOptions(str(path))).pixels == IMAGENET


def test_data_is_named_in_one_way() -> None:
    with pytest.raises(UserError, match="give one of them"):
        SearchConfig(speedup=2, data="folder:labelled", unlabelled="photos")
