"""Inputs that are made batch by batch are those that are made at once."""

from __future__ import annotations

import pytest
import torch

from amc_latency.data import InMemory
from amc_latency.data import decoded as module
from amc_latency.data.decoded import Decoded, inputs_of
from amc_latency.data.splits import at_once, fewer_of_large
from amc_latency.pixels import Normalisation
from amc_latency.search.judge.config import JudgeConfig

CPU = torch.device("cpu")


@pytest.fixture
def split() -> InMemory:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (7, 3, 6, 5), generator=generator, dtype=torch.uint8)
    return InMemory(images, torch.arange(7), Normalisation((0.4, 0.5, 0.6), (0.2, 0.3, 0.25)))


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 10])
def test_batches_are_those_of_the_whole(split: InMemory, batch: int) -> None:
    whole = split.inputs((8, 4))
    batches = Decoded(split, (8, 4), CPU).split(batch)
    expected = whole.split(batch)
    assert len(batches) == len(expected)
    for got, wanted in zip(batches, expected, strict=True):
        assert torch.equal(got, wanted)
    assert torch.equal(torch.cat(list(batches[-2:])), torch.cat(expected[-2:]))
    with pytest.raises(IndexError):
        batches[len(expected)]


def test_the_shape_is_that_of_the_inputs(split: InMemory) -> None:
    assert Decoded(split, (8, 4), CPU).shape == tuple(split.inputs((8, 4)).shape) == (7, 3, 8, 4)


def test_only_large_inputs_are_made_anew(split: InMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    floats = 4 * 7 * 3 * 8 * 4
    monkeypatch.setattr(module, "FLOAT_BYTES", floats)
    kept = inputs_of(split, (8, 4), CPU)
    assert isinstance(kept, torch.Tensor)
    assert torch.equal(kept, split.inputs((8, 4)))
    monkeypatch.setattr(module, "FLOAT_BYTES", floats - 1)
    assert isinstance(inputs_of(split, (8, 4), CPU), Decoded)


def test_of_large_images_fewer_are_taken() -> None:
    # 96 * 96 = 9,216 pixels; 224 * 224 = 50,176.
    assert fewer_of_large(1024, (96, 96), 1) == 1024
    assert fewer_of_large(1024, (224, 224), 1) == 1024 * 9216 // 50176 == 188
    assert fewer_of_large(1024, (224, 224), 256) == 256
    assert fewer_of_large(100, (224, 224), 256) == 100
    assert at_once((64, 64)) == at_once((28, 28)) == 100
    assert at_once((224, 224)) == 100 * 4096 // 50176 == 8
    assert at_once((4000, 4000)) == 1


def test_refit_sees_as_many_positions_of_fewer_large_images() -> None:
    config = JudgeConfig()
    assert (config.calibrating((64, 64)), config.points((64, 64))) == (512, 64)
    assert (config.calibrating((224, 224)), config.points((224, 224))) == (256, 128)
    told = JudgeConfig(calibration_images=300)
    assert (told.calibrating((224, 224)), told.points((224, 224))) == (300, 64)
