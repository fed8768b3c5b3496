"""Images for a network: channels, classes, normalisation, and labels from the network itself."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from amc_latency.console import Console
from amc_latency.data import ImageData, InMemory, data_for, fitted, load_data
from amc_latency.data.fitting import labelled_by
from amc_latency.errors import UserError
from amc_latency.graph.trace import trace
from amc_latency.models.load import Network, NetworkOptions, load_network
from amc_latency.models.registry import build_model
from amc_latency.models.spec import ModelSpec
from amc_latency.pixels import IMAGENET, Normalisation

GREY = Normalisation((0.25,), (0.5,))


def data_of(channels: int) -> ImageData:
    images = torch.randint(0, 256, (6, channels, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split = InMemory(images, torch.arange(6), Normalisation((0.25,) * channels, (0.5,) * channels))
    return ImageData("somewhere", split, split.take(3), split.take(2), classes=6)


def untrained(channels: int, classes: int, size: tuple[int, int] = (32, 32)) -> Network:
    spec = ModelSpec("resnet20", 0.5, (channels, *size), classes)
    torch.manual_seed(0)
    model = build_model(spec)
    return Network(model, spec, trace(model, spec.input), trained=True)


def test_a_grey_image_is_repeated_over_three_channels() -> None:
    data = data_of(1)
    inputs = fitted(data, ModelSpec("resnet20", input=(3, 16, 16))).train.inputs((16, 16))
    assert inputs.shape == (6, 3, 16, 16)
    for channel in inputs.unbind(1):
        assert torch.equal(channel, data.train.inputs((16, 16))[:, 0])


def test_colour_images_are_refused_by_a_network_for_grey_ones() -> None:
    with pytest.raises(UserError, match="somewhere, has images of 3 channels, and resnet20 takes 1x16x16"):
        fitted(data_of(3), ModelSpec("resnet20", input=(1, 16, 16)))


def test_what_the_networks_weights_expect_comes_before_the_datas_own() -> None:
    expected = Normalisation((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    for channels in (1, 3):
        data, spec = data_of(channels), ModelSpec("resnet18", input=(3, 8, 8))
        assert fitted(data, spec, expected).test.normalisation == expected
        # Also of a network whose published weights expect others: these may be no such weights.
        assert fitted(data, spec).test.normalisation == Normalisation((0.25,) * 3, (0.5,) * 3)


def test_a_line_says_how_pixels_are_normalised(capsys: pytest.CaptureFixture[str]) -> None:
    network = untrained(1, 10)
    own = data_for(network, "bundled", console=Console())
    assert own.normalisation == load_data("bundled").normalisation
    assert (
        "resnet20: input 1x32x32, weights random, 10 classes; pixels are normalised by the data's own figures, "
        "0.286/0.353 (fashion_mnist): `normalisation` says others\n"
    ) in capsys.readouterr().err
    published = replace(network, spec=replace(network.spec, name="resnet18", input=(3, 16, 16)))
    data_for(published, "bundled", console=Console())
    assert "normalised by the data's own figures, 0.286," in capsys.readouterr().err
    given = data_for(replace(network, pixels=GREY), "bundled", console=Console())
    assert {split.normalisation for split in given.splits} == {GREY}
    assert "normalised as the network's weights expect: 0.25/0.5\n" in capsys.readouterr().err


def test_more_classes_than_the_network_tells_are_refused() -> None:
    with pytest.raises(UserError, match=r"bundled, has 10 classes, and resnet20 tells 9 apart"):
        data_for(untrained(1, 9), "bundled")
    assert len(data_for(untrained(3, 11), "bundled").train) == 8000


def test_unlabelled_photos_get_what_the_network_says(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for i in range(30):
        folder = tmp_path / f"album{i % 3}"
        folder.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40 + i, 50, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    network = untrained(3, 7, (32, 48))
    with pytest.raises(UserError, match=r"resnet20 wants pixels normalised is not known.*or one of imagenet, half"):
        data_for(network, unlabelled=str(tmp_path))
    network = replace(network, pixels=IMAGENET)
    data = data_for(network, unlabelled=str(tmp_path))
    assert (data.unlabelled, data.classes, sum(map(len, data.splits))) == (True, 7, 30)
    for split in data.splits:
        assert split.kept().images.shape[1:] == (3, 32, 48)
        said = torch.stack([network.model(split.at(slice(i, i + 1)).inputs((32, 48)))[0] for i in range(len(split))])
        assert split.labels.tolist() == said.argmax(1).tolist()
    # Fine-tuning must be able to use them.
    logits = network.model(data.train.inputs((32, 48)).contiguous())
    nn.functional.cross_entropy(logits, data.train.labels).backward()
    with pytest.raises(UserError, match="3 channels"):
        data_for(load_network(NetworkOptions()), unlabelled=str(tmp_path))


def test_labels_follow_the_image_in_batches() -> None:
    class Brightest(nn.Module):
        """The channel with the largest mean."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3))

    wanted = torch.arange(230) % 3
    images = 200 * nn.functional.one_hot(wanted, 3).to(torch.uint8)[:, :, None, None].expand(-1, -1, 4, 4)
    split = InMemory(images, torch.zeros(230, dtype=torch.int64), Normalisation((0.0,) * 3, (1.0,) * 3))
    data = ImageData("photos", split, split.take(9), split.take(1), classes=0)
    labelled = labelled_by(Brightest(), data, (4, 4), Console(quiet=True))
    assert [part.labels.tolist() for part in labelled.splits] == [wanted.tolist(), wanted[:9].tolist(), [0]]
    assert (labelled.classes, labelled.unlabelled) == (3, True)
