"""Judging on another device: nothing is left on the CPU, and the scores are the CPU's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pretend_device
import pytest
import torch

from amc_latency.data import ImageData, load_data
from amc_latency.models.load import Network
from amc_latency.models.own_module import network_of
from amc_latency.search.judge.config import FinetuneOptions, JudgeConfig
from amc_latency.search.judge.judge import Judge

COUNTS = (5, 9, 13)


@pytest.fixture(scope="module")
def data() -> ImageData:
    whole = load_data("bundled")
    return whole.with_splits(whole.train.take(64), whole.held_back.take(40), whole.test.take(20))


@pytest.fixture(scope="module")
def network() -> Network:
    from torch import nn

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.Conv2d(8, 12, 3, 2, 1),
        nn.BatchNorm2d(12),
        nn.ReLU(inplace=True),
        nn.Conv2d(12, 16, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )
    return replace(network_of(model, torch.randn(1, 1, 16, 16), None, None), trained=True)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with pretend_device.pretend_device() as device:
        monkeypatch.setattr(import_module("amc_latency.search.judge.judge"), "accelerator_of", lambda name: device)
        yield


CONFIG = JudgeConfig(images=30, calibration_images=48, recalibration_images=32)


def figures(network: Network, data: ImageData, folder: Path, accelerator: str = "cpu") -> dict[str, object]:
    """All that a judge computes of one policy."""
    judge = Judge(network, data, replace(CONFIG, accelerator=accelerator))
    small = judge.network(COUNTS)
    tuned = judge.network(COUNTS)
    options = FinetuneOptions(2, recipe={"ema_decay": 0.9, "feature_matching": 1.0, "clip_norm": 1.0})
    judge.fine_tune(tuned, options, folder / "state", lambda epoch, note: None)
    assert all(tensor.device.type == "cpu" for tensor in [*small.state_dict().values(), *tuned.state_dict().values()])
    assert all(tensor.device.type == "cpu" for tensor in network.model.state_dict().values())
    return {
        "score": judge(COUNTS).loss,
        "final": judge.final(COUNTS).loss,
        "original": judge.original_final().value,
        "tested": judge.tested(small).value,
        "statistics": judge.statistics["3"].covariance.cpu(),
        "weights": [tensor.clone() for tensor in small.state_dict().values()],
        "tuned": [tensor.clone() for tensor in tuned.state_dict().values()],
    }


def test_what_is_judged_elsewhere_is_all_there(
    network: Network, data: ImageData, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    assert network.graph.architecture.group_channels == (8, 12, 16)
    here = figures(network, data, tmp_path / "here")
    request.getfixturevalue("elsewhere")
    there = figures(network, data, tmp_path / "there")
    torch.testing.assert_close(there, here, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
def test_a_gpu_judges_as_the_cpu_does(network: Network, data: ImageData, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU that PyTorch can use")
    here, there = (figures(network, data, tmp_path / name, name) for name in ("cpu", "cuda"))
    for name in ("score", "final", "original", "tested", "statistics", "weights"):
        torch.testing.assert_close(there[name], here[name], rtol=1e-3, atol=1e-4)
