"""Which images ranges are taken from, and which are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from amc_latency.errors import OptionError
from amc_latency.export.export import converted, frozen
from amc_latency.export.quantised.calibration import calibrate, check_calibration, one_step
from amc_latency.pixels import IMAGENET, Normalisation

SIZE = (3, 8, 8)
DRAWN = torch.randn(40, *SIZE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (None, "the calibration images are missing: int8 needs the ranges of real images"),
        (DRAWN[:0], "are missing"),
        (DRAWN.to(torch.uint8), r"are torch.uint8 \[40, 3, 8, 8\]: give normalised floats"),
        (DRAWN[0], r"are torch.float32 \[3, 8, 8\]"),
        (torch.where(DRAWN > 2, torch.nan, DRAWN), "hold values that are infinite or no numbers"),
        (torch.ones(40, 3, 8, 8), "are of one colour each"),
        # Each another grey, and each flat.
        (torch.arange(40.0).view(40, 1, 1, 1).expand(40, 3, 8, 8), "are of one colour each"),
    ],
)
def test_images_that_say_nothing_are_refused(images: Tensor | None, says: str) -> None:
    with pytest.raises(OptionError, match=says):
        check_calibration(images, SIZE)


def test_few_images_are_warned_of_and_the_same_one_again_is_no_other() -> None:
    assert check_calibration(DRAWN, SIZE) is None
    assert check_calibration(DRAWN[:20], SIZE) is None
    few = check_calibration(DRAWN[:19], SIZE)
    assert few is not None
    assert few.startswith("19 different calibration images: ranges of fewer than 20")
    same = check_calibration(DRAWN[:1].repeat(100, 1, 1, 1), SIZE)
    assert same is not None
    assert same.startswith("1 different calibration image: ")


def test_ranges_hold_all_that_any_image_has() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    found = calibrate(converted(frozen(model), (3, 8, 8)), DRAWN)
    with torch.inference_mode():
        outputs = model(DRAWN)
    assert found.images.equal(DRAWN)
    for name, values in (("x", DRAWN), ("op000_conv_2d", outputs)):
        ends = found.ranges[name]["min"].item(), found.ranges[name]["max"].item()
        np.testing.assert_allclose(ends, (values.min().item(), values.max().item()), rtol=1e-5)


def test_pixels_are_the_steps_of_an_input() -> None:
    file = converted(frozen(nn.Sequential(nn.Conv2d(3, 4, 1))), (3, 8, 8))
    found = calibrate(file, DRAWN).with_pixels(0.5, 0.25).ranges["x"]
    # (p / 255 - 0.5) / 0.25 at 0 and 255, but for the mean of 127.5, which is 128 as zero is a step.
    np.testing.assert_allclose(found["min"].item(), -128 / 255 / 0.25, rtol=1e-6)
    np.testing.assert_allclose(found["max"].item(), 127 / 255 / 0.25, rtol=1e-6)


def test_one_step_for_all_channels() -> None:
    assert one_step(Normalisation((0.5,) * 3, (0.25,) * 3)) == (0.5, 0.25)
    assert one_step(IMAGENET) is None
    assert one_step(Normalisation((0.5, 0.5), (0.25, 0.3))) is None
