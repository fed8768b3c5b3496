"""Splits: how images become inputs, and how one set's content is told from another's."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as transforms

from amc_latency.data import ImageData, InMemory
from amc_latency.data.splits import at_once
from amc_latency.pixels import Normalisation, parse_normalisation

GREY = Normalisation((0.25,), (0.5,))
COLOUR = Normalisation((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def noise(n: int, channels: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(("normalisation", "size"), [(GREY, (64, 64)), (COLOUR, (40, 56)), (COLOUR, (28, 20))])
def test_inputs_are_normalised_and_resized_as_torchvision_does(
    normalisation: Normalisation, size: tuple[int, int]
) -> None:
    images = noise(3, len(normalisation.mean), 28, 20)
    ours = InMemory(images, torch.zeros(3), normalisation).inputs(size)
    pixels = transforms.resize(images.float() / 255, list(size), antialias=False)
    expected = transforms.normalize(pixels, list(normalisation.mean), list(normalisation.std))
    torch.testing.assert_close(ours, expected)
    assert ours.is_contiguous(memory_format=torch.channels_last)


figures = st.lists(st.tuples(st.floats(0, 1), st.floats(1e-3, 99)), min_size=1, max_size=4)


@given(figures)
def test_what_a_normalisation_says_of_itself_is_read_back(channels: list[tuple[float, float]]) -> None:
    mean, std = zip(*channels, strict=True)
    assert parse_normalisation(Normalisation(mean, std).text) == Normalisation(mean, std)


def test_black_and_white() -> None:
    split = InMemory(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1), torch.zeros(2), GREY)
    assert split.inputs((1, 1)).flatten().tolist() == [(0 - 0.25) / 0.5, (1 - 0.25) / 0.5]


def test_take_and_at() -> None:
    split = InMemory(noise(5, 1, 4, 4), torch.arange(5), GREY)
    assert split.take(2).labels.tolist() == [0, 1]
    assert (len(split.take(2)), len(split.take(2).images), len(split.take(9))) == (2, 2, 5)
    assert split.at(slice(3, 9)).labels.tolist() == [3, 4]
    some = split.at(torch.tensor([4, 0]))
    assert some.labels.tolist() == [4, 0]
    assert torch.equal(some.images[0], split.images[4])
    assert some.normalisation == GREY


def test_a_digest_sees_any_pixel_and_any_label() -> None:
    split = InMemory(noise(5, 1, 4, 4), torch.arange(5), GREY)
    data = ImageData("here", split, split, split, classes=5)
    assert data.digest() == replace(data, source="there").digest()
    pixel, label = split.images.clone(), split.labels.clone()
    pixel[4, 0, 3, 3] ^= 1
    label[4] = 3
    for other in (replace(split, images=pixel), replace(split, labels=label), split.take(4)):
        assert data.digest() != replace(data, test=other).digest()


def test_a_batch_of_large_images_is_smaller() -> None:
    # A hundred of 64x64 hold as many pixels as 8 of 224x224.
    sizes = ((28, 28), (96, 96), (224, 224), (96, 192), (4000, 4000))
    assert [at_once(size) for size in sizes] == [100, 44, 8, 22, 1]
    split = InMemory(noise(5, 1, 4, 4), torch.arange(5), GREY)
    assert [len(labels) for _, labels in split.parts((320, 320), 100)] == [4, 1]
    assert [len(labels) for _, labels in split.parts((8, 8), 2)] == [2, 2, 1]
