"""A small part of the bundled images, for searches whose accuracy is not the point: judging 10,000 takes seconds."""

from __future__ import annotations

import torch

from amc_latency.data import load_data


def few_images() -> dict[str, torch.Tensor]:
    """2,000 images to train on, of which a tenth is held back, and 500 to test on."""
    data = load_data("bundled")
    train, test = data.train.take(2000), data.test.take(500)
    return {
        "train_images": train.images,
        "train_labels": train.labels,
        "test_images": test.images,
        "test_labels": test.labels,
    }
