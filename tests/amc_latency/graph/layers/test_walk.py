"""The walk's layers of small networks, worked out by hand; what it refuses, and how it names it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune

from amc_latency.errors import UserError
from amc_latency.graph.trace import trace
from tests.amc_latency.op_networks import CASES, Written, conv, ending, in_a_row, written

IMAGE = (3, 8, 8)


@pytest.mark.parametrize("name", CASES)
def test_layers(name: str) -> None:
    case = CASES[name]
    graph = trace(case.build(), case.image)
    texts = [shape.text.removesuffix(" float32").removesuffix(" none") for shape in graph.architecture.shapes()]
    assert texts == list(case.layers)
    assert tuple(argument for argument in graph.arguments if argument) == case.arguments


def test_a_layer_is_named_by_its_module_or_its_operation() -> None:
    graph = trace(CASES["chunk"].build(), (3, 5, 5))
    assert graph.layer_names == (
        *("stem", "getitem", "getitem_1", "on_right.0", "cat"),
        *("ending.0", "ending.2"),
    )


def shared_norm() -> nn.Module:
    return Written(
        lambda net, x: net.norm(net.second(net.norm(net.first(x)))),
        first=conv(),
        second=conv(4, 4),
        norm=nn.BatchNorm2d(4),
    )


def with_parameter() -> nn.Module:
    net = Written(lambda net, x: x * net.scale)
    net.scale = nn.Parameter(torch.ones(3, 1, 1))
    return net


def stem(forward: Callable[[Tensor], Any]) -> Callable[[], nn.Module]:
    """A function of what a convolution makes, [N, 4, 8, 8]."""
    return written(lambda net, x: forward(net.stem(x)), stem=conv())


def two(forward: Callable[..., Tensor], **layers: nn.Module) -> Callable[[], nn.Module]:
    return lambda: Written(forward, **layers)


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    # modules
    "module": (in_a_row(conv(), nn.Softplus()), r"^1: Softplus is not supported"),
    "layer norm": (
        lambda: nn.Sequential(conv(), ending(4), nn.LayerNorm(3)),
        r"^2: LayerNorm is not supported",
    ),
    "hard tanh": (in_a_row(conv(), nn.Hardtanh()), r"^1: Hardtanh is not supported"),
    "same, of a kernel of even height alone": (
        in_a_row(conv(kernel=(2, 3), padding="same")),
        r"^0: padding at the end \(1, 0\) is not supported",
    ),
    "strides that differ": (in_a_row(conv(stride=(1, 2))), r"^0: stride \(1, 2\)"),
    "reflected border": (in_a_row(conv(kernel=3, padding=1, padding_mode="reflect")), r"^0: padding other than"),
    "linear layer on a map": (
        lambda: nn.Sequential(conv(), nn.Linear(8, 3)),
        r"^1: a linear layer takes \[N, features\]",
    ),
    "batch norm without weights": (in_a_row(conv(), nn.BatchNorm2d(4, affine=False)), r"^1: a batch norm without"),
    "batch norm without statistics": (
        in_a_row(conv(), nn.BatchNorm2d(4, track_running_stats=False)),
        r"^1: a batch norm without",
    ),
    "batch norm twice": (
        lambda: nn.Sequential(shared_norm(), ending(4)),
        r"^0\.norm: a batch norm that is called twice",
    ),
    "convolution and its batch norm twice": (
        written(
            lambda net, x: net.shared(net.norm(net.shared(net.stem(x)))),
            stem=conv(),
            shared=conv(4, 4),
            norm=nn.BatchNorm2d(4),
        ),
        r"^shared: is called twice and has a batch norm",
    ),
    "gelu by tanh": (in_a_row(conv(), nn.GELU("tanh")), r"^1: GELU's tanh"),
    "elu of another slope": (in_a_row(conv(), nn.ELU(0.3)), r"^1: ELU with alpha 0.3"),
    "elu of another slope, by a function": (stem(lambda x: functional.elu(x, 2.0)), r"^elu: ELU with alpha 2.0"),
    "weight norm": (
        in_a_row(parametrizations.weight_norm(conv()), conv(4, 4)),
        r"^0: its weight is computed .* remove the parametrization first",
    ),
    "pruned by a mask": (in_a_row(prune.identity(conv(), "bias")), r"^0: its bias is computed from other"),
    "softmax over a map": (in_a_row(conv(), nn.Softmax(1)), r"^1: softmax is supported on \[N, classes\]"),
    "upsampling by corners": (
        in_a_row(conv(), nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)),
        r"^1: bilinear from",
    ),
    "upsampling by a broken factor": (in_a_row(conv(), nn.Upsample(size=12)), r"^1: nearest from \(4, 8, 8\)"),
    "bicubic": (in_a_row(conv(), nn.Upsample(scale_factor=2, mode="bicubic")), r"^1: bicubic"),
    # windows
    "max pool with indices": (
        written(lambda net, x: net.pool(x)[0], 3, pool=nn.MaxPool2d(2, return_indices=True)),
        r"^pool: returns several tensors",
    ),
    "dilated max pool": (in_a_row(conv(), nn.MaxPool2d(2, dilation=2)), r"^1: max pooling that is dilated"),
    "max pool after zeros": (
        in_a_row(conv(), nn.ZeroPad2d(1), nn.MaxPool2d(3)),
        r"^2: max pooling that .* follows zeros",
    ),
    "divisor": (in_a_row(conv(), nn.AvgPool2d(2, divisor_override=3)), r"^1: divisor_override"),
    "zeros before a border that is not counted": (
        in_a_row(conv(), nn.ZeroPad2d(1), nn.AvgPool2d(3, padding=1, count_include_pad=False)),
        r"^2: divisor_override, and zeros",
    ),
    "ceil_mode of a padded average": (in_a_row(conv(), nn.AvgPool2d(3, 2, 1, ceil_mode=True)), r"^1: ceil_mode"),
    "sizes that do not divide": (in_a_row(conv(), nn.AdaptiveAvgPool2d(3)), r"^1: pools \(4, 8, 8\) to \(4, 3, 3\)"),
    "padding that no window takes in": (in_a_row(conv(), nn.ZeroPad2d(1), nn.ReLU()), r"^2: zero padding is supported"),
    "more zeros at the start": (in_a_row(nn.ZeroPad2d((1, 0, 1, 0)), conv(kernel=3)), r"^0: pads by \(1, 0, 1, 0\)"),
    "padding beyond the kernel": (in_a_row(nn.ZeroPad2d(3), conv(kernel=3)), r"^1: padding must be smaller"),
    # operations
    "operation": (stem(lambda x: x.cumsum(1)), r"^cumsum: the operation cumsum is not supported; .*litert-torch"),
    "padding by reflection": (
        stem(lambda x: functional.pad(x, (1, 1, 1, 1), mode="reflect")),
        r"^pad: padding by reflect",
    ),
    "padding with ones": (stem(lambda x: functional.pad(x, (1, 1, 1, 1), value=1.0)), r"^pad: pads by"),
    "padding of channels": (
        written(lambda net, x: net.last(functional.pad(net.stem(x), (0, 0, 0, 0, 2, 2))), stem=conv(), last=conv(8, 4)),
        r"^pad: pads by \(0, 0, 0, 0, 2, 2\)",
    ),
    "a number less a tensor": (stem(lambda x: 1 - x), r"^sub: the operation sub is not supported"),
    "a number by a tensor": (stem(lambda x: 1 / x), r"^truediv: the operation truediv is not supported"),
    "the old way to weigh a sum": (
        written(lambda net, x: torch.add(net.one(x), 2, net.two(x)), one=conv(), two=conv()),
        r"^add: add of something that is neither a number nor made of the image",
    ),
    "the old way to weigh a difference": (
        written(lambda net, x: torch.sub(net.one(x), 2, net.two(x)), one=conv(), two=conv()),
        r"^sub: the operation sub is not supported",
    ),
    "a weighted sum with a number first": (stem(lambda x: torch.add(2, x, alpha=3)), r"^add: add of something"),
    "a product with the number of images": (stem(lambda x: x * x.size(0)), r"^mul: mul of something"),
    "a batch norm of a flattened map": (
        lambda: nn.Sequential(conv(), nn.ReLU(), nn.Flatten(), nn.BatchNorm1d(256), nn.Linear(256, 3)),
        r"^3: a batch norm of a flattened feature map",
    ),
    "a batch norm of a convolution's flattened map": (
        lambda: nn.Sequential(conv(), nn.Flatten(), nn.BatchNorm1d(256), nn.Linear(256, 3)),
        r"^2: a batch norm of a flattened feature map",
    ),
    "a prelu of a flattened map": (
        lambda: nn.Sequential(conv(), nn.Flatten(), nn.ReLU(), nn.PReLU(256), nn.Linear(256, 3)),
        r"^3: a PReLU with a slope a channel of a flattened",
    ),
    "a slice of a flattened map": (
        lambda: Written(lambda net, x: net.fc(net.stem(x).flatten(1)[:, :10]), stem=conv(), fc=nn.Linear(10, 3)),
        r"^getitem: a slice of a flattened",
    ),
    "a whole quotient": (stem(lambda x: torch.div(x, 2, rounding_mode="floor")), r"^div: the operation div"),
    "a difference of tensors": (stem(lambda x: x - torch.relu(x)), r"^sub: the operation sub is not supported"),
    "other bounds": (stem(lambda x: x.clamp(-1, 1)), r"^clamp: the operation clamp is not supported"),
    "weighted sum": (stem(lambda x: torch.add(x, x, alpha=2)), r"^add: a weighted sum of two tensors"),
    "product with one map": (
        written(lambda net, x: net.stem(x) * net.one(x), stem=conv(), one=conv(3, 1)),
        r"^mul: mul of",
    ),
    "slice of rows": (stem(lambda x: x[:, :, :4]), r"operation getitem is not supported"),
    "every other channel": (
        stem(lambda x: torch.cat([x[:, ::2], x[:, 1::2]], 1)),
        r"operation getitem is not supported",
    ),
    "one channel": (stem(lambda x: x * x[:, 1].mean()), r"operation getitem is not supported"),
    "slice of images": (stem(lambda x: x[:2]), r"operation getitem is not supported"),
    "parts in a row": (stem(lambda x: torch.cat(x.chunk(2, 1), 1)), r"^cat: joins all that chunk makes"),
    "parts in reverse": (stem(lambda x: torch.cat(x.chunk(2, 1)[::-1], 1)), r"operation getitem is not supported"),
    "split rows": (stem(lambda x: x.chunk(2, 2)[0]), r"^chunk: only channels can be split"),
    "split images": (stem(lambda x: x.chunk(2)[1]), r"^chunk: only channels can be split"),
    "joined rows": (stem(lambda x: torch.cat([x, x], 2)), r"^cat: joins along dimension 2"),
    "reshaped": (stem(lambda x: x.reshape(-1, 4, 4, 16)), r"^reshape: reshapes \(4, 8, 8\) to \(4, 4, 16\)"),
    "an activation of what is dealt out": (
        stem(lambda x: torch.relu(x.view(-1, 2, 2, 8, 8)).view(-1, 4, 8, 8)),
        r"^relu: reads \(2, 2, 8, 8\)",
    ),
    "reshaped across images": (
        stem(lambda x: x.view(-1, 2, 8, 8).view(-1, 4, 8, 8)),
        r"^view: reshapes \(4, 8, 8\) across images",
    ),
    "one image alone": (stem(lambda x: x.view(1, 4, 8, 8)), r"can be run on one 3x8x8 image at a time alone"),
    "a module named as an operation": (
        written(lambda net, x: net.split(net.stem(x))[0], stem=conv(), split=nn.MaxPool2d(2, return_indices=True)),
        r"^split: returns several tensors",
    ),
    "transposed": (stem(lambda x: x.transpose(2, 3)), r"^transpose: only a transposition that shuffles"),
    "antialiasing": (
        stem(lambda x: functional.interpolate(x, scale_factor=2, mode="bilinear", antialias=True)),
        r"^interpolate: antialiasing",
    ),
    # An operation that the walk doesn't know must not vanish from beside one that it knows.
    "several results": (stem(lambda x: x * torch.max(x, 1, keepdim=True)[0]), r"operation max is not supported"),
    "a tensor made of nothing": (stem(lambda x: x + torch.zeros(4, 8, 8)), r"^add: a bare parameter or constant"),
    "parameter": (with_parameter, r"^mul: a bare parameter or constant is used, scale"),
    # ends
    "a number beside the logits": (
        two(lambda net, x: (net.a(x), 3), a=ending(3), b=ending(3)),
        r"something that is no tensor",
    ),
    "a map that was flattened": (lambda: nn.Sequential(conv(), nn.Flatten()), r"returns a flattened feature map"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_named(name: str) -> None:
    build, message = REFUSED[name]
    with pytest.raises(UserError, match=message):
        trace(build(), IMAGE)


def test_sizes_of_an_input_that_do_not_fit_are_told_with_it() -> None:
    with pytest.raises(UserError, match=r"can't be run on a 3x8x8 input: .*\[1, 256\]"):
        trace(nn.Sequential(conv(), nn.Flatten(), nn.Linear(5, 3)), IMAGE)


def test_nobody_is_told_of_the_batch_that_a_trace_runs_on() -> None:
    wrong = Written(lambda net, x: net.head(net.stem(x).flatten(1)).shape[1], stem=conv(), head=nn.Linear(5, 3))
    with pytest.raises(UserError, match=r"can't be traced: .*\[N, 256\]"):
        trace(wrong, IMAGE)
