"""What chance does to images: what is on for which data, and what each change leaves alone."""

from __future__ import annotations

from dataclasses import asdict, fields

import numpy as np
import pytest
import torch
from PIL import Image

from amc_latency.data import InMemory
from amc_latency.data.augmentation import AUGMENTATIONS, Augmentation, Kind, Mixed, shift_and_flip
from amc_latency.data.photos.view import View
from amc_latency.errors import UserError
from amc_latency.pixels import Normalisation

GREY = Normalisation((0.0,), (1 / 255,))


def on(images: int, kind: Kind) -> dict[str, float]:
    return {name: value for name, value in asdict(Augmentation().settled(images, kind)).items() if value}


def test_each_record_is_a_field() -> None:
    assert [field.name for field in fields(Augmentation)] == list(AUGMENTATIONS)


def test_what_is_on_follows_from_the_data() -> None:
    assert on(60_000, "pixels") == {"shift": 2, "flip": 0.5}
    assert on(2_500, "photos") == {"flip": 0.5, "crop": 0.5}
    assert on(100_000, "photos") == {"flip": 0.5, "crop": 0.25}
    imagenet = {"flip": 0.5, "crop": 0.08, "trivial": 1, "erasing": 0.1, "mixup": 0.2, "cutmix": 1}
    assert on(1_281_167, "photos") == imagenet
    assert on(1_281_167, "tensors") == {}


def test_augmentations_are_read_by_name() -> None:
    assert Augmentation.of("auto") == Augmentation()
    assert Augmentation.of("none") == Augmentation.none()
    assert Augmentation.of("flip, crop=0.35,mixup") == Augmentation(0, 0.5, 0.35, 0, 0, 0, 0.2, 0)
    assert Augmentation(crop=0.35).settled(10, "photos").flip == 0.5
    with pytest.raises(UserError, match=r"no augmentation is called 'mixap'.*Did you mean 'mixup'"):
        Augmentation.of("mixap")
    with pytest.raises(UserError, match=r"crop=lots: write a number, such as crop=0\.5"):
        Augmentation.of("crop=lots")
    with pytest.raises(UserError, match="crop is from 0 to 1, not 2"):
        Augmentation.of("crop=2")
    with pytest.raises(UserError, match="mixup is 0 or more, not -1"):
        Augmentation(mixup=-1)
    with pytest.raises(UserError, match="put them into its own transforms"):
        Augmentation.of("crop").settled(10, "tensors")


def test_half_are_mirrored_and_nothing_else() -> None:
    image = torch.arange(30, dtype=torch.uint8).view(1, 1, 5, 6)
    out = shift_and_flip(image.expand(2000, 1, 5, 6), torch.Generator().manual_seed(0), Augmentation.of("flip"))
    mirrored = (out == image.flip(-1)).flatten(1).all(1)
    assert ((out == image).flatten(1).all(1) | mirrored).all()
    # Half of 2,000, five standard errors.
    assert abs(int(mirrored.sum()) - 1000) < 5 * 500**0.5


def test_a_crop_is_a_part_of_at_least_the_least_share() -> None:
    # Each pixel says where it is.
    across, down = np.meshgrid(np.arange(64, dtype=np.uint8), np.arange(64, dtype=np.uint8))
    image = Image.fromarray(np.stack([across, down, across], 2))
    view = View((16, 16))
    change = Augmentation(0, 0, 0.5, 0, 0, 0, 0, 0).for_images((16, 16), view.resample, view.middle, (0, 0, 0))
    areas = []
    for seed in range(40):
        torch.manual_seed(seed)
        pixels = change(image).float()
        assert pixels.shape == (3, 16, 16)
        # Between the outermost of 16 centres lie 15 of 16 parts.
        areas.append(float((pixels[0].max() - pixels[0].min()) * (pixels[1].max() - pixels[1].min())) / 60**2)
    assert 0.4 < min(areas) < 0.6
    assert max(areas) > 0.8


def test_erasing_takes_the_colour_that_is_given() -> None:
    change = Augmentation.of("erasing=1").for_images((16, 16), 2, lambda image: image, (10, 20, 30))
    torch.manual_seed(0)
    pixels = change(Image.new("RGB", (16, 16), (200, 200, 200)))
    erased = (pixels == torch.tensor([10, 20, 30]).view(3, 1, 1)).all(0)
    assert 0.02 * 256 <= int(erased.sum()) <= 0.4 * 256
    assert (pixels[:, ~erased] == 200).all()


@pytest.mark.parametrize("name", ["trivial", "rand"])
def test_policies_change_bytes_to_bytes(name: str) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    change = Augmentation.of(name).for_images((16, 16), 2, lambda image: image, (0, 0, 0))
    changed = 0
    for seed in range(10):
        torch.manual_seed(seed)
        pixels = change(image)
        assert (pixels.shape, pixels.dtype) == ((3, 16, 16), torch.uint8)
        changed += not torch.equal(pixels, torch.from_numpy(np.array(image)).permute(2, 0, 1))
    assert changed > 4


@pytest.mark.parametrize("name", ["mixup", "cutmix", "mixup,cutmix"])
def test_labels_are_mixed_as_pixels_are(name: str) -> None:
    # Image i is all i, of class i: its mean is the expected label.
    images = torch.arange(8, dtype=torch.uint8).view(8, 1, 1, 1).expand(8, 1, 16, 16)
    split = InMemory(images, torch.arange(8), GREY)
    generator = torch.Generator().manual_seed(0)
    [(inputs, labels)] = split.batches([torch.arange(8)], (16, 16), Augmentation.of(name), generator)
    assert labels.shape == (8, 8)
    torch.testing.assert_close(labels.sum(1), torch.ones(8))
    torch.testing.assert_close(inputs.mean((1, 2, 3)), labels @ torch.arange(8.0), atol=1e-4, rtol=1e-4)
    assert (labels.max(1).values < 1).any()


def test_mixing_leaves_pytorchs_own_chance_alone() -> None:
    mixed = Mixed(Augmentation.of("mixup"), torch.arange(4))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two = (
        mixed(
            torch.rand(4, 1, 2, 2, generator=torch.Generator().manual_seed(1)),
            torch.arange(4),
            torch.Generator().manual_seed(2),
        )
        for _ in range(2)
    )
    assert torch.equal(one[0], two[0])
    assert torch.equal(before, torch.get_rng_state())
