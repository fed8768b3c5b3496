"""MobileNetV2 (Sandler et al., arXiv 1801.04381) as torchvision has it, for images of any number of channels."""

from torch import nn
from torchvision.models import MobileNetV2
from torchvision.ops import Conv2dNormActivation

from amc_latency.models.spec import ModelSpec


def build(spec: ModelSpec, name: str) -> MobileNetV2:
    """MobileNetV2 of a `ModelSpec`; the last convolution has at least 1280 channels, as in the paper."""
    # No dropout: a resumed training would draw other masks than an unbroken one.
    model = MobileNetV2(num_classes=spec.classes, width_mult=spec.width, dropout=0.0)
    if spec.input[0] != 3:
        outputs = model.features[0][0].out_channels
        stem = Conv2dNormActivation(spec.input[0], outputs, stride=2, activation_layer=nn.ReLU6)
        model.features[0] = stem
        nn.init.kaiming_normal_(stem[0].weight, mode="fan_out")
    return model
