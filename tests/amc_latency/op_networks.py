"""Small networks, one or a few for each operation that the walk knows, with their layers' shapes worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Written(nn.Module):
    """A network whose forward is a function of itself and the image."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.written = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.written(self, x)


@dataclass(frozen=True)
class Case:
    """A network, and the layers that it has."""

    build: Callable[[], nn.Module]
    image: tuple[int, int, int]
    layers: tuple[str, ...]
    """`LayerShape.text` of each, without ` none` and ` float32`"""
    arguments: tuple[float, ...] = ()
    """those that are not 0"""


def ending(channels: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3))


def ended(c: int, h: int, w: int) -> tuple[str, str]:
    return (f"global_pool {c}x{h}x{w}>{c} k1 s1 p0", f"linear {c}x1x1>3 k1 s1 p0")


def in_a_row(*layers: nn.Module, channels: int = 4) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*layers, ending(channels))


def written(forward: Callable[[Any, Tensor], Tensor], channels: int = 4, **layers: nn.Module) -> Callable[[], Written]:
    return lambda: Written(lambda net, x: net.ending(forward(net, x)), ending=ending(channels), **layers)


def conv(c_in: int = 3, c_out: int = 4, **rest: Any) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, rest.pop("kernel", 1), **rest)


def gate(kind: str) -> nn.Sequential:
    """The two layers of squeeze-and-excitation on 8 channels."""
    one, two = (conv(8, 2), conv(2, 8)) if kind == "conv" else (nn.Linear(8, 2), nn.Linear(2, 8))
    return nn.Sequential(one, nn.ReLU(), two, nn.Hardsigmoid() if kind == "conv" else nn.Sigmoid())


def excited_by_linear(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    factors = net.gate(x.mean((2, 3))).view(x.size(0), -1, 1, 1)
    return factors * x


def shuffled(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


def permuted(net: Any, x: Tensor) -> Tensor:
    n, c, h, w = (x := net.stem(x)).shape
    return x.view(n, 3, c // 3, h, w).permute(0, 2, 1, 3, 4).reshape(n, c, h, w)


def halves(net: Any, x: Tensor) -> Tensor:
    left, right = net.stem(x).chunk(2, dim=1)
    return torch.cat((left, net.on_right(right)), dim=1)


def thirds(net: Any, x: Tensor) -> Tensor:
    parts = torch.split(net.stem(x), [1, 2, 1], 1)
    return net.last(torch.cat([parts[-1], parts[0]], -3))


def twice_activated(net: Any, x: Tensor) -> Tensor:
    x = functional.relu6(net.stem(x))
    return net.shared(torch.relu(net.shared(x)))


def residual(net: Any, x: Tensor) -> Tensor:
    x = net.stem(x)
    return x + net.conv(torch.relu(net.bn(x)))


def pooled_by_functions(net: Any, x: Tensor) -> Tensor:
    x = functional.max_pool2d(functional.pad(net.stem(x), (0, 0, 0, 0)), 3, 2, ceil_mode=True)
    x = functional.avg_pool2d(x, 2)
    return functional.adaptive_avg_pool2d(x, (1, 1)).view(x.size(0), -1)


def alike_activations(net: Any, x: Tensor) -> Tensor:
    x = functional.leaky_relu(net.stem(x), 0.2)
    x = functional.elu(net.second(x))
    return functional.gelu(functional.silu(functional.hardswish(x))).tanh()


def with_scalars(net: Any, x: Tensor) -> Tensor:
    y = net.stem((x - 0.5) / 0.25)
    y = (3 + net.second(y)).mul(other=2).sub(1.0, alpha=4).relu()
    return -(2 * torch.div(y, 8.0) + 1)


def clamped(net: Any, x: Tensor) -> Tensor:
    x = net.second(net.stem(x).clamp(min=0)).clip(0, 6)
    return functional.hardtanh(torch.clamp(net.second(x), min=0.0, max=6.0), 0.0, 6.0)


CASES = {
    "kernels that are not square": Case(
        in_a_row(
            *(conv(kernel=(1, 5), padding=(0, 2)), conv(4, 4, kernel=(3, 1), stride=2)),
            *(conv(4, 4, kernel=3, padding=(0, 1), groups=4), nn.ReLU(), conv(4, 4, kernel=(1, 3), padding="same")),
            *(nn.MaxPool2d((2, 1), 2), nn.AvgPool2d((1, 2), 1)),
        ),
        (3, 13, 16),
        (
            "conv 3x13x16>4 k1x5 s1 p0x2",
            "conv 4x13x16>4 k3x1 s2 p0x0",  # (13 - 3) / 2 + 1 = 6, ceil(16 / 2) = 8
            "depthwise 4x6x8>4 k3x3 s1 p0x1 relu",
            "conv 4x4x8>4 k1x3 s1 p0x1",
            "max_pool 4x4x8>4 k2x1 s2 p0x0",
            "avg_pool 4x2x4>4 k1x2 s1 p0x0",
            *ended(4, 2, 3),
        ),
    ),
    "a batch norm of features": Case(
        lambda: nn.Sequential(
            *(conv(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(4), nn.ReLU()),
            *(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU6(), nn.Linear(6, 3)),
        ),
        (3, 5, 5),
        (
            *("conv 3x5x5>4 k1 s1 p0", "global_pool 4x5x5>4 k1 s1 p0", "depthwise 4x1x1>4 k1 s1 p0 relu"),
            *("linear 4x1x1>6 k1 s1 p0 relu6", "linear 6x1x1>3 k1 s1 p0"),
        ),
    ),
    "a batch norm of the features of a flattened pixel": Case(
        lambda: nn.Sequential(
            *(conv(3, 4), conv(4, 6, kernel=5), nn.Flatten(), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
        ),
        (3, 5, 5),
        (
            *("conv 3x5x5>4 k1 s1 p0", "conv 4x5x5>6 k5 s1 p0"),
            *("depthwise 6x1x1>6 k1 s1 p0 relu", "linear 6x1x1>3 k1 s1 p0"),
        ),
    ),
    "features beside their batch norm": Case(
        lambda: Written(
            lambda net, x: net.fc(torch.cat([net.norm(y := net.stem(x).mean((2, 3))), y], 1)),
            **{"stem": conv(), "norm": nn.BatchNorm1d(4), "fc": nn.Linear(8, 3)},
        ),
        (3, 5, 5),
        (
            *("conv 3x5x5>4 k1 s1 p0", "global_pool 4x5x5>4 k1 s1 p0", "depthwise 4x1x1>4 k1 s1 p0"),
            *("concat 8x1x1>8 k1 s1 p0 n2", "linear 8x1x1>3 k1 s1 p0"),
        ),
    ),
    "a prelu of one slope of a flattened map": Case(
        lambda: nn.Sequential(conv(), nn.Flatten(), nn.PReLU(), nn.Linear(16, 3)),
        (3, 2, 2),
        ("conv 3x2x2>4 k1 s1 p0", "activation 16x1x1>16 k1 s1 p0 prelu", "linear 16x1x1>3 k1 s1 p0"),
    ),
    "a max pool that pads across alone": Case(
        in_a_row(conv(), nn.MaxPool2d((1, 3), 2, (0, 1))),
        (3, 8, 8),
        ("conv 3x8x8>4 k1 s1 p0", "signed_max_pool 4x8x8>4 k1x3 s2 p0x1", *ended(4, 4, 4)),
    ),
    "slices by index": Case(
        written(lambda net, x: torch.cat([(y := net.stem(x)[:, :9])[:, :1], y[:, 1:-1, ...]], 1), 3, stem=conv()),
        (3, 5, 5),
        (
            *("conv 3x5x5>4 k1 s1 p0", "slice 4x5x5>1 k1 s1 p0", "slice 4x5x5>2 k1 s1 p0"),
            *("concat 3x5x5>3 k1 s1 p0 n2", *ended(3, 5, 5)),
        ),
        (1.0,),
    ),
    "numbers": Case(
        written(with_scalars, stem=conv(), second=conv(4, 4)),
        (3, 5, 5),
        (
            *("add_scalar 3x5x5>3 k1 s1 p0", "mul_scalar 3x5x5>3 k1 s1 p0"),
            *("conv 3x5x5>4 k1 s1 p0", "conv 4x5x5>4 k1 s1 p0"),
            *("add_scalar 4x5x5>4 k1 s1 p0", "mul_scalar 4x5x5>4 k1 s1 p0", "add_scalar 4x5x5>4 k1 s1 p0 relu"),
            *("mul_scalar 4x5x5>4 k1 s1 p0", "mul_scalar 4x5x5>4 k1 s1 p0", "add_scalar 4x5x5>4 k1 s1 p0"),
            "mul_scalar 4x5x5>4 k1 s1 p0",
            *ended(4, 5, 5),
        ),
        (-0.5, 4.0, 3.0, 2.0, -4.0, 0.125, 2.0, 1.0, -1.0),
    ),
    "activations as clamps": Case(
        written(clamped, stem=conv(), second=conv(4, 4)),
        (3, 5, 5),
        (
            *("conv 3x5x5>4 k1 s1 p0 relu", "conv 4x5x5>4 k1 s1 p0 relu6", "conv 4x5x5>4 k1 s1 p0 relu6"),
            "activation 4x5x5>4 k1 s1 p0 relu6",
            *ended(4, 5, 5),
        ),
    ),
    "prelu, of a slope a channel and of one": Case(
        in_a_row(conv(), nn.PReLU(4), nn.PReLU()),
        (3, 5, 5),
        ("conv 3x5x5>4 k1 s1 p0", *["activation 4x5x5>4 k1 s1 p0 prelu"] * 2, *ended(4, 5, 5)),
    ),
    "grouped convolutions that widen and narrow": Case(
        in_a_row(conv(3, 6, groups=3), conv(6, 4, groups=2, kernel=3, padding=1), nn.ReLU()),
        (3, 5, 5),
        ("grouped 3x5x5>6 k1 s1 p0 g1", "grouped 6x5x5>4 k3 s1 p1 g3 relu", *ended(4, 5, 5)),
    ),
    "an average of what lies inside": Case(
        in_a_row(conv(), nn.AvgPool2d(3, 1, 1, count_include_pad=False), nn.AvgPool2d(2, 2, count_include_pad=False)),
        (3, 6, 6),
        (
            *("conv 3x6x6>4 k1 s1 p0", "inner_avg_pool 4x6x6>4 k3 s1 p1", "avg_pool 4x6x6>4 k2 s2 p0"),
            *ended(4, 3, 3),
        ),
    ),
    "a max pool of what a number may have made less than zero": Case(
        in_a_row(conv(), nn.ReLU(), nn.MaxPool2d(3, 1, 1), nn.PReLU(4), nn.MaxPool2d(3, 1, 1)),
        (3, 5, 5),
        (
            *("conv 3x5x5>4 k1 s1 p0 relu", "max_pool 4x5x5>4 k3 s1 p1"),
            *("activation 4x5x5>4 k1 s1 p0 prelu", "signed_max_pool 4x5x5>4 k3 s1 p1"),
            *ended(4, 5, 5),
        ),
    ),
    "max pool, ceil_mode": Case(
        # 8 -> ceil((8 - 3) / 2) + 1 = 4, whose last window ends 3 * 2 + 3 - 8 = 1 beyond
        in_a_row(conv(), nn.MaxPool2d(3, 2, ceil_mode=True)),
        (3, 8, 8),
        ("conv 3x8x8>4 k1 s1 p0", "signed_max_pool 4x8x8>4 k3 s2 p0+1", *ended(4, 4, 4)),
    ),
    "average pool, ceil_mode": Case(
        in_a_row(conv(), nn.AvgPool2d(2, ceil_mode=True)),
        (3, 7, 7),
        ("conv 3x7x7>4 k1 s1 p0", "avg_pool 4x7x7>4 k2 s2 p0+1", *ended(4, 4, 4)),
    ),
    "ceil_mode that adds nothing": Case(
        in_a_row(conv(), nn.MaxPool2d(2, ceil_mode=True), nn.AvgPool2d(3, 1, 1, ceil_mode=True)),
        (3, 8, 12),
        ("conv 3x8x12>4 k1 s1 p0", "max_pool 4x8x12>4 k2 s2 p0", "avg_pool 4x4x6>4 k3 s1 p1", *ended(4, 4, 6)),
    ),
    "padding at the end, as TensorFlow's SAME": Case(
        in_a_row(nn.ZeroPad2d((0, 1, 0, 1)), conv(kernel=3, stride=2), nn.ReLU6()),
        (3, 8, 8),
        ("conv 3x8x8>4 k3 s2 p0+1 relu6", *ended(4, 4, 4)),
    ),
    "padding by a function, on top of the convolution's": Case(
        written(lambda net, x: net.stem(functional.pad(x, [1, 2, 1, 2])), stem=conv(kernel=5, stride=2, padding=1)),
        (3, 8, 8),
        # 8 + 2 * 2 + 1 = 13 pixels: (13 - 5) / 2 + 1 = 5
        ("conv 3x8x8>4 k5 s2 p2+1", *ended(4, 5, 5)),
    ),
    "dilation": Case(
        in_a_row(conv(kernel=3, dilation=2, padding=2), conv(4, 4, kernel=3, dilation=2, groups=4)),
        (3, 9, 9),
        ("conv 3x9x9>4 k3 s1 p2 d2", "depthwise 4x9x9>4 k3 s1 p0 d2", *ended(4, 5, 5)),
    ),
    'padding "same"': Case(
        in_a_row(*(conv(c, 4, kernel=k, padding="same") for c, k in ((3, 3), (4, 2), (4, 4)))),
        (3, 6, 8),
        (
            "conv 3x6x8>4 k3 s1 p1",
            "conv 4x6x8>4 k2 s1 p0+1",
            "conv 4x6x8>4 k4 s1 p1+1",
            *ended(4, 6, 8),
        ),
    ),
    "squeeze-and-excitation by convolutions": Case(
        written(
            lambda net, x: (x := net.stem(x)) * net.gate(net.pool(x)),
            8,
            stem=conv(3, 8),
            pool=nn.AdaptiveAvgPool2d(1),
            gate=gate("conv"),
        ),
        (3, 6, 6),
        (
            "conv 3x6x6>8 k1 s1 p0",
            "global_pool 8x6x6>8 k1 s1 p0",
            "conv 8x1x1>2 k1 s1 p0 relu",
            "conv 2x1x1>8 k1 s1 p0",
            "activation 8x1x1>8 k1 s1 p0 hard_sigmoid",
            "scale 8x6x6>8 k1 s1 p0",
            *ended(8, 6, 6),
        ),
        (1.0,),  # the first global pool keeps its height and width
    ),
    "squeeze-and-excitation by linear layers": Case(
        written(excited_by_linear, 8, stem=conv(3, 8), gate=gate("linear")),
        (3, 6, 6),
        (
            "conv 3x6x6>8 k1 s1 p0",
            "global_pool 8x6x6>8 k1 s1 p0",
            "linear 8x1x1>2 k1 s1 p0 relu",
            "linear 2x1x1>8 k1 s1 p0",
            "activation 8x1x1>8 k1 s1 p0 sigmoid",
            "scale 8x6x6>8 k1 s1 p0",
            *ended(8, 6, 6),
        ),
    ),
    "activations as modules": Case(
        in_a_row(
            *(conv(), nn.Hardswish(inplace=True), nn.SiLU(), nn.Sigmoid(), nn.Tanh(), nn.LeakyReLU(0.3)),
            *(nn.ELU(), nn.GELU(), nn.Hardsigmoid(), nn.Hardtanh(0, 6), conv(4, 4), nn.Hardtanh(0, 6)),
        ),
        (3, 5, 5),
        (
            "conv 3x5x5>4 k1 s1 p0",
            *(f"activation 4x5x5>4 k1 s1 p0 {name}" for name in ("hard_swish", "silu", "sigmoid", "tanh")),
            *(f"activation 4x5x5>4 k1 s1 p0 {name}" for name in ("leaky_relu", "elu", "gelu", "hard_sigmoid", "relu6")),
            "conv 4x5x5>4 k1 s1 p0 relu6",
            *ended(4, 5, 5),
        ),
        (0.3, 1.0),
    ),
    "activations as functions": Case(
        written(alike_activations, stem=conv(), second=conv(4, 4)),
        (3, 5, 5),
        (
            "conv 3x5x5>4 k1 s1 p0",
            "activation 4x5x5>4 k1 s1 p0 leaky_relu",
            "conv 4x5x5>4 k1 s1 p0",
            *(f"activation 4x5x5>4 k1 s1 p0 {name}" for name in ("elu", "hard_swish", "silu", "gelu", "tanh")),
            *ended(4, 5, 5),
        ),
        (0.2, 1.0),
    ),
    "shuffle": Case(
        written(shuffled, 6, stem=conv(3, 6)),
        (3, 5, 7),
        ("conv 3x5x7>6 k1 s1 p0", "shuffle 6x5x7>6 k1 s1 p0 n2", *ended(6, 5, 7)),
    ),
    "shuffle by permute": Case(
        written(permuted, 6, stem=conv(3, 6)),
        (3, 5, 7),
        ("conv 3x5x7>6 k1 s1 p0", "shuffle 6x5x7>6 k1 s1 p0 n3", *ended(6, 5, 7)),
    ),
    "shuffle as a module and a function": Case(
        written(
            lambda net, x: functional.channel_shuffle(net.deal(net.stem(x)), 2),
            6,
            stem=conv(3, 6),
            deal=nn.ChannelShuffle(3),
        ),
        (3, 5, 7),
        ("conv 3x5x7>6 k1 s1 p0", "shuffle 6x5x7>6 k1 s1 p0 n3", "shuffle 6x5x7>6 k1 s1 p0 n2", *ended(6, 5, 7)),
    ),
    "chunk": Case(
        written(halves, 4, stem=conv(), on_right=nn.Sequential(conv(2, 2), nn.ReLU())),
        (3, 5, 5),
        (
            "conv 3x5x5>4 k1 s1 p0",
            "slice 4x5x5>2 k1 s1 p0",
            "slice 4x5x5>2 k1 s1 p0",
            "conv 2x5x5>2 k1 s1 p0 relu",
            "concat 4x5x5>4 k1 s1 p0 n2",
            *ended(4, 5, 5),
        ),
        (2.0,),
    ),
    "split": Case(
        written(thirds, 4, stem=conv(), last=conv(2, 4)),
        (3, 5, 5),
        (
            "conv 3x5x5>4 k1 s1 p0",
            "slice 4x5x5>1 k1 s1 p0",
            "slice 4x5x5>1 k1 s1 p0",
            "concat 2x5x5>2 k1 s1 p0 n2",
            "conv 2x5x5>4 k1 s1 p0",
            *ended(4, 5, 5),
        ),
        (3.0,),
    ),
    "transposed convolutions": Case(
        in_a_row(
            *(conv(), nn.ConvTranspose2d(4, 6, 2, 2), nn.BatchNorm2d(6), nn.ReLU6()),
            *(nn.ConvTranspose2d(6, 4, (3, 4), 2, (1, 1), bias=False), nn.ConvTranspose2d(4, 4, 3, 1, 1)),
        ),
        (3, 2, 3),
        (
            "conv 3x2x3>4 k1 s1 p0",
            "transposed 4x2x3>6 k2 s2 p0 relu6",
            "transposed 6x4x6>4 k3x4 s2 p1x1",  # (4 - 1) 2 - 2 + 3 = 7, (6 - 1) 2 - 2 + 4 = 12
            "transposed 4x7x12>4 k3 s1 p1",
            *ended(4, 7, 12),
        ),
    ),
    "upsampling": Case(
        written(
            lambda net, x: functional.interpolate(net.bigger(net.stem(x)), scale_factor=3, mode="bilinear"),
            stem=conv(),
            bigger=nn.Upsample(scale_factor=2),
        ),
        (3, 2, 3),
        ("conv 3x2x3>4 k1 s1 p0", "nearest 4x2x3>4 k1 s2 p0", "bilinear 4x4x6>4 k1 s3 p0", *ended(4, 12, 18)),
    ),
    "softmax": Case(
        lambda: nn.Sequential(conv(), ending(4), nn.Softmax(1)),
        (3, 5, 5),
        ("conv 3x5x5>4 k1 s1 p0", *ended(4, 5, 5), "softmax 3x1x1>3 k1 s1 p0"),
    ),
    "softmax by a function, of a pool": Case(
        lambda: Written(lambda net, x: torch.softmax(net.stem(x).mean([-1, -2]), dim=-1), stem=conv()),
        (3, 5, 5),
        ("conv 3x5x5>4 k1 s1 p0", "global_pool 4x5x5>4 k1 s1 p0", "softmax 4x1x1>4 k1 s1 p0"),
    ),
    "batch norm before the activation, as in a pre-activation ResNet": Case(
        written(residual, stem=conv(), bn=nn.BatchNorm2d(4), conv=conv(4, 4)),
        (3, 5, 5),
        (
            "conv 3x5x5>4 k1 s1 p0",
            "depthwise 4x5x5>4 k1 s1 p0 relu",
            "conv 4x5x5>4 k1 s1 p0",
            "add 4x5x5>4 k1 s1 p0",
            *ended(4, 5, 5),
        ),
    ),
    "batch norm after a concatenation": Case(
        written(
            lambda net, x: net.bn(torch.cat([net.left(x), net.right(x), x], 1)),
            8,
            left=conv(3, 2),
            right=nn.Sequential(conv(3, 3), nn.BatchNorm2d(3), nn.ReLU()),
            bn=nn.BatchNorm2d(8),
        ),
        (3, 5, 5),
        (
            "conv 3x5x5>2 k1 s1 p0",
            "conv 3x5x5>3 k1 s1 p0 relu",
            "concat 8x5x5>8 k1 s1 p0 n3",
            "depthwise 8x5x5>8 k1 s1 p0",
            *ended(8, 5, 5),
        ),
    ),
    "batch norm after an activation": Case(
        in_a_row(conv(), nn.ReLU(), nn.BatchNorm2d(4), nn.ReLU()),
        (3, 5, 5),
        ("conv 3x5x5>4 k1 s1 p0 relu", "depthwise 4x5x5>4 k1 s1 p0 relu", *ended(4, 5, 5)),
    ),
    "pooling 14x14 to 7x7": Case(
        lambda: nn.Sequential(conv(3, 2), nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(2 * 49, 3)),
        (3, 14, 14),
        ("conv 3x14x14>2 k1 s1 p0", "avg_pool 2x14x14>2 k2 s2 p0", "linear 98x1x1>3 k1 s1 p0"),
    ),
    "pooling 2x2 to 6x6, and 6x6 to 6x6": Case(
        in_a_row(conv(), nn.AdaptiveAvgPool2d(6), nn.AdaptiveAvgPool2d((6, 6)), conv(4, 4, kernel=3)),
        (3, 2, 2),
        ("conv 3x2x2>4 k1 s1 p0", "nearest 4x2x2>4 k1 s3 p0", "conv 4x6x6>4 k3 s1 p0", *ended(4, 4, 4)),
    ),
    "pools as functions": Case(
        lambda: Written(lambda net, x: net.head(pooled_by_functions(net, x)), stem=conv(), head=nn.Linear(4, 3)),
        (3, 10, 10),
        # 10 -> ceil(7 / 2) + 1 = 5, whose last window ends 4 * 2 + 3 - 10 = 1 beyond; 5 -> 2
        (
            "conv 3x10x10>4 k1 s1 p0",
            "signed_max_pool 4x10x10>4 k3 s2 p0+1",
            "avg_pool 4x5x5>4 k2 s2 p0",
            *ended(4, 2, 2),
        ),
    ),
    "padded max pools of what may be below zero, and of what may not": Case(
        in_a_row(
            *(conv(), nn.MaxPool2d(3, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
            *(conv(4, 4), nn.Hardswish(), nn.MaxPool2d(3, 2, 1)),
        ),
        (3, 16, 16),
        (
            "conv 3x16x16>4 k1 s1 p0",
            "max_pool 4x16x16>4 k3 s2 p1 relu",  # below zero too, but a ReLU makes zeros of that
            "max_pool 4x8x8>4 k3 s2 p1",
            "conv 4x4x4>4 k1 s1 p0",
            "activation 4x4x4>4 k1 s1 p0 hard_swish",
            "signed_max_pool 4x4x4>4 k3 s2 p1",
            *ended(4, 2, 2),
        ),
    ),
    "what does nothing between a convolution, its batch norm and its activation": Case(
        in_a_row(conv(), nn.Identity(), nn.BatchNorm2d(4), nn.Dropout2d(), nn.ReLU()),
        (3, 5, 5),
        ("conv 3x5x5>4 k1 s1 p0 relu", *ended(4, 5, 5)),
    ),
    "an activation, behind dropout, of what is read elsewhere": Case(
        written(lambda net, x: (y := net.stem(x)) + torch.relu(functional.dropout(y, training=False)), stem=conv()),
        (3, 5, 5),
        (
            "conv 3x5x5>4 k1 s1 p0",
            "activation 4x5x5>4 k1 s1 p0 relu",
            "add 4x5x5>4 k1 s1 p0",
            *ended(4, 5, 5),
        ),
    ),
    "one batch norm after another": Case(
        in_a_row(conv(), nn.ReLU(), nn.BatchNorm2d(4), nn.BatchNorm2d(4)),
        (3, 5, 5),
        ("conv 3x5x5>4 k1 s1 p0 relu", *["depthwise 4x5x5>4 k1 s1 p0"] * 2, *ended(4, 5, 5)),
    ),
    "a convolution that nothing reads": Case(
        written(lambda net, x: (y := net.stem(x), net.unread(y))[0], stem=conv(), unread=conv(4, 5)),
        (3, 5, 5),
        ("conv 3x5x5>4 k1 s1 p0", *ended(4, 5, 5)),
    ),
    "one thing joined to itself, by name": Case(
        written(lambda net, x: torch.cat(tensors=[y := net.stem(x), y], dim=1), 8, stem=conv()),
        (3, 5, 5),
        ("conv 3x5x5>4 k1 s1 p0", "concat 8x5x5>8 k1 s1 p0 n2", *ended(8, 5, 5)),
    ),
    "layers that are called as operations are": Case(
        lambda: Written(lambda net, x: net.add(net.split(x).mean((2, 3))), split=conv(), add=nn.Linear(4, 3)),
        (3, 5, 5),
        ("conv 3x5x5>4 k1 s1 p0", *ended(4, 5, 5)),
    ),
    "halves of what was pooled": Case(
        written(
            lambda net, x: torch.add(*net.pool(net.stem(x)).chunk(2, 1)), stem=conv(3, 8), pool=nn.AdaptiveAvgPool2d(1)
        ),
        (3, 5, 5),
        (
            *("conv 3x5x5>8 k1 s1 p0", "global_pool 8x5x5>8 k1 s1 p0"),
            *("slice 8x1x1>4 k1 s1 p0", "slice 8x1x1>4 k1 s1 p0", "add 4x1x1>4 k1 s1 p0"),
            "linear 4x1x1>3 k1 s1 p0",
        ),
        (1.0, 4.0),
    ),
    "grouped convolution": Case(
        in_a_row(
            conv(3, 8), conv(8, 8, kernel=3, groups=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), channels=8
        ),
        (3, 5, 5),
        ("conv 3x5x5>8 k1 s1 p0", "grouped 8x5x5>8 k3 s1 p1 g4 relu", *ended(8, 5, 5)),
    ),
    "a layer that is called twice": Case(
        written(twice_activated, stem=conv(), shared=conv(4, 4, kernel=3, padding=1)),
        (3, 5, 5),
        ("conv 3x5x5>4 k1 s1 p0 relu6", "conv 4x5x5>4 k3 s1 p1 relu", "conv 4x5x5>4 k3 s1 p1", *ended(4, 5, 5)),
    ),
    "a product, a sum with itself, and an activation of the image": Case(
        written(lambda net, x: torch.multiply(y := net.stem(x.relu()), torch.tanh(y)).add(y) + y, stem=conv()),
        (3, 5, 5),
        (
            "activation 3x5x5>3 k1 s1 p0 relu",
            "conv 3x5x5>4 k1 s1 p0",
            "activation 4x5x5>4 k1 s1 p0 tanh",
            "mul 4x5x5>4 k1 s1 p0",
            "add 4x5x5>4 k1 s1 p0",
            "add 4x5x5>4 k1 s1 p0",
            *ended(4, 5, 5),
        ),
    ),
    "a sum of one thing twice, and an activation after a concatenation": Case(
        written(lambda net, x: torch.cat([y := net.stem(x), y + y], dim=1).relu(), 8, stem=conv()),
        (3, 5, 5),
        (
            "conv 3x5x5>4 k1 s1 p0",
            "add 4x5x5>4 k1 s1 p0",
            "concat 8x5x5>8 k1 s1 p0 n2",
            "activation 8x5x5>8 k1 s1 p0 relu",
            *ended(8, 5, 5),
        ),
    ),
    "flattened maps that are joined": Case(
        lambda: Written(
            lambda net, x: net.head(torch.cat([torch.flatten(net.left(x), 1), net.right(x).reshape(x.size(0), -1)], 1)),
            left=conv(3, 2),
            right=conv(3, 3),
            head=nn.Linear(5 * 6, 3),
        ),
        (3, 2, 3),
        ("conv 3x2x3>2 k1 s1 p0", "conv 3x2x3>3 k1 s1 p0", "concat 30x1x1>30 k1 s1 p0 n2", "linear 30x1x1>3 k1 s1 p0"),
    ),
}
