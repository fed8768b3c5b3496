"""Random small networks of the operators that the walk knows, drawn from a seed, and what is asked of each of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Size = tuple[int, ...]
"""[C, H, W] or [features]: a tensor's without the batch."""
Operation = Callable[..., Any]

ACTIVATIONS: tuple[Callable[[], nn.Module], ...] = (
    *(nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.SiLU, nn.Tanh, nn.ELU, nn.GELU, nn.PReLU),
    *(lambda: nn.LeakyReLU(0.2), lambda: nn.Hardtanh(0, 6), nn.Dropout, nn.Identity),
)
FUNCTIONS: tuple[Operation, ...] = (
    *(torch.relu, functional.relu6, functional.hardswish, torch.sigmoid, torch.tanh, functional.silu),
    *(lambda x: x.clamp(min=0), lambda x: x + 0.5, lambda x: 2 * x, lambda x: -x, lambda x: (x - 0.25) / 2.0),
    lambda x: x * functional.relu6(x + 3.0) / 6.0,
)
MIXING: dict[str, Operation] = {
    "log_softmax": lambda x: functional.log_softmax(x, 1),
    "softmin": lambda x: functional.softmin(x, 1),
    "cumsum": lambda x: torch.cumsum(x, 1),
    "cumprod": lambda x: x.cumprod(1),
    "cummax": lambda x: torch.cummax(x, 1)[0],
    "logcumsumexp": lambda x: torch.logcumsumexp(x, 1),
    "sort": lambda x: torch.sort(x, 1)[0],
    "argsort": lambda x: x.argsort(1).float(),
    "topk": lambda x: x.topk(x.shape[1] - 1, 1)[0],
    "kthvalue": lambda x: x - x.kthvalue(1, 1, keepdim=True)[0],
    "normalize": lambda x: functional.normalize(x, dim=1),
    "layer_norm": lambda x: functional.layer_norm(x, tuple(x.shape[1:])),
    "group_norm": lambda x: functional.group_norm(x, 1),
    "local_response_norm": lambda x: functional.local_response_norm(x, 3),
    "mean over channels": lambda x: x * x.mean(1, keepdim=True),
    "sum over channels": lambda x: x - x.sum(dim=1, keepdim=True),
    "amax over channels": lambda x: x - x.amax(1, keepdim=True),
    "max over channels": lambda x: x - x.max(1, keepdim=True)[0],
    "std over channels": lambda x: x / x.std(1, keepdim=True),
    "norm over channels": lambda x: x / x.norm(dim=1, keepdim=True),
    "logsumexp over channels": lambda x: x - torch.logsumexp(x, 1, keepdim=True),
    "argmax over channels": lambda x: x * x.argmax(1, keepdim=True),
    "flip": lambda x: x.flip(1),
    "roll": lambda x: torch.roll(x, 1, 1),
    "channels by index": lambda x: x[:, list(range(x.shape[1] - 1, -1, -1))],
    "every second channel": lambda x: x[:, ::2],
    "index_select": lambda x: x.index_select(1, torch.tensor([0])),
    "first channel": lambda x: x * x[:, 0:1],
    "glu": lambda x: functional.glu(torch.cat([x, x], 1), 1),
    "einsum": lambda x: torch.einsum("nc...,nd...->nd...", x, x),
}
"""What makes each channel of others as well, of feature maps and of vectors."""
MIXING_MAPS: dict[str, Operation] = {
    "softmax of a map": lambda x: torch.softmax(x, 1),
    "softmax of a map from behind": lambda x: x.softmax(-3),
    "softmax2d": nn.Softmax2d(),
    "layer norm": lambda x: functional.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],)).permute(0, 3, 1, 2),
    "instance norm": functional.instance_norm,
    "mean over all": lambda x: x - x.mean((1, 2, 3), keepdim=True),
    "lp pool of channels": lambda x: functional.max_pool3d(x, (3, 1, 1), 1, (1, 0, 0)),
    "transposed": lambda x: x.transpose(1, 2).transpose(1, 2),
    "channels last": lambda x: x.permute(0, 2, 3, 1).permute(0, 3, 1, 2),
    "pixel shuffle": lambda x: functional.pixel_unshuffle(functional.pixel_shuffle(torch.cat([x] * 4, 1), 2), 2),
    "pads channels": lambda x: functional.pad(x, (0, 0, 0, 0, 1, 1)),
}


class RandomNetwork(nn.Module):
    """Computes `steps`: (index of an operation's inputs among the values so far, the operation or a module's name)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()
        self.steps: list[tuple[tuple[int, ...], str | Operation]] = []
        self.told: list[str] = []
        """what each step is, for who reads a failure"""

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for read, operation in self.steps:
            call = self.layers[operation] if isinstance(operation, str) else operation
            values.append(call(*(values[index] for index in read)))
        return values[-1]

    def __str__(self) -> str:
        return "\n".join(f"{i}: {text}" for i, text in enumerate(self.told, 1))


class Drawing:
    """One random network in the making; sizes are those that PyTorch finds."""

    def __init__(self, seed: int, mixing: float = 0.0) -> None:
        self.random = random.Random(seed)
        torch.manual_seed(seed)
        self.mixing = mixing
        """how likely an operation is one of those that mix channels"""
        self.net = RandomNetwork().eval()
        self.image: tuple[int, int, int] = (*self.random.choice([(3,), (1,)]), *self._sides())  # type: ignore[assignment]
        self.values = [torch.randn(2, *self.image)]

    def network(self) -> tuple[RandomNetwork, tuple[int, int, int]]:
        """The network, in eval mode, and its image's size."""
        maps = [self.conv(0)]
        for _ in range(self.random.randint(2, 9)):
            maps.append(self.on_map(self.random.choice(maps[-3:])))
        vectors = [self.to_vector(self.random.choice(maps[-2:]))]
        for _ in range(self.random.randint(0, 6)):
            vectors.append(self.on_vector(self.random.choice(vectors[-2:])))
        if self.random.random() < 0.2 and len(vectors) > 1:
            return self.net, self.image
        self.linear(vectors[-1], self.random.choice([1, 3, 10]))
        if self.random.random() < 0.1:
            self.add("softmax", nn.Softmax(1), len(self.values) - 1)
        return self.net, self.image

    def add(self, text: str, operation: nn.Module | Operation, *read: int) -> int:
        """Append a step; its index among the values."""
        step: str | Operation = operation
        if isinstance(operation, nn.Module):
            step = f"m{len(self.net.layers)}"
            self.net.layers[step] = operation.eval()
        return self.again(text, step, *read)

    def again(self, text: str, step: str | Operation, *read: int) -> int:
        """Append a step of an operation, or of a module by name."""
        call = self.net.layers[step] if isinstance(step, str) else step
        with torch.no_grad():
            value = call(*(self.values[index] for index in read))
        self.net.steps.append((read, step))
        self.net.told.append(f"{text} of {', '.join(map(str, read))} -> {[*value.shape[1:]]}")
        self.values.append(value)
        return len(self.values) - 1

    def size(self, index: int) -> Size:
        return tuple(self.values[index].shape[1:])

    def on_map(self, x: int) -> int:
        """Any operation on a feature map [C, H, W], which makes another."""
        if self.random.random() < self.mixing:
            name, operation = self.random.choice([*MIXING.items(), *MIXING_MAPS.items()])
            return self._tried(name, operation, x)
        kinds = [
            *(self.conv, self.conv, self.depthwise, self.grouped, self.norm, self.activation, self.activation),
            *(self.pool, self.join, self.join, self.sum, self.sum, self.product, self.gate, self.gate, self.parts),
            *(self.shuffle, self.upsample, self.adaptive, self.padded, self.shared, self.transposed, self.transposed),
        ]
        return self.random.choice(kinds)(x)

    def on_vector(self, x: int) -> int:
        """Any operation on a vector [features], which makes another."""
        features = self.size(x)[0]
        if self.random.random() < self.mixing:
            return self._tried(*self.random.choice(list(MIXING.items())), x)
        match self.random.randrange(11):
            case 0 | 1:
                return self.linear(x, self.random.choice([features, features, 4, 12]))
            case 2:
                return self._settled(nn.BatchNorm1d(features), x)
            case 3 | 4:
                return self.activation(x)
            case 5:
                return self.add("softmax", lambda x: torch.softmax(x, -1), x)
            case 6 | 7:
                return self.sum(x) if self.random.random() < 0.5 else self.product(x)
            case 8:
                return self.join(x)
            case 9:
                return self.parts(x)
        viewed = self.add("view to [F, 1, 1]", lambda x: x.view(x.size(0), -1, 1, 1), x)
        return self.to_vector(self.on_map(viewed) if self.random.random() < 0.5 else self.conv(viewed))

    def to_vector(self, x: int) -> int:
        """A feature map [C, H, W] flattened or pooled."""
        match self.random.randrange(6):
            case 0 | 1:
                return self.add("flatten", lambda x: torch.flatten(x, 1), x)
            case 2:
                # A clone keeps the layout of what it copies, which a view may not take.
                clone = self.add("clone", torch.clone, x)
                return self.add("view", lambda x: x.contiguous().view(x.size(0), -1), clone)
            case 3:
                return self.add("mean", lambda x: x.mean((2, 3)), x)
            case 4:
                return self.add("flatten", nn.Flatten(), self.add("global pool", nn.AdaptiveAvgPool2d(1), x))
        return self.add("flatten", nn.Flatten(), self.adaptive(x))

    def linear(self, x: int, out: int) -> int:
        return self.add(f"linear {out}", nn.Linear(self.size(x)[0], out, bias=self._flip()), x)

    def conv(self, x: int) -> int:
        return self._conv(x, self.random.choice([self.size(x)[0], 4, 6, 8, 12]), 1)

    def depthwise(self, x: int) -> int:
        return self._conv(x, self.size(x)[0], self.size(x)[0])

    def grouped(self, x: int) -> int:
        c = self.size(x)[0]
        groups = self.random.choice([g for g in range(1, c + 1) if c % g == 0])
        return self._conv(x, self.random.choice([c, c, 2 * c]), groups)

    def _conv(self, x: int, out: int, groups: int) -> int:
        c, h, w = self.size(x)
        sides = self.random.choice([(1, 1), (3, 3), (3, 3), (5, 5), (1, 3), (h, w)])
        dilation = self.random.choice([1, 1, 1, 2])
        fits = all(n >= dilation * (k - 1) + 1 for n, k in zip((h, w), sides, strict=True))
        padding: Any = tuple(dilation * (k - 1) // 2 for k in sides) if self._flip() or not fits else 0
        stride = self.random.choice([1, 1, 2])
        if stride == 1 and self.random.random() < 0.1:
            padding = "same"
        conv = nn.Conv2d(c, out, sides, stride, padding, dilation, groups, bias=self._flip())
        made = self.add(f"conv {sides} s{stride} p{padding} d{dilation} g{groups}", conv, x)
        if self.random.random() < 0.4:
            made = self.norm(made)
        return self.activation(made) if self.random.random() < 0.5 else made

    def transposed(self, x: int) -> int:
        """A transposed convolution, which may enlarge."""
        c, h, w = self.size(x)
        if max(h, w) > 8:
            return self.conv(x)
        kernel = self.random.choice([(1, 1), (2, 2), (2, 2), (3, 3), (4, 4), (2, 3)])
        stride = self.random.choice([1, 2, 2])
        most = [min(k - 1, ((n - 1) * stride + k - 1) // 2) for n, k in zip((h, w), kernel, strict=True)]
        padding, extra = tuple(self.random.randint(0, each) for each in most), self.random.randint(0, stride - 1)
        out, bias = self.random.choice([c, 4, 6]), self._flip()
        module = nn.ConvTranspose2d(c, out, kernel, stride, padding, extra, bias=bias)
        made = self.add(f"transposed {kernel} s{stride} p{padding} +{extra}", module, x)
        if self.random.random() < 0.4:
            made = self.norm(made)
        return self.activation(made) if self.random.random() < 0.5 else made

    def norm(self, x: int) -> int:
        return self._settled(nn.BatchNorm2d(self.size(x)[0]), x)

    def activation(self, x: int) -> int:
        if self._flip():
            function = self.random.choice(FUNCTIONS)
            return self.add(f"function {FUNCTIONS.index(function)}", function, x)
        module = nn.PReLU(self.size(x)[0]) if self.random.random() < 0.1 else self.random.choice(ACTIVATIONS)()
        return self.add(type(module).__name__, module, x)

    def pool(self, x: int) -> int:
        side = min(self.size(x)[1:])
        kernel = self.random.choice([k for k in (1, 2, 3) if k <= side])
        settings = {"padding": self.random.randint(0, kernel // 2), "ceil_mode": self.random.random() < 0.2}
        stride = self.random.choice([1, 2])
        if self._flip():
            return self.add(f"max pool {kernel} {stride} {settings}", nn.MaxPool2d(kernel, stride, **settings), x)
        inner = self._flip()
        pool = nn.AvgPool2d(kernel, stride, count_include_pad=not inner, **settings)
        return self.add(f"average pool {kernel} {stride} {settings} inner {inner}", pool, x)

    def join(self, x: int) -> int:
        others = [i for i in range(1, len(self.values)) if self.size(i)[1:] == self.size(x)[1:]]
        others = [i for i in others if len(self.size(i)) == len(self.size(x)) and "zeros" not in self.net.told[i - 1]]
        parts = [x, *self.random.choices(others, k=self.random.randint(1, 2))]
        return self.add("concat", lambda *parts: torch.cat(parts, 1), *parts)

    def sum(self, x: int) -> int:
        return self.add("sum", torch.add, x, self._alike(x))

    def product(self, x: int) -> int:
        # Not of a product of products: its values would grow without bounds.
        factor = self.add("sigmoid", torch.sigmoid, self._alike(x))
        return self.add("product", torch.mul, *self.random.sample([x, factor], 2))

    def _alike(self, x: int) -> int:
        """Another value of this size, made for it if there is none."""
        size = self.size(x)
        others = [i for i in range(1, len(self.values)) if self.size(i) == size and i != x]
        others = [i for i in others if "zeros" not in self.net.told[i - 1]]
        if others and self._flip():
            return self.random.choice(others)
        if len(size) == 1:
            return self.linear(x, size[0])
        return self.add("conv", nn.Conv2d(size[0], size[0], 3, padding=1), x)

    def gate(self, x: int) -> int:
        """Squeeze-and-excitation, by convolutions or by linear layers, with several last activations."""
        c = self.size(x)[0]
        last = self.random.choice([nn.Sigmoid(), nn.Hardsigmoid(), nn.Softmax(1), nn.Tanh()])
        if self._flip() and not isinstance(last, nn.Softmax):
            pooled = self.add("global pool", nn.AdaptiveAvgPool2d(1), x)
            inner = self.add("conv", nn.Conv2d(c, 3, 1), pooled)
            factors = self.add("conv", nn.Conv2d(3, c, 1), self.add("relu", torch.relu, inner))
            factors = self.add(type(last).__name__, last, factors)
        else:
            inner = self.linear(self.add("mean", lambda x: x.mean((2, 3)), x), 3)
            factors = self.add(type(last).__name__, last, self.linear(inner, c))
            factors = self.add("view", lambda x: x.view(x.size(0), x.size(1), 1, 1), factors)
        return self.add("gate", torch.mul, *self.random.sample([x, factors], 2))

    def parts(self, x: int) -> int:
        """Some of the channels."""
        c = self.size(x)[0]
        if c < 2:
            return self.activation(x)
        cut = self.random.randint(1, c - 1)
        if self._flip():
            return self.add(f"slice from {cut}", lambda x: x[:, cut:], x)

        def swapped(x: Tensor) -> Tensor:
            left, right = torch.split(x, [cut, c - cut], 1)
            return torch.cat([right, left], 1)

        return self.add(f"split at {cut}", swapped, x)

    def shuffle(self, x: int) -> int:
        c = self.size(x)[0]
        groups = self.random.choice([g for g in range(1, c + 1) if c % g == 0])

        def by_view(x: Tensor) -> Tensor:
            n, c, h, w = x.data.size()
            return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)

        if groups in (1, c) or self._flip():
            return self.add(f"shuffle {groups}", nn.ChannelShuffle(groups), x)
        return self.add(f"shuffle {groups} by view", by_view, self.add("clone", torch.clone, x))

    def upsample(self, x: int) -> int:
        if max(self.size(x)[1:]) > 8:
            return self.activation(x)
        mode = self.random.choice(["nearest", "bilinear"])
        return self.add(f"upsample {mode}", nn.Upsample(scale_factor=2, mode=mode), x)

    def adaptive(self, x: int) -> int:
        h, w = self.size(x)[1:]
        side = self.random.choice([n for n in range(1, 9) if h == w and (h % n == 0 or n % h == 0)] or [1])
        return self.add(f"adaptive pool {side}", nn.AdaptiveAvgPool2d(side), x)

    def padded(self, x: int) -> int:
        start, end = self.random.choice([(0, 1), (1, 1), (1, 2)])
        padded = self.add(f"zeros {start} {end}", nn.ZeroPad2d((start, end, start, end)), x)
        conv = nn.Conv2d(self.size(x)[0], self.random.choice([4, 6]), 3, self.random.choice([1, 2]))
        if min(self.size(padded)[1:]) < 3:
            return self.activation(x)
        return self.add("conv", conv, padded)

    def shared(self, x: int) -> int:
        """A module that has been called before, if one takes this."""
        c = self.size(x)[0]
        fits = [
            name
            for name, module in self.net.layers.items()
            if (isinstance(module, nn.Conv2d) and module.in_channels == c and max(module.kernel_size) == 1)
            or (isinstance(module, nn.PReLU) and module.num_parameters in (1, c))
        ]
        if not fits:
            return self.conv(x)
        name = self.random.choice(fits)
        return self.again(f"{name} again", name, x)

    def _tried(self, name: str, operation: Operation, x: int) -> int:
        try:
            return self.add(name, operation, x)
        except (RuntimeError, IndexError, AssertionError, ValueError):  # This size isn't for it.
            return self.activation(x)

    def _settled(self, norm: nn.BatchNorm1d | nn.BatchNorm2d, x: int) -> int:
        """A batch norm that has seen data."""
        for tensor, low, high in (
            *((norm.weight, 0.5, 1.5), (norm.bias, -1.0, 1.0)),
            *((norm.running_mean, -0.5, 0.5), (norm.running_var, 0.5, 2.0)),
        ):
            nn.init.uniform_(tensor, low, high)  # type: ignore[arg-type]
        return self.add("batch norm", norm, x)

    def _sides(self) -> tuple[int, int]:
        side = self.random.choice([4, 6, 8, 9, 12])
        return (side, side) if self.random.random() < 0.7 else (side, self.random.choice([4, 6, 8, 9, 12]))

    def _flip(self) -> bool:
        return self.random.random() < 0.5


def random_network(seed: int, mixing: float = 0.0) -> tuple[RandomNetwork, tuple[int, int, int]]:
    """The network of that seed in eval mode, and its image's size [C, H, W]."""
    return Drawing(seed, mixing).network()
