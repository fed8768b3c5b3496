"""MobileNetV1 (Howard et al., arXiv 1704.04861): any width, channel counts and resolution."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from amc_latency.errors import UserError
from amc_latency.models.spec import ModelSpec

BASE_CHANNELS = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
BLOCK_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)


def scaled_channels(width: float, base: Sequence[int] = BASE_CHANNELS) -> tuple[int, ...]:
    """The channel counts `base` at a width multiplier, each the nearest multiple of 8 and at least 8."""
    return tuple(max(8, int(count * width + 4) // 8 * 8) for count in base)


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """A depthwise 3x3 and a pointwise 1x1 convolution, each with batch norm and ReLU6."""
    return nn.Sequential(
        OrderedDict(
            depthwise=nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False),
            depthwise_bn=nn.BatchNorm2d(inputs),
            depthwise_act=nn.ReLU6(),
            pointwise=nn.Conv2d(inputs, outputs, 1, bias=False),
            pointwise_bn=nn.BatchNorm2d(outputs),
            pointwise_act=nn.ReLU6(),
        )
    )


class MobileNetV1(nn.Module):
    """A stem, 13 depthwise separable blocks, a global average pool and a linear classifier.

    Input [N, in_channels, H, W], output logits [N, classes]. `channels` holds the stem's output count and
    then each pointwise layer's.
    """

    def __init__(self, channels: Sequence[int], classes: int, in_channels: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(in_channels, channels[0], 3, stride=2, padding=1, bias=False),
                bn=nn.BatchNorm2d(channels[0]),
                act=nn.ReLU6(),
            )
        )
        self.blocks = nn.Sequential(
            *(_block(channels[i], channels[i + 1], stride) for i, stride in enumerate(BLOCK_STRIDES))
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(channels[-1], classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.flatten(self.pool(self.blocks(self.stem(x)))))


def mobilenet_v1(
    width: float = 1.0, classes: int = 1000, in_channels: int = 3, channels: Sequence[int] | None = None
) -> MobileNetV1:
    """Build MobileNetV1 at a width, or with 14 explicit channel counts (then `width` is not used).

    Raises UserError for anything but 14 positive counts.
    """
    if channels is None:
        channels = scaled_channels(width)
    if len(channels) != len(BASE_CHANNELS) or min(channels) < 1:
        raise UserError(
            f"MobileNetV1 takes {len(BASE_CHANNELS)} channel counts of at least 1 (the stem, then 13 "
            f"pointwise layers); got {len(channels)}: {','.join(map(str, channels))}"
        )
    return MobileNetV1(channels, classes, in_channels)


def build(spec: ModelSpec, name: str) -> MobileNetV1:
    """MobileNetV1 of a `ModelSpec`, cut or not. Raises what `mobilenet_v1` raises."""
    return mobilenet_v1(spec.width, spec.classes, spec.input[0], spec.channels)
