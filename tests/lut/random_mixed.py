"""Small random networks with sums, whose layers may have several precisions, and their shapes, edge by edge."""

from __future__ import annotations

import random
from collections.abc import Sequence

from amc_latency.lut.shapes.architecture import INPUT, Architecture, Layer
from amc_latency.lut.shapes.mixed import MixedArchitecture
from amc_latency.lut.shapes.shape import LayerShape

CHANNELS = 6
Policy = tuple[tuple[int, ...], tuple[str, ...]]
"""Channels of each coupled group, and each layer's precision."""


def random_architecture(seed: int, layers: int) -> Architecture:
    """Convolutions that begin a group or go on with one, depthwise ones and sums; each of a height of its own."""
    rng = random.Random(seed)
    groups: dict[int, int | None] = {INPUT: None}
    made: list[Layer] = []
    count = 0
    for i in range(layers):
        tensor = rng.choice(list(groups)[-3:])
        group = groups[tensor]
        alike = [other for other, its in groups.items() if its == group and other not in (tensor, INPUT)]
        kind = rng.choice(["conv", "conv", "depthwise", "add"])
        reads: tuple[int, ...] = (tensor,)
        out = group
        if kind == "add" and alike:
            reads = (tensor, rng.choice(alike))
        elif kind != "depthwise" or group is None:
            kind, out = "conv", rng.choice([count, group if group is not None else count])
            count = max(count, out + 1)
        sizes = (3 if group is None else CHANNELS, CHANNELS)
        made.append(Layer(LayerShape(kind, *sizes, h=1, w=i + 1), group, out, reads=reads))
        groups[i] = out
    returned = sorted(set(range(layers)) - {tensor for layer in made for tensor in layer.reads or ()})
    return Architecture(tuple(made), (CHANNELS,) * count, (*returned, *rng.sample(range(layers), rng.randint(0, 1))))


def random_mixed(seed: int, layers: int, ties: bool = False) -> MixedArchitecture:
    """Such a network, some of whose layers must be float32, and some of which must be as an earlier one."""
    rng = random.Random(f"allowed {seed}")
    architecture = random_architecture(seed, layers)
    allowed = [rng.choice([("int8", "float32"), ("int8", "float32"), ("float32",)]) for _ in range(layers)]
    first = list(range(layers))
    for i in range(1, layers if ties else 0):
        earlier = rng.randrange(i)
        if rng.random() < 0.3 and allowed[earlier] == allowed[i]:
            first[i] = first[earlier]
    return MixedArchitecture(architecture, allowed, first)


def expected_texts(architecture: Architecture, counts: Sequence[int], precisions: Sequence[str]) -> list[str]:
    """Texts of a mixed network's shapes in any order: each layer's, and of each tensor one boundary a precision."""
    channels = [3 if layer.out_group is None else counts[int(str(layer.out_group))] for layer in architecture.layers]
    texts, boundaries = [], set()
    image_width = next((layer.shape.w for layer in architecture.layers if INPUT in (layer.reads or ())), 0)
    for i, layer in enumerate(architecture.layers):
        reads = layer.reads or (i - 1,)
        c_in = 3 if reads[0] == INPUT else channels[reads[0]]
        shape = layer.shape
        texts.append(f"{shape.kind} {c_in}x1x{shape.w}>{channels[i]} k1 s1 p0 none {precisions[i]}")
        for tensor in reads:
            here = "float32" if tensor == INPUT else precisions[tensor]
            if here != precisions[i]:
                boundaries.add((tensor, precisions[i]))
    for tensor in architecture.outputs:
        if precisions[tensor] != "float32":
            boundaries.add((tensor, "float32"))
    for tensor, wanted in boundaries:
        c = 3 if tensor == INPUT else channels[tensor]
        width = image_width if tensor == INPUT else architecture.layers[tensor].shape.w
        kind = "quantize" if wanted == "int8" else "dequantize"
        texts.append(f"{kind} {c}x1x{width}>{c} k1 s1 p0 none int8")
    return sorted(texts)
