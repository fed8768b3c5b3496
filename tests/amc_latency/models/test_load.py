"""From what a user names to a network with its coupled groups."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from amc_latency.errors import UserError
from amc_latency.models.files.checkpoint import load_checkpoint, save_checkpoint
from amc_latency.models.load import NetworkOptions, cut_to, load_network, parse_counts

SMALL = NetworkOptions("mobilenet_v1", width=0.25, input="3x32x32", classes=5)


def test_a_named_model_takes_what_it_is_told() -> None:
    network = load_network(SMALL)
    assert not network.trained
    assert network.spec.input == (3, 32, 32)
    assert network.graph.architecture.group_channels == (8, 16, 32, 32, 64, 64, *[128] * 6, 256, 256)
    assert network.model(torch.zeros(1, 3, 32, 32)).shape == (1, 5)


def test_the_bundled_network_is_trained_and_knows_its_own_input() -> None:
    network = load_network(NetworkOptions())
    assert network.trained
    assert (network.spec.input, network.spec.classes, network.spec.width) == ((1, 64, 64), 10, 0.5)


def test_a_cut_network_survives_its_checkpoint(tmp_path: Path) -> None:
    counts = (8, 16, 24, 24, 40, 48, *[64] * 6, 96, 200)
    small = cut_to(load_network(SMALL), counts)
    assert small.graph.architecture.group_channels == counts
    save_checkpoint(tmp_path / "small.safetensors", small.model, small.spec, {})
    model, spec, _ = load_checkpoint(tmp_path / "small.safetensors")
    assert spec.channels == counts
    image = torch.randn(1, 3, 32, 32)
    assert torch.equal(model(image), small.model(image))
    assert load_network(NetworkOptions(str(tmp_path / "small.safetensors"))).graph == small.graph


@pytest.mark.parametrize("text", ["", "8,,8", "8;8", "a"])
def test_a_list_of_counts_is_read_or_refused(text: str) -> None:
    assert parse_counts("8, 16,24") == (8, 16, 24)
    with pytest.raises(UserError, match="24,48,96"):
        parse_counts(text)


@pytest.mark.parametrize("counts", [(8,), (0, *[8] * 13), (*[8] * 13, 257)])
def test_counts_that_do_not_fit_are_refused(counts: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="coupled group"):
        cut_to(load_network(SMALL), counts)
