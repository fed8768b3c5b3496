"""Pixels' normalisation by name, against what torchvision's own transforms make of an image."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms.v2 import functional as transforms

from amc_latency.data import InMemory
from amc_latency.errors import UserError
from amc_latency.models.load import NetworkOptions, load_network
from amc_latency.pixels import IMAGENET, NORMALISATIONS, Normalisation, parse_normalisation

IMAGES = torch.randint(0, 256, (3, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def inputs(normalisation: Normalisation) -> torch.Tensor:
    return InMemory(IMAGES, torch.zeros(3, dtype=torch.int64), normalisation).inputs((4, 4))


def test_none_is_what_to_tensor_gives_and_raw_what_the_file_holds() -> None:
    assert torch.allclose(inputs(parse_normalisation("none", 3)), transforms.to_dtype(IMAGES, scale=True))
    assert torch.allclose(inputs(parse_normalisation("raw", 3)), IMAGES.float(), atol=1e-3)
    half = inputs(parse_normalisation("half", 3))
    assert float(half.min()) >= -1
    assert torch.allclose(half, IMAGES.float() / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize("name", NORMALISATIONS)
def test_a_name_is_a_figure_for_every_channel(name: str) -> None:
    named = parse_normalisation(name, 3)
    channels = 3 if name != "fashion_mnist" else 1
    assert len(named.mean) == len(named.std) == 3
    assert parse_normalisation(named.text) == named
    assert str(parse_normalisation(name, channels)).endswith(f" ({name})")
    if len(NORMALISATIONS[name].mean) == 3:
        assert parse_normalisation(name, 1) == NORMALISATIONS[name]


def test_figures_without_a_name_are_shown_alone() -> None:
    assert str(Normalisation((0.25,), (0.123456,))) == "0.25/0.1235"
    assert str(IMAGENET) == "0.485,0.456,0.406/0.229,0.224,0.225 (imagenet)"


def test_what_is_no_name_names_those_there_are() -> None:
    with pytest.raises(UserError, match="'imagnet' is no normalisation: write imagenet, half"):
        parse_normalisation("imagnet")


def test_colour_figures_are_refused_by_a_grey_network() -> None:
    with pytest.raises(UserError, match="imagenet is for 3 channels, and mobilenet_v1 takes 1x64x64"):
        load_network(NetworkOptions(normalisation="imagenet"))


@pytest.mark.parametrize(
    ("normalisation", "because"), [(None, "as the checkpoint remembers"), ("none", "as `normalisation` says")]
)
def test_it_is_known_why(normalisation: str | None, because: str) -> None:
    network = load_network(NetworkOptions(normalisation=normalisation))
    assert network.pixels_because == because
    assert network.pixels == parse_normalisation(normalisation or "fashion_mnist", 1)
