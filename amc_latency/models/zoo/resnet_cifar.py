"""ResNet-20, ResNet-56 and Plain-20 for small images (He et al., arXiv 1512.03385, section 4.2).

A 3x3 stem, three stages of n blocks of two 3x3 convolutions, a global average pool and a linear classifier: 6n + 2
layers. Where a stage halves the image, the shortcut is a 1x1 projection (the paper's option B). Its CIFAR nets pad
with zero channels instead (option A), and channels that are joined to zeros cannot be cut. The projections add
2,752 parameters and 262,144 MACs (0.6 %) to ResNet-20 at 32x32.
"""

from collections.abc import Sequence

import torch
from torch import nn

from amc_latency.models.spec import ModelSpec
from amc_latency.models.zoo.mobilenet_v1 import scaled_channels

STAGE_CHANNELS = (16, 32, 64)
BLOCKS = {"resnet20": 3, "resnet56": 9, "plain20": 3}
"""blocks in each stage, by name"""


def _conv_bn(inputs: int, outputs: int, kernel: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    ]


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm; with `shortcut` the block's input is added before the last ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv_bn(inputs, outputs, 3, stride)
        self.relu1 = nn.ReLU()
        self.conv2, self.bn2 = _conv_bn(outputs, outputs, 3, 1)
        self.relu2 = nn.ReLU()
        self.shortcut: nn.Module | None = None
        if shortcut:
            same = inputs == outputs and stride == 1
            self.shortcut = nn.Identity() if same else nn.Sequential(*_conv_bn(inputs, outputs, 1, stride))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(out if self.shortcut is None else out + self.shortcut(x))


class CifarResNet(nn.Module):
    """Input [N, in_channels, H, W], output logits [N, classes]; `channels` holds the stages' three widths."""

    def __init__(self, channels: Sequence[int], blocks: int, shortcut: bool, classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv, self.bn = _conv_bn(in_channels, channels[0], 3, 1)
        self.relu = nn.ReLU()
        layers, inputs = [], channels[0]
        for stage, outputs in enumerate(channels):
            for block in range(blocks):
                layers.append(Block(inputs, outputs, 2 if stage > 0 and block == 0 else 1, shortcut))
                inputs = outputs
        self.blocks = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.classifier = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.bn(self.conv(x)))
        return self.classifier(self.flatten(self.pool(self.blocks(x))))


def build(spec: ModelSpec, name: str) -> CifarResNet:
    """The network that `BLOCKS` calls `name`, its stages at `spec.width` times 16, 32 and 64 channels."""
    channels = scaled_channels(spec.width, STAGE_CHANNELS)
    return CifarResNet(channels, BLOCKS[name], name.startswith("resnet"), spec.classes, spec.input[0])
