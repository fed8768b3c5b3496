"""MobileNetV2 (Sandler et al., arXiv 1801.04381) as torchvision has it, for images of any number of channels."""

from torch import nn
from torchvision.models import MobileNetV2
from torchvision.ops import Conv2dNormActivation


def mobilenet_v2(width: float = 1.0, classes: int = 1000, in_channels: int = 3) -> MobileNetV2:
    """Build MobileNetV2 at a width multiplier; the last convolution has at least 1280 channels, as in the paper."""
    # No dropout: a resumed training would draw other masks than an unbroken one.
    model = MobileNetV2(num_classes=classes, width_mult=width, dropout=0.0)
    if in_channels != 3:
        outputs = model.features[0][0].out_channels
        model.features[0] = stem = Conv2dNormActivation(in_channels, outputs, stride=2, activation_layer=nn.ReLU6)
        nn.init.kaiming_normal_(stem[0].weight, mode="fan_out")
    return model
