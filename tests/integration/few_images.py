"""A small part of the bundled images, for searches whose accuracy is not the point: judging 10,000 takes seconds."""

from __future__ import annotations

import torch

from amc_latency.data import load_data


def few_images() -> dict[str, torch.Tensor]:
    """2,000 images to train on, of which a tenth is held back, and 500 to test on."""
    return _images(2000, 500)


def fewer_images() -> dict[str, torch.Tensor]:
    """300 and 200, where each of them is judged or trained on at 64x64."""
    return _images(300, 200)


def _images(train_images: int, test_images: int) -> dict[str, torch.Tensor]:
    data = load_data("bundled")
    train, test = data.train.take(train_images), data.test.take(test_images)
    return {
        "train_images": train.images,
        "train_labels": train.labels,
        "test_images": test.images,
        "test_labels": test.labels,
    }
