"""LeNet-5 (LeCun et al., "Gradient-Based Learning Applied to Document Recognition", Proc. IEEE 1998, section II.B).

Two 5x5 convolutions of 6 and 16 channels, each with a 2x2 pooling, and three fully connected layers of 120, 84 and 10.
As usual today it differs from the paper: ReLU in place of scaled tanh, max pooling in place of averaging with trained
coefficients, every channel of the second convolution reads every channel of the first, and a linear classifier in
place of Gaussian radial basis functions. That gives 61,706 parameters for 10 classes.
"""

from collections import OrderedDict
from dataclasses import replace

from torch import nn

from amc_latency.errors import UserError
from amc_latency.models.spec import ModelSpec

SMALLEST = 16


def described(spec: ModelSpec, name: str) -> ModelSpec:
    """Grey images of 28 pixels and 10 classes, as MNIST's."""
    return replace(spec, input=(1, 28, 28), classes=10)


def build(spec: ModelSpec, name: str) -> nn.Module:
    """LeNet-5 of a `ModelSpec`. Raises what `lenet5` raises."""
    return lenet5(spec.width, spec.classes, spec.input)


def lenet5(width: float = 1.0, classes: int = 10, input_chw: tuple[int, int, int] = (1, 28, 28)) -> nn.Sequential:
    """Build LeNet-5 for images [N, *input_chw]; those of 28 pixels, MNIST's, are padded to the paper's 32.

    Raises UserError for images of less than 16 pixels.
    """
    depth, height, width_px = input_chw
    if min(height, width_px) < SMALLEST:
        raise UserError(f"lenet5 takes images of {SMALLEST} pixels or more, not {height}x{width_px}")
    padding = 2 if (height, width_px) == (28, 28) else 0
    first, second, third, fourth = (max(1, round(width * count)) for count in (6, 16, 120, 84))
    # A 5x5 convolution takes 4 pixels off, a pooling halves what is left.
    positions = [((size + 2 * padding - 4) // 2 - 4) // 2 for size in (height, width_px)]
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(depth, first, 5, padding=padding),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(first, second, 5),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(second * positions[0] * positions[1], third),
            relu3=nn.ReLU(),
            fc2=nn.Linear(third, fourth),
            relu4=nn.ReLU(),
            classifier=nn.Linear(fourth, classes),
        )
    )
