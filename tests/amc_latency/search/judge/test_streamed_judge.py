"""A judge whose images are decoded while it judges says what one says that holds them in memory."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from amc_latency.data import ImageData, Streaming, fitted
from amc_latency.data.sets.folders import load_folder
from amc_latency.errors import UserError
from amc_latency.graph.trace import trace
from amc_latency.models.load import Network
from amc_latency.models.registry import build_model
from amc_latency.models.spec import ModelSpec
from amc_latency.pixels import IMAGENET
from amc_latency.search.judge.config import FinetuneOptions, JudgeConfig
from amc_latency.search.judge.judge import Judge
from amc_latency.task import ImageTask
from tests.amc_latency.data.photo_files import QUIET

SPEC = ModelSpec("resnet20", 0.25, (3, 16, 16), 2)


@pytest.fixture(scope="module")
def network() -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(SPEC)
    return Network(model, SPEC, trace(model, SPEC.input), trained=True, pixels=IMAGENET)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 photos of two classes."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(60):
        path = folder / "ab"[i % 2] / f"{i:02}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = random.integers(0, 128, (20, 24, 3), dtype=np.uint8) + np.uint8(100 * (i % 2))
        Image.fromarray(pixels).save(path)
    return folder


def data_of(folder: Path, memory_gib: float) -> ImageData:
    found = load_folder(folder, SPEC.input[1:], QUIET, streaming=Streaming(memory_gib))
    return fitted(found, SPEC, IMAGENET)


def test_scores_are_the_same(network: Network, folder: Path, tmp_path: Path) -> None:
    for path in sorted(folder.rglob("*.png"))[::20]:
        path.write_bytes(path.read_bytes()[:50])
    half = tuple(max(1, count // 2) for count in network.graph.architecture.group_channels)
    config = JudgeConfig(images=100, calibration_images=100, recalibration_images=100)
    kept, streamed = (Judge(network, data_of(folder, gib), config) for gib in (1.0, 0.0))
    assert len(streamed.calibration) == len(streamed._calibrating.labels) == len(kept.calibration)
    assert kept(half) == streamed(half)
    assert kept.final(half) == streamed.final(half)
    assert kept.original_final() == streamed.original_final()
    one, other = kept.tested(network.model), streamed.tested(network.model)
    assert (one.value, one.images) == (other.value, other.images)
    tuned = []
    for judge in (streamed, streamed):
        model = copy.deepcopy(network.model)
        judge.fine_tune(model, FinetuneOptions(1), tmp_path / f"{len(tuned)}.resume", lambda epoch, text: None)
        tuned.append(model.state_dict())
    assert all(torch.equal(tensor, tuned[1][name]) for name, tensor in tuned[0].items())


class Photos(Dataset):
    """Of two classes."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.new("RGB", (80, 80), (index, 0, 0)), index % 2


def test_a_task_takes_sets_of_a_programs_own(network: Network) -> None:
    for task in (ImageTask(Photos()), ImageTask(train=Photos(), test=Photos())):
        data = task.images(network, QUIET)
        assert (data.classes, data.normalisation) == (2, IMAGENET)
        inputs, _ = next(data.test.parts((16, 16), 4))
        assert inputs.shape == (4, 3, 16, 16)
    assert [len(split) for split in data.splits] == [36, 4, 40]
    for wrong in (ImageTask(test=Photos()), ImageTask("bundled", train=Photos()), ImageTask(Photos(), unlabelled="x")):
        with pytest.raises(UserError, match="`train`"):
            wrong.images(network, QUIET)


def test_labels_beyond_the_networks_classes_are_refused(network: Network) -> None:
    class Three(Photos):
        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            return super().__getitem__(index)[0], index % 3

    with pytest.raises(UserError, match=r"`train` \(Three\), has 3 classes, and resnet20 tells 2 apart"):
        ImageTask(Three()).images(network, QUIET)
