"""A whole search of a network with one output, without labels, for a phone that is not there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from amc_latency.console import Console
from amc_latency.errors import UserError
from amc_latency.search.config import SearchConfig
from amc_latency.search.run import search

pytestmark = pytest.mark.slow
OWN = """
import torch
from torch import nn
from torch.nn import functional as F

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.Conv2d(16, 32, 3, 2, 1, bias=False)
        self.bn, self.bn2, self.fc = nn.BatchNorm2d(16), nn.BatchNorm2d(32), nn.Linear(32, 1)
        with torch.no_grad():
            self.fc.bias.zero_()
            images = torch.randn(64, 3, 32, 32) + torch.randn(64, 3, 1, 1) / 2
            self.fc.bias -= SIGN * self.eval()(images).median()

    def forward(self, x):
        x = self.bn(self.a(x))
        x = x * (F.relu6(x + 3.0) / 6.0)
        x = self.bn2(self.b(x))
        x = x * (F.relu6(x + 3.0) / 6.0)
        return self.fc(x.mean((2, 3)))
"""


def config(folder: Path, network: str) -> SearchConfig:
    (folder / "own.py").write_text(network)
    draw = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for i in range(150):
        pixels = np.clip(draw.normal(115, 60, (32, 32, 3)) + draw.normal(0, 30, 3), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "photos" / f"{i}.png")
    return SearchConfig(
        model=f"{folder / 'own.py'}:Net",
        weights="own",
        input="3x32x32",
        speedup=2,
        device="pixel1",
        estimate=True,
        unlabelled=str(folder / "photos"),
        normalisation="half",
        agent="random",
        warm_start=False,
        warmup=0,
        episodes=8,
        calibration_images=64,
        recalibration_images=32,
        baselines="",
        finetune_epochs=1,
    )


def test_networks_agree_with_it_more_or_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    report = search(config(tmp_path, OWN.replace("SIGN * ", "")), tmp_path / "run", Console())
    said = " ".join(capsys.readouterr().err.split())
    assert "has one output: taken for the logit of class 1" in said
    assert "doesn't compute what" not in said
    assert report.unlabelled
    assert report.accuracy_original == 100
    scores = [json.loads(line) for line in (tmp_path / "run" / "scores.jsonl").read_text().splitlines()]
    assert min(row["loss"] for row in scores) > 0.01
    assert len({row["accuracy"] for row in scores}) > 1


def test_one_that_says_the_same_of_every_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"says class 1 of every image, .* `normalisation` the right ones"):
        search(config(tmp_path, OWN.replace("SIGN * ", "-100 + ")), tmp_path / "run", Console(quiet=True))
